"""Multicast DNS, avahi on the host, avahi and systemd-resolved in guests: no .local name leads to a wrong address."""

from __future__ import annotations

import re
from typing import Iterator, List

import pytest

from tests.machines.guest import SystemGuest
from tests.machines.systems import System
from tests.sandbox.packages import provide
from tests.sandbox.world import World, wait

pytestmark = pytest.mark.timeout(1200)

CONFIGURATION = """\
[server]
enable-dbus=no
use-ipv6=yes
[rlimits]
"""
AVAHI = "avahi-daemon --file=/run/sandbox/avahi.conf --no-drop-root --no-chroot --no-rlimits"
NAME = "guest.local"
"""The system's own host name."""
PATIENCE = 60.0


@pytest.fixture
def avahi(world: World) -> Iterator[None]:
    """avahi-daemon and its module for names, on the host."""
    provide(world.sandbox, "avahi-daemon", "libnss-mdns")
    world.path("/run/sandbox/avahi.conf").write_text(CONFIGURATION)
    for file in ("passwd", "group"):
        world.host.sh(
            f"grep -q ^avahi: /etc/{file} || echo 'avahi:x:997:997::/run/avahi-daemon:' >>/etc/{file}"
        )
    world.host.sh(f"{AVAHI} --daemonize")
    yield
    world.host.sh(f"{AVAHI} --kill; rm -rf /run/avahi-daemon")


def resolved(world: World) -> List[str]:
    """What programs on the host get, as avahi's module asks for it (5 s at most)."""
    found = world.host.run(["getent", "-s", "hosts:mdns4_minimal", "ahostsv4", NAME], check=False).stdout
    return sorted(set(re.findall(r"^\S+", found, re.MULTILINE)))


def by_resolved(guest: SystemGuest) -> None:
    """Has systemd-resolved answer for the guest's name, in avahi's place; it does if it is on twice."""
    guest.run("systemctl stop avahi-daemon.socket avahi-daemon", timeout=120)
    guest.run("mkdir -p /etc/systemd/resolved.conf.d", timeout=120)
    guest.run("printf '[Resolve]\\nMulticastDNS=yes\\n' >/etc/systemd/resolved.conf.d/mdns.conf", timeout=120)
    guest.run("systemctl restart systemd-resolved; resolvectl mdns eth0 yes", timeout=120)


def test_names_in_local(world: World, managed: System, vm1: SystemGuest, avahi: None) -> None:
    """Of a guest on libvirt's own network the host knows the name; on loopnet nobody's but its own."""
    wait(lambda: vm1.run("systemctl is-active avahi-daemon", check=False) == "active\n", "avahi", PATIENCE)
    assert vm1.run(f"getent ahostsv4 {NAME}").startswith(vm1.address())
    assert resolved(world) == []
    # It announces itself when its address comes, and when it starts; the host may not keep what it heard then.
    vm1.run("systemctl restart avahi-daemon")
    for _ in range(3):
        assert resolved(world) in ([], ["127.1.0.2"])

    # The host's avahi announces all addresses of the bridge; who starts later has to ask, and is not heard.
    known = vm1.run("getent ahostsv4 laptop.local", check=False)
    assert set(re.findall(r"^\S+", known, re.MULTILINE)) <= {"10.127.1.1", "127.1.0.254", "247.1.0.1"}, known

    by_resolved(vm1)
    for _ in range(3):
        assert resolved(world) in ([], ["127.1.0.2"])

    # The same guest where the host hears it: this test can see names.
    world.sandbox.virsh("net-start", "default")
    try:
        plain = SystemGuest(world.sandbox, "plain", ["default"], managed)
        plain.start()
        plain.wait_boot()
        address = plain.wait_lease()
        wait(lambda: resolved(world) == [address], f"{NAME} at {address}", PATIENCE)
        by_resolved(plain)
        world.host.sh(f"{AVAHI} --kill; {AVAHI} --daemonize")  # which knew it
        wait(lambda: resolved(world) == [address], f"{NAME} at {address} by resolved", PATIENCE)
    finally:
        world.sandbox.virsh("destroy", "plain", check=False)
        world.sandbox.virsh("net-destroy", "default")
