"""IPv6 with the real libvirt, its dnsmasq, and guests that make addresses by themselves."""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Iterator, List

import pytest

from tests.sandbox import Guest
from tests.sandbox.world import World, wait

NAT = """\
<network>
  <name>six</name>
  <forward mode='nat'><nat ipv6='yes'/></forward>
  <bridge name='virbr66' stp='off' delay='0'/>
  <ip address='192.168.66.1' prefix='24'><dhcp><range start='192.168.66.2' end='192.168.66.99'/></dhcp></ip>
  <ip family='ipv6' address='fd66::1' prefix='64'><dhcp><range start='fd66::100' end='fd66::1ff'/></dhcp></ip>
</network>
"""


@pytest.fixture(autouse=True)
def clean(world: World) -> Iterator[None]:
    yield
    # It stays on where libvirt has switched it on.
    world.host.sh("echo 0 >/proc/sys/net/ipv6/conf/all/forwarding")
    world.clean()


def loopnet(world: World, *arguments: str) -> str:
    return world.host.run(["loopnet", *arguments], timeout=120).stdout


def boot(world: World, network: str, *names: str) -> List[Guest]:
    guests = [world.sandbox.guest(name, [network]) for name in names]
    for guest in guests:
        guest.start()
    for guest in guests:
        guest.wait_boot()
        guest.wait_lease()
    return guests


def slaac(guest: Guest, prefix: ipaddress.IPv6Network) -> str:
    """The address that its kernel made in the prefix, once it is sure of it."""

    def found() -> str:
        for line in guest.run("ip -6 -o address show dev eth0").splitlines():
            address = line.split()[3].partition("/")[0]
            if ipaddress.IPv6Address(address) in prefix and "tentative" not in line:
                return address
        return ""

    return wait(found, f"an address in {prefix} in {guest.name}")


def add(guest: Guest, address: str) -> None:
    """Unasked whether another has it (busybox' ip knows no nodad)."""
    guest.run(f"echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad; ip address add {address}/64 dev eth0")


def pings(world: World, address: str, patience: int = 10) -> bool:
    done = world.host.run(["ping", "-6", "-n", "-c1", f"-W{patience}", address], check=False)
    return done.returncode == 0


def prefix_of(world: World, network: str) -> ipaddress.IPv6Network:
    found = re.search(r"""ipv6=['"]([^'"]+)['"]""", world.sandbox.virsh("net-dumpxml", "--inactive", network))
    assert found
    return ipaddress.IPv6Network(found[1])


def test_a_new_network_with_ipv6(world: World) -> None:
    told = loopnet(world, "define", "one", "--ipv6", "ula")
    loopnet(world, "define", "two", "--ipv6", "ula")
    prefix, other = prefix_of(world, "one"), prefix_of(world, "two")
    assert str(prefix) in told
    assert prefix != other
    assert prefix.supernet(new_prefix=48) == other.supernet(new_prefix=48)
    world.sandbox.virsh("net-start", "one")
    vm1, vm2 = boot(world, "one", "vm1", "vm2")
    listed = {each["name"]: each for each in json.loads(loopnet(world, "list", "--json"))}
    assert listed["vm1"]["ipv6_address"] == str(prefix[2])
    made = slaac(vm1, prefix)
    assert pings(world, made)
    # It never asked for its number's.
    assert loopnet(world, "ip", "--ipv6", "vm1") == f"{made}\n"
    assert made in loopnet(world, "list")
    vm1.run(f"ip address add {prefix[2]}/64 dev eth0")
    wait(lambda: pings(world, str(prefix[2]), 2), "an answer at its number's address")
    vm2.run(f"ping -c1 {made}")
    vm2.run(f"ping -c1 {prefix[1]}")
    vm2.run("ip -6 route")
    assert "default" not in vm2.run("ip -6 route")
    # What is another's is dropped, and so is what says that it was.
    add(vm2, str(prefix[2]))
    add(vm2, str(prefix[3]))
    assert "100% packet loss" in vm2.run(f"ping -c1 -W1 -I {prefix[2]} {prefix[1]}", check=False)
    assert pings(world, str(prefix[2]))
    assert "drift:  none" in loopnet(world, "status")

    # libvirt's daemon starts anew, and the network does.
    world.sandbox.kill_libvirtd()
    world.sandbox.start_libvirtd()
    world.sandbox.virsh("net-list")
    assert pings(world, made)
    assert loopnet(world, "plan") == "nothing to do\n"
    world.sandbox.virsh("net-destroy", "one")
    assert "loopnet" not in world.host.sh("nft list tables")
    world.sandbox.virsh("net-start", "one")
    assert prefix_of(world, "one") == prefix
    loopnet(world, "sync")  # plugs the guests in again
    assert "drift:  none" in loopnet(world, "status")
    wait(lambda: pings(world, made, 2), "the guest by IPv6 again")


def test_there_and_back(world: World) -> None:
    world.define(NAT)
    before = world.sandbox.virsh("net-dumpxml", "--inactive", "six")
    world.sandbox.virsh("net-start", "six")
    (guest,) = boot(world, "six", "vm1")
    made = slaac_or_link(guest)
    add(guest, "fd66::50")
    assert pings(world, "fd66::50")
    assert "ip6 loopnet" not in world.host.sh("nft list tables")

    told = world.host.run(["loopnet", "convert", "six", "--restart"], timeout=120)
    assert "IPv6" not in told.stderr
    wait(lambda: pings(world, "fd66::50", 2), "the guest by IPv6")
    guest.run("ping -c1 fd66::1")
    rules = world.host.sh("nft list table ip6 loopnet")
    assert "ip6 saddr fd66::/64 masquerade" in rules
    assert slaac_or_link(guest) == made
    assert "drift:  none" in loopnet(world, "status")

    loopnet(world, "revert", "six", "--restart")
    assert world.sandbox.virsh("net-dumpxml", "--inactive", "six") == before
    wait(lambda: pings(world, "fd66::50", 2), "the guest by IPv6")
    assert "loopnet" not in world.host.sh("nft list tables")


def slaac_or_link(guest: Guest) -> str:
    """What its kernel made of its MAC address."""
    return guest.run("ip -6 -o address show dev eth0 scope link").split()[3]


def test_bad_input_is_one_line_and_changes_nothing(world: World) -> None:
    for prefix, says in (
        ("fd00::/65", "must be a /64"),
        ("fe80::/64", "neither in"),
        ("2001:db8:55::/64", "is not routed here"),
        ("10.0.0.0/24", "is not an IPv6 prefix"),
    ):
        done = world.host.run(["loopnet", "define", "x", "--ipv6", prefix], check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert says in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert "x" not in world.sandbox.virsh("net-list", "--all", "--name").split()
    world.host.sh("ip -6 route add unreachable 2001:db8:55::/48")
    try:
        loopnet(world, "define", "x", "--ipv6", "2001:db8:55::/64")
    finally:
        world.host.sh("ip -6 route delete unreachable 2001:db8:55::/48")
    assert str(prefix_of(world, "x")) == "2001:db8:55::/64"
    done = world.host.run(["loopnet", "define", "y", "--ipv6", "fd00:1::/64"], check=False)
    assert done.returncode == 0
    done = world.host.run(["loopnet", "define", "z", "--ipv6", "fd00:1::/64"], check=False)
    assert done.returncode == 2
    assert "overlaps" in done.stderr
