"""Which NICs are on a network, what addresses they use, and how they are plugged in again."""

from __future__ import annotations

from ipaddress import IPv4Address

from libvirt_loopnet.daemon.connection import DomainInfo
from libvirt_loopnet.guests.interfaces import (
    Interface,
    interfaces,
    is_spare,
    on_bridge,
    on_network,
    spare_name,
)
from libvirt_loopnet.host.kernel.neighbours import neighbours, neighbours6
from libvirt_loopnet.model import Reservation
from libvirt_loopnet.networks.conversion.claims import Nic, claims, nics_on, used_addresses

SPARE = spare_name("12345678-5a5c-4d7a-9a53-3f5f6f1f5c11")
LIVE = b"""<domain type='kvm' id='1'>
  <name>vm</name>
  <devices>
    <interface type='network'>
      <mac address='52:54:00:00:00:0A'/>
      <source network='default' portgroup="p" portid='77' bridge='virbr0'/>
      <target dev='vnet0'/>
      <!-- kept -->
      <filterref filter='clean'/>
    </interface>
    <interface type='bridge'><mac address='52:54:00:00:00:0b'/><source bridge='virbr0'/></interface>
    <interface type='user'><mac address='52:54:00:00:00:0c'/></interface>
  </devices>
</domain>
"""


def test_interfaces() -> None:
    found = interfaces(LIVE)
    assert [(i.mac[-2:], i.kind, i.network, i.bridge, i.tap) for i in found] == [
        ("0a", "network", "default", "virbr0", "vnet0"),
        ("0b", "bridge", "", "virbr0", ""),
        ("0c", "user", "", "", ""),
    ]
    assert found[0].xml.startswith(b'<interface type="network">')
    assert interfaces(b"<domain/>") == []


def test_to_the_bridge_and_back() -> None:
    interface = interfaces(LIVE)[0]
    there = on_bridge(interface, SPARE)
    assert there == interface.xml.replace(b'type="network"', b'type="bridge"').replace(
        b'<source network="default" portgroup="p" portid="77" bridge="virbr0"/>',
        b'<source bridge="loopnet-1234567"/>',
    )
    back = on_network(interface, "default")
    assert back == interface.xml.replace(b' portid="77" bridge="virbr0"', b"")
    from_bridge = on_network(interfaces(LIVE)[1], "a'b")
    assert b'<interface type="network">' in from_bridge
    assert b'<source network="a\'b"/>' in from_bridge


def test_names_of_spare_bridges() -> None:
    assert len(SPARE) == 15  # IFNAMSIZ - 1
    assert is_spare(SPARE)
    for other in (
        "loopnet",
        "loopnet-",
        "loopnet-123456",
        "loopnet-12345678",
        "loopnet-abcdefg",
        "virbr-1234567",
    ):
        assert not is_spare(other)


def test_plugs_of_running_and_other_guests() -> None:
    defined = LIVE.replace(b" portid='77' bridge='virbr0'", b"")
    left = LIVE.replace(b"<source bridge='virbr0'/>", b"<source bridge='loopnet-1234567'/>")
    running = DomainInfo("vm", "u", defined, left)
    asleep = DomainInfo("other", "v", defined, b"")
    assert [(p.guest, p.live, p.interface.mac[-2:]) for p in nics_on([running], "default", SPARE)] == [
        ("vm", True, "0a"),
        ("vm", True, "0b"),  # on the spare bridge
    ]
    assert len(nics_on([asleep], "default", SPARE)) == 1
    assert nics_on([DomainInfo("vm", "u", LIVE, LIVE)], "absent", SPARE) == []


A, B, C = (IPv4Address(f"10.0.0.{n}") for n in (1, 2, 3))


def test_addresses() -> None:
    assert used_addresses([("x", A)], []) == {"x": A}
    assert used_addresses([], [("x", B)]) == {"x": B}
    assert used_addresses([("x", A)], [("x", B), ("x", A)]) == {"x": A}
    assert used_addresses([("x", A)], [("x", B)]) == {"x": B}  # an old lease
    assert used_addresses([("x", A), ("x", B)], [("x", B), ("y", C)]) == {"x": B, "y": C}


def plug(name: str, mac: str) -> Nic:
    return Nic(name, f"uuid-{name}", True, Interface(mac, "network", "default", "virbr0", b""))


def test_claims() -> None:
    known = [plug("one", "m1"), plug("two", "m2"), plug("pair", "m3"), plug("pair", "m4")]
    declared = [
        Reservation(10, "m1", "", "web"),
        Reservation(11, "m9", "", "gone"),
        Reservation(12, "", "", "two"),
        Reservation(13, "", "", "pair"),  # which of its NICs?
        Reservation(14, "", "", "nobody"),
    ]
    found = claims(declared, {"m1": 10, "m2": 50, "m4": 51, "m8": 52}, known)
    assert [(c.mac, c.guest, c.number, c.in_use) for c in found] == [
        ("m1", "one", 10, True),
        ("m9", "gone", 11, False),
        ("m2", "two", 12, False),
        ("m4", "pair", 51, True),
    ]
    assert found[0].uuid == "uuid-one"
    assert found[1].uuid == ""


def test_neighbours_may_be_asked_by_anybody() -> None:
    """tests/netns/test_neighbours.py has some."""
    for family in (neighbours, neighbours6):
        assert family("lo") == family("absent") == []
