"""What a NIC may send as, in the elements of the rules."""

from __future__ import annotations

import re
from ipaddress import IPv4Network

import pytest

from libvirt_loopnet.addresses.senders import binding, guest, siblings
from libvirt_loopnet.errors import InputError
from libvirt_loopnet.model import FREE, OWN, Network, Options, Port, Reservation
from libvirt_loopnet.networks.new import new_network
from libvirt_loopnet.networks.parsing import parse_network
from libvirt_loopnet.networks.rewrite import rewrite_network
from libvirt_loopnet.planning.state import Tap, desire
from libvirt_loopnet.ruleset.elements import add_elements, delete_elements
from libvirt_loopnet.ruleset.tables import make_tables

ONE, TWO = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"
LOOP, GUESTS = IPv4Network("127.1.0.0/24"), IPv4Network("10.127.1.0/24")


def mac(number: int) -> str:
    return f"52:54:00:00:00:{number:02x}"


KEPT = [
    Reservation(2, mac(2), ONE, "vm1"),
    Reservation(3, mac(3), ONE, "vm1-3"),
    Reservation(4, mac(4), TWO, "vm2"),
    Reservation(5, mac(5), "", ""),
    Reservation(6, mac(6), "", ""),
]


def network(addresses: str) -> Network:
    xml = new_network("loopnet", LOOP, GUESTS, "mapped", addresses)
    found = parse_network(xml.replace(b"<bridge ", b"<bridge name='virbr1' "))
    assert found is not None
    return found._replace(bridge_mac=mac(255))


def test_the_nics_of_a_domain_are_siblings_and_no_others() -> None:
    others = siblings(KEPT)
    assert {key: [each.number for each in value] for key, value in others.items()} == {
        mac(2): [3],
        mac(3): [2],
    }
    assert guest("loopnet", KEPT[0], others).also == (3,)
    assert guest("loopnet", KEPT[3], others).also == ()
    assert binding("loopnet", "vnet1", mac(3), 3, others).also == (mac(2),)


@pytest.mark.parametrize("addresses", [FREE, OWN])
def test_elements_step_by_step_are_those_made_at_once(addresses: str) -> None:
    """Whichever NIC comes first; and what one takes along is what came with it."""
    net = network(addresses)
    ports = [Port("loopnet", each.mac, "vm", each.uuid) for each in KEPT[:3]]
    taps = [Tap(f"vnet{n}", "virbr1", f"vm 127.1.0.{n}", "fe" + mac(n)[2:]) for n in (2, 3, 4)]
    state = desire([net], {"loopnet": KEPT}, ports, taps, Options())
    whole = elements(add_elements([net], state.guests, state.bindings, state.reserved))
    parts = set()
    for one, bound in zip(state.guests, state.bindings):
        parts |= elements(add_elements([net], [one], [bound], [("loopnet", one.number)]))
    idle = elements(add_elements([net], [], [], [("loopnet", 5), ("loopnet", 6)]))
    assert parts | idle == whole
    assert bool(idle) == (addresses == FREE)
    assert ("bridge loopnet senders-127.1.0.0", f"{mac(2)} . 10.127.1.3") in whole
    assert ("bridge loopnet senders-127.1.0.0", f"{mac(4)} . 10.127.1.3") not in whole
    assert ("bridge loopnet bound", f'"vnet3" . {mac(2)} : goto from-127.1.0.0') in whole
    gone = elements(delete_elements([net], state.guests[:1], state.bindings[:1]), "delete")
    assert not any("reserved" in where for where, _ in gone)
    assert gone < whole


def elements(script: str, verb: str = "add") -> set[tuple[str, str]]:
    lines = re.findall(rf"^{verb} element (.*?) \{{ (.*) \}}$", script, re.MULTILINE)
    return {(where, each) for where, listed in lines for each in listed.split(", ")}


def test_nobody_takes_what_is_the_hosts() -> None:
    """Also when a reservation for it stands in a file of long ago."""
    net = network(FREE)
    state = desire(
        [net],
        {"loopnet": [Reservation(1, mac(1), "", ""), Reservation(999, mac(9), "", "")]},
        [],
        [],
        Options(),
    )
    text = make_tables([net], state.guests, state.bindings, (), state.reserved)
    assert "{ 10.127.1.0, 10.127.1.1, 10.127.1.254, 10.127.1.255 }" in text
    assert "{ 127.1.0.0, 127.1.0.1, 127.1.0.254, 127.1.0.255 }" in text
    assert "add element" not in text
    own = make_tables([network(OWN)], (), (), (), state.reserved)
    assert "@reserved" not in own
    assert "reserved-127" not in own


def test_the_attribute() -> None:
    xml = new_network("loopnet", LOOP, GUESTS, "mapped", OWN)
    assert network(OWN).addresses == OWN
    assert rewrite_network(xml).xml is xml
    assert rewrite_network(xml, addresses=FREE).network.addresses == FREE
    assert b"addresses" not in rewrite_network(xml, addresses=FREE).xml
    assert rewrite_network(xml, mode="native").network.addresses == OWN
    with pytest.raises(InputError, match=r"addresses 'all' is unknown; use free or own"):
        parse_network(xml.replace(b'addresses="own"', b'addresses="all"'))
