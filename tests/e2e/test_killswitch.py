"""A VPN with a kill switch comes and goes beside a running guest, and ``loopnet watch`` lets the two live together."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import pytest

from tests.netns import killswitches as switches
from tests.sandbox import CHECKOUT, INTERNET, Guest
from tests.sandbox.world import World

LAN6, UPLINK6, BY_TUNNEL = "2001:db8:7::9", "2001:db8:7::2", "2001:db8:9::1"
"""A host in the LAN, this host there, and one that only the VPN leads to."""
WITHIN = 15.0
"""Seconds, for a guest that is emulated on a busy machine."""


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


def seen_as(guest: Guest) -> str:
    """The address by which the internet sees the guest; '' if it isn't reached."""
    page = guest.run(f"timeout 3 wget -qO- http://{INTERNET}/", check=False, timeout=8)
    return page.strip().rpartition(" ")[2] if page.startswith("hello") else ""


def host_sees(world: World) -> bool:
    answer = world.host.run(["curl", "-sm", "1", "http://vm1.loopnet/"], check=False)
    return answer.stdout == "hello from vm1\n"


def soon(check: Callable[[], object]) -> None:
    end = time.monotonic() + WITHIN
    while not check():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_the_vpn_connects_and_disconnects(world: World, guest: Guest) -> None:
    assert seen_as(guest) == world.sandbox.host_address
    load(world, "")
    soon(lambda: host_sees(world))
    assert seen_as(guest) == ""
    assert guest.resolve("vm1.loopnet") == [guest.address()]
    switches.tunnel_up(world.sandbox, switches.TUNNEL)
    for _ in range(3):  # it makes its table anew whenever it connects
        load(world, switches.TUNNEL)
        soon(lambda: host_sees(world))
        assert seen_as(guest) == switches.HERE
    switches.tunnel_down(world.sandbox, switches.TUNNEL)
    assert seen_as(guest) == ""
    assert host_sees(world)
    world.host.run(["nft", "delete", "table", "inet", "mullvad"])
    soon(lambda: seen_as(guest) == world.sandbox.host_address)


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


def pings(guest: Guest, address: str) -> bool:
    answer = guest.run(f"ping -6 -c1 -W2 {address}", check=False, timeout=8)
    return " 0% packet loss" in answer


def test_a_guest_with_ipv6(world: World, guest6: Guest) -> None:
    """By the LAN while there is no VPN, by its tunnel alone while there is, and else by nothing."""
    prefix = re.search("ipv6=.(fd[0-9a-f:]+)::/64", world.sandbox.virsh("net-dumpxml", "six"))
    assert prefix

    def own() -> str:
        listed = guest6.run("ip -6 -o address show dev eth0 scope global")
        return next((word for word in re.split("[ /]", listed) if word.startswith(prefix[1])), "")

    def host_pings() -> bool:
        return world.host.run(["ping", "-6", "-c1", "-W1", own()], check=False).returncode == 0

    soon(lambda: own() and host_pings())
    soon(lambda: pings(guest6, LAN6))
    load(world, "")
    soon(host_pings)
    assert pings(guest6, f"{prefix[1]}::1")
    assert not pings(guest6, LAN6)
    switches.tunnel_up(world.sandbox, switches.TUNNEL)
    switches.tunnel_has_ipv6(world.sandbox, switches.TUNNEL)
    load(world, switches.TUNNEL)
    soon(host_pings)
    soon(lambda: pings(guest6, BY_TUNNEL))
    assert not pings(guest6, LAN6)
    switches.ipv6_down(world.sandbox)
    switches.tunnel_down(world.sandbox, switches.TUNNEL)
    assert not pings(guest6, BY_TUNNEL)
    assert not pings(guest6, LAN6)
    assert host_pings()
    world.host.run(["nft", "delete", "table", "inet", "mullvad"])
    soon(lambda: pings(guest6, LAN6))
