"""The whole life of an installation under a real guest that is pinged throughout: from a checkout, and as a .deb.

first-release.deb is release 0.1.0, built by packaging/build in the commit whose CHANGELOG.md has that section alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TOP
from inside import END, assert_told, boot, checkout, pinged, prepare, refusal, snapshot
from test_deb import INSTALL, PURGE, REMOVE

from tests.machines.machine import Machine
from tests.sandbox.snapshot import differences

FIRST_RELEASE = Path(__file__).with_name("first-release.deb")
ADDRESS = "127.1.0.2"
CLONE = "/root/libvirt-loopnet"
NETWORK = "/usr/local/share/libvirt-loopnet/loopnet.xml"
GONE = "network loopnet: libvirt-loopnet was removed; install it, or use another network"


@pytest.fixture
def machine(suite: Path) -> Iterator[Machine]:
    with Machine(suite) as made:
        prepare(made)
        yield made


def test_from_a_checkout(machine: Machine) -> None:
    """README's install section, once more over itself, and make uninstall."""
    checkout(machine, TOP, CLONE)
    before = snapshot(machine)
    machine.run(f"make -C {CLONE} install")
    machine.run(f"virsh net-define {NETWORK}; virsh net-start loopnet; virsh net-autostart loopnet")
    guest = boot(machine)
    assert machine.run("loopnet ip vm1") == f"{ADDRESS}\n"
    with pinged(machine, ADDRESS):
        machine.run(f"make -C {CLONE} install")
        machine.run("loopnet status")
        assert_told(machine.run(f"make -C {CLONE} uninstall"))
        machine.run("systemctl restart libvirtd; virsh list")
    with pinged(machine, "vm1.loopnet"):
        other = boot(machine, "vm2")
        assert "vm1" in other.run("nslookup vm1.loopnet")
        other.destroy()
    guest.destroy()
    machine.run(END)
    assert "loopnet.loopnet-dnsmasq" in refusal(machine, "virsh net-start loopnet")
    machine.run("virsh net-undefine loopnet")
    # as make uninstall says
    machine.run("rm -r /etc/libvirt-loopnet.conf /var/lib/libvirt-loopnet")
    assert differences(before, snapshot(machine)) == ""


def test_upgraded_and_removed(machine: Machine, newer_deb: Path) -> None:
    """From the first release to this one, reinstalled, removed, installed again and purged."""
    before = snapshot(machine)
    machine.copy(FIRST_RELEASE, "/root/loopnet.deb")
    machine.run(INSTALL)
    machine.run("virsh net-start loopnet")
    guest = boot(machine)
    machine.copy(newer_deb, "/root/loopnet.deb")
    with pinged(machine, ADDRESS):
        machine.run(INSTALL)
        machine.run("loopnet status")
        machine.run(INSTALL.replace(" install", " install --reinstall"))
        machine.run("loopnet status")
        assert machine.run("loopnet ip vm1") == f"{ADDRESS}\n"
        assert guest.address() == "10.127.1.2"
        assert_told(machine.run(REMOVE))
        assert guest.address() == "10.127.1.2"
        # who comes back meanwhile finds all as it was
        machine.run(INSTALL)
        machine.run("loopnet status")
        assert_told(machine.run(REMOVE))
        machine.run("systemctl restart libvirtd; virsh list")
    guest.destroy()
    removed = machine.run(END)
    assert "loopnet" not in removed.replace("Network loopnet destroyed", "")
    same_but = {"files", "contents", "networks", "units"}
    after = snapshot(machine)
    host = {name: seen for name, seen in before.items() if name not in same_but}
    assert differences(host, after) == ""
    assert GONE in refusal(machine, "virsh net-start loopnet")
    assert differences(host, snapshot(machine)) == ""

    machine.run(INSTALL)
    machine.run("virsh net-start loopnet")
    guest = boot(machine)
    with pinged(machine, ADDRESS):
        assert_told(machine.run(PURGE))
    guest.destroy()
    machine.run(END)
    assert differences(before, snapshot(machine)) == ""


@pytest.mark.parametrize("up", [False, True], ids=["down", "up"])
def test_purged_without_guests(machine: Machine, newer_deb: Path, up: bool) -> None:
    before = snapshot(machine)
    machine.copy(newer_deb, "/root/loopnet.deb")
    machine.run(INSTALL)
    if up:
        machine.run("virsh net-start loopnet; virsh net-autostart loopnet")
    assert ("Stopping network loopnet" in machine.run(PURGE)) == up
    assert differences(before, snapshot(machine)) == ""
