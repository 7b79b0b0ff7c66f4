"""Ports of one NIC, in every order that libvirt could tell of them: a NIC is there until its last one goes."""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from .lab import RUN, Lab, LabGuest, LabNetwork, eventually, guest_uuid

NOTES = "/run/libvirt-loopnet"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


@pytest.fixture
def network(lab: Lab) -> Iterator[LabNetwork]:
    made = lab.network(1)
    lab.start(made)
    yield made
    lab.clean()
    assert not lab.path(NOTES).exists()


class Ports:
    """libvirt's ports of one NIC, by names of ours."""

    def __init__(self, lab: Lab, network: LabNetwork, mac: str, owner: str) -> None:
        self._lab, self.network, self.mac, self.owner = lab, network, mac, owner
        self.live: set[str] = set()

    def xml(self, name: str) -> str:
        return (
            f"<networkport><uuid>{self.uuid_of(name)}</uuid><owner><name>{self.owner}</name>"
            f"<uuid>{guest_uuid(self.owner)}</uuid></owner><mac address='{self.mac}'/>"
            f"<plug type='network' bridge='{self.network.model.bridge}'/></networkport>"
        )

    def create(self, name: str) -> None:
        self._lab.network_hook(self.network, "port-created", port=self.xml(name))
        self._file(name).parent.mkdir(exist_ok=True, parents=True)
        self._file(name).write_text(self.xml(name))
        self.live.add(name)

    def delete(self, name: str) -> None:
        self._lab.network_hook(self.network, "port-deleted", port=self.xml(name))
        self._file(name).unlink()
        self.live.discard(name)

    def _file(self, name: str) -> Path:
        return self._lab.path(f"{RUN}/{self.network.model.name}/ports/{self.uuid_of(name)}.xml")

    def uuid_of(self, name: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{self.mac}/{name}"))


def is_admitted(lab: Lab, mac: str) -> bool:
    return mac in lab.host.sh("nft list set ip loopnet nics")


def no_drift(lab: Lab) -> bool:
    return lab.host.run(["loopnet", "plan"], check=False).stdout == "nothing to do\n"


ORDERS = {
    "start and end": ["+A", "-A"],
    "the link goes down and up": ["+A", "+B", "-B", "+C", "-C", "-A"],
    "an update that replaces": ["+A", "+B", "-A", "+C", "-B", "-C"],
    "told late of what went": ["+A", "+B", "+C", "-A", "-B", "-C"],
    "out and in again, in disorder": ["+A", "+B", "-A", "-B", "+A", "-A"],
    "a restarted daemon": ["+A", "+A", "+B", "+A", "-B", "+A", "-A"],
}


@pytest.mark.parametrize("order", ORDERS)
def test_order(lab: Lab, network: LabNetwork, order: str) -> None:
    walk(lab, Ports(lab, network, "52:54:00:aa:02:01", "vm"), ORDERS[order])


@pytest.mark.parametrize("seed", range(3))
def test_any_order(lab: Lab, network: LabNetwork, seed: int) -> None:
    chance = random.Random(seed)
    ports = Ports(lab, network, "52:54:00:aa:02:02", "any")
    events: list[str] = []
    live: set[str] = set()
    for _ in range(12):
        name = chance.choice("ABC")
        events.append(("-" if name in live and chance.random() < 0.7 else "+") + name)
        (live.discard if events[-1][0] == "-" else live.add)(name)
    walk(lab, ports, events)


def walk(lab: Lab, ports: Ports, events: list[str]) -> None:
    neighbour = Ports(lab, ports.network, "52:54:00:aa:02:99", "neighbour")
    neighbour.create("N")
    for event in events:
        (ports.create if event[0] == "+" else ports.delete)(event[1])
        assert is_admitted(lab, ports.mac) == bool(ports.live), event
        assert is_admitted(lab, neighbour.mac)
        names = lab.host.sh(f"grep -c ' {ports.owner}.net1' /etc/hosts || true").strip()
        assert names == ("1" if ports.live else "0"), event
        assert no_drift(lab), event
    for name in sorted(ports.live):
        ports.delete(name)
    assert not is_admitted(lab, ports.mac)
    # of each NIC one note may be left, that its last port was deleted
    notes = [path.name for path in lab.path(f"{NOTES}/net1").iterdir()]
    assert sorted(name.partition("@")[0] for name in notes) == [ports.mac, neighbour.mac]


def test_a_tap_that_another_follows(lab: Lab, network: LabNetwork) -> None:
    """Plugged in again before libvirt tells that it was plugged out: the old tap's name is nobody's any more."""
    guest = lab.guest(network)
    old = Ports(lab, network, guest.mac, guest.name)
    again = Ports(lab, network, guest.mac, guest.name)
    again.create("B")
    lab.host.sh(f"ip link set {guest.tap} down; ip link set {guest.tap} name vnet77; ip link set vnet77 up")
    lab.network_hook(network, "port-deleted", port=guest.port_xml)
    lab.path(f"{RUN}/net1/ports").joinpath(f"{port_uuid(guest)}.xml").unlink()
    assert f'"{guest.tap}"' not in lab.rules()
    lab.hook("qemu", guest.name, "reconnect", guest._replace(tap="vnet77").domain_xml)
    assert '"vnet77"' in lab.rules()
    assert no_drift(lab)
    lab.host.run(["ping", "-q", "-c", "1", guest.loop])
    lab.host.sh("ip link delete vnet77")
    again.delete("B")
    # What is dropped at it meanwhile, as nobody's, is remembered for a while.
    assert "vnet" not in re.sub(r"set seen-strangers \{.*?\n\t\}", "", lab.rules(), flags=re.DOTALL)
    assert old.live == set()


def test_a_hot_plugged_nic_leaves_nothing(lab: Lab, network: LabNetwork) -> None:
    """No event tells its tap, but whoever binds it notes it."""
    guest = lab.guest(network, bind=False)
    lab.host.run(["loopnet", "sync"])
    assert f'"{guest.tap}"' in lab.rules()
    lab.destroy(guest)
    assert f'"{guest.tap}"' not in lab.rules()
    assert no_drift(lab)


def test_notes_of_an_older_release(lab: Lab, network: LabNetwork) -> None:
    """It called them by MAC address alone; after an upgrade a NIC is there until its last port goes."""
    guest = lab.guest(network)
    notes = lab.path(f"{NOTES}/net1")
    (note,) = [path for path in notes.iterdir() if "@" in path.name]
    older = notes / guest.mac
    stamp = note.read_bytes().partition(b"\n")[0]
    # virsh domif-setlink: it forgot that a port was left
    for text in (stamp + b"\ndeleted", b"1.000\ndeleted", note.read_bytes()):
        note.unlink(missing_ok=True)
        older.write_bytes(text)
        lab.host.run(["loopnet", "sync"])
        assert is_admitted(lab, guest.mac)
        ports = Ports(lab, network, guest.mac, guest.name)
        ports.create("B")
        ports.delete("B")
        assert is_admitted(lab, guest.mac)
        assert no_drift(lab)
        lab.host.run(["ping", "-q", "-c", "1", guest.loop])
        refused = Ports(lab, network, guest.mac, "copy")
        result = lab.network_hook(network, "port-created", port=refused.xml("C"), check=False)
        assert result.returncode == 1
        assert f"so has guest '{guest.name}'" in result.stderr
    lab.destroy(guest)
    assert not is_admitted(lab, guest.mac)
    assert no_drift(lab)


def test_two_guests_had_one_mac_address_before(lab: Lab, network: LabNetwork) -> None:
    """An older release let both in: a restarted daemon's events refuse neither, and one may go."""
    guest = lab.guest(network)
    twin = Ports(lab, network, guest.mac, "twin")
    path = lab.path(f"{RUN}/net1/ports/{twin.uuid_of('T')}.xml")
    path.write_text(twin.xml("T"))
    for port in (guest.port_xml, twin.xml("T"), guest.port_xml):
        lab.network_hook(network, "port-created", port=port)
    eventually(lambda: no_drift(lab))
    twin.delete("T")
    assert is_admitted(lab, guest.mac)
    lab.host.run(["ping", "-q", "-c", "1", guest.loop])
    lab.destroy(guest)
    assert not is_admitted(lab, guest.mac)


def test_events_of_one_nic_do_not_read_all_others(lab: Lab, network: LabNetwork) -> None:
    """The thousandth guest starts as fast as the first."""
    for number in range(40):
        Ports(lab, network, f"52:54:00:aa:03:{number:02x}", f"many{number}").create("A")
    ports = Ports(lab, network, "52:54:00:aa:02:9a", "vm")
    opened = lab.host.run(
        ["strace", "-f", "-e", "trace=openat", "/etc/libvirt/hooks/network.d/50-loopnet", "net1", "port-created",
         "begin", "-"],
        input=network.hook_data(ports.xml("A")), check=False,
    ).stderr  # fmt: skip
    assert "/etc/hosts" in opened
    assert opened.count(f"{RUN}/net1/ports/") <= 2


def port_uuid(guest: LabGuest) -> str:
    return guest.port_xml.partition("<uuid>")[2].partition("<")[0]
