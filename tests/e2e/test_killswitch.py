"""A VPN with a kill switch comes and goes beside a running guest, and ``loopnet watch`` lets the two live together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from tests.netns import killswitches as switches
from tests.sandbox import CHECKOUT, INTERNET, Guest
from tests.sandbox.world import World

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
