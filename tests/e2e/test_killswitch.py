"""A VPN with a kill switch comes and goes beside a running guest, and ``loopnet watch`` lets the two live together."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.netns import killswitches as switches
from tests.sandbox import CHECKOUT, INTERNET, Guest
from tests.sandbox.world import World, wait

LAN6, UPLINK6, BY_TUNNEL = "2001:db8:7::9", "2001:db8:7::2", "2001:db8:9::1"
"""A host in the LAN, this host there, and one that only the VPN leads to."""


@pytest.fixture(scope="module")
def guest(world: World) -> Iterator[Guest]:
    """Its host has a VPN's far end, which is another internet, and lets loopnet open the VPN's table."""
    world.start()
    (guest,) = world.boot("vm1")
    world.path("/etc/libvirt-loopnet.conf").write_text('open-firewalls = [ "inet mullvad" ]\n')
    world.host.sh(f"ip netns add vpn; ip -n vpn link set lo up; ip -n vpn address add {INTERNET}/32 dev lo")
    server = ["/usr/bin/python3", "-I", f"{CHECKOUT}/tests/sandbox/internet.py", INTERNET]
    internet = world.host.popen(["ip", "netns", "exec", "vpn", *server])
    watch = world.host.popen(["loopnet", "watch"])
    try:
        yield guest
        assert watch.poll() is None
    finally:
        for process in (watch, internet):
            process.terminate()
            process.wait(10)
        world.host.sh("nft delete table inet mullvad || :; ip netns delete vpn")


def load(world: World, device: str) -> None:
    world.host.run(["nft", "-f", "-"], input=switches.mullvad(device))


def seen_as(guest: Guest, patience: int = 20) -> str:
    """The address by which the internet sees the guest; '' if it isn't reached."""
    page = guest.run(f"timeout {patience} wget -qO- http://{INTERNET}/", check=False)
    return page.strip().rpartition(" ")[2] if page.startswith("hello") else ""


def host_sees(world: World) -> bool:
    answer = world.host.run(["curl", "-sm", "5", "http://vm1.loopnet/"], check=False)
    return answer.stdout == "hello from vm1\n"


def test_the_vpn_connects_and_disconnects(world: World, guest: Guest) -> None:
    assert seen_as(guest) == world.sandbox.host_address
    load(world, "")
    wait(lambda: host_sees(world), "the guest's page")
    assert seen_as(guest, 3) == ""
    assert guest.resolve("vm1.loopnet") == [guest.address()]
    switches.tunnel_up(world.sandbox, switches.TUNNEL)
    for _ in range(3):  # it makes its table anew whenever it connects
        load(world, switches.TUNNEL)
        wait(lambda: host_sees(world), "the guest's page")
        assert seen_as(guest) == switches.HERE
    switches.tunnel_down(world.sandbox, switches.TUNNEL)
    assert seen_as(guest, 3) == ""
    assert host_sees(world)
    world.host.run(["nft", "delete", "table", "inet", "mullvad"])
    wait(lambda: seen_as(guest, 3) == world.sandbox.host_address, "the internet without the VPN")


@pytest.fixture
def guest6(world: World, guest: Guest) -> Iterator[Guest]:
    """On a network with IPv6, of a host that has a way out by its LAN."""
    host, six = world.host, "ip -n vpn"
    host.sh(
        f"ip address add {UPLINK6}/64 dev uplink0 nodad; ip -n lan address add {LAN6}/64 dev lan0 nodad\n"
        f"ip -6 route add default via {LAN6}; {six} address add {BY_TUNNEL}/128 dev lo nodad\n"
        "loopnet define six --ipv6 ula"
    )
    world.sandbox.virsh("net-start", "six")
    found = world.sandbox.guest("vm6", ["six"])
    found.start()
    found.wait_boot()
    yield found
    world.sandbox.virsh("destroy", "vm6")
    world.sandbox.virsh("net-destroy", "six")
    host.sh(
        "nft delete table inet mullvad || :; ip -6 rule del pref 100 || :; ip -6 rule del pref 99 || :\n"
        f"ip -6 route del default; ip address del {UPLINK6}/64 dev uplink0; ip -n lan address del {LAN6}/64 dev lan0\n"
        "ip link delete wg0-mullvad || :; echo 0 >/proc/sys/net/ipv6/conf/all/forwarding"
    )


def pings(guest: Guest, address: str, patience: int = 2) -> bool:
    answer = guest.run(f"ping -6 -c1 -W{patience} {address}", check=False)
    return " 0% packet loss" in answer


def test_a_guest_with_ipv6(world: World, guest6: Guest) -> None:
    """By the LAN while there is no VPN, by its tunnel alone while there is, and else by nothing."""
    prefix = re.search("ipv6=.(fd[0-9a-f:]+)::/64", world.sandbox.virsh("net-dumpxml", "six"))
    assert prefix

    def own() -> str:
        listed = guest6.run("ip -6 -o address show dev eth0 scope global")
        return next((word for word in re.split("[ /]", listed) if word.startswith(prefix[1])), "")

    def host_pings() -> bool:
        return world.host.run(["ping", "-6", "-c1", "-W5", own()], check=False).returncode == 0

    wait(lambda: own() and host_pings(), "an address that answers")
    wait(lambda: pings(guest6, LAN6), "answer from the LAN")
    load(world, "")
    wait(host_pings, "answer of the guest")
    assert pings(guest6, f"{prefix[1]}::1", 10)
    assert not pings(guest6, LAN6)
    switches.tunnel_up(world.sandbox, switches.TUNNEL)
    switches.tunnel_has_ipv6(world.sandbox, switches.TUNNEL)
    load(world, switches.TUNNEL)
    wait(host_pings, "answer of the guest")
    wait(lambda: pings(guest6, BY_TUNNEL), "answer by the tunnel")
    assert not pings(guest6, LAN6)
    switches.ipv6_down(world.sandbox)
    switches.tunnel_down(world.sandbox, switches.TUNNEL)
    assert not pings(guest6, BY_TUNNEL)
    assert not pings(guest6, LAN6)
    assert host_pings()
    world.host.run(["nft", "delete", "table", "inet", "mullvad"])
    wait(lambda: pings(guest6, LAN6), "answer from the LAN")
