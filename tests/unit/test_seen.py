"""What is said of addresses that guests were seen to use; packets are in tests/netns/test_further.py."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from libvirt_loopnet.addresses.seen import Seen, judge
from libvirt_loopnet.host.listing import without_seen
from libvirt_loopnet.model import Network, Reservation
from libvirt_loopnet.reports.dropped import explain

DOMAIN = "11111111-1111-1111-1111-111111111111"


def mac(number: int) -> str:
    return f"52:54:00:00:00:{number:02x}"


def network(addresses: str) -> Network:
    loop, guests = IPv4Network("127.1.0.0/24"), IPv4Network("10.127.1.0/24")
    return Network("net1", "", "virbr1", "", "mapped", loop, guests, 1, 254, "net1", addresses=addresses)


KEPT = [
    Reservation(2, mac(2), DOMAIN, "vm2", (), (20,), (30,)),
    Reservation(3, mac(3), DOMAIN, "vm2-3"),
    Reservation(4, mac(4), "", "vm4", (), (), (30,)),
    Reservation(5, mac(5), "", ""),
]


def heard(*pairs: tuple[int, str]) -> list[tuple[str, IPv4Address]]:
    return [(mac(number), IPv4Address(address)) for number, address in pairs]


def test_what_is_ones_own_is_not_told() -> None:
    own = ["10.127.1.2", "10.127.1.3", "10.127.1.20", "10.127.1.30", "0.0.0.0"]
    for addresses in ("free", "own"):
        found = judge(network(addresses), KEPT, (), heard(*((n, a) for n in (2, 3) for a in own)))
        assert found == {}
        assert judge(network(addresses), KEPT, (), heard((9, "10.127.1.9"))) == {}, "nobody's"


def test_what_nobody_has_reserved_works_or_is_dropped() -> None:
    seen = heard((4, "10.127.1.77"), (4, "10.127.1.76"))
    free = (IPv4Address("127.1.0.76"), IPv4Address("127.1.0.77"))
    assert judge(network("free"), KEPT, (), seen) == {mac(4): Seen(free, ())}
    assert judge(network("own"), KEPT, (), seen) == {
        mac(4): Seen((), (IPv4Address("10.127.1.76"), IPv4Address("10.127.1.77")))
    }
    by_host = heard(
        (4, "127.1.0.77"), (4, "127.1.0.4"), (4, "127.1.0.20"), (4, "247.1.0.9"), (4, "127.1.0.1")
    )
    assert judge(network("free"), KEPT, by_host, ()) == {mac(4): Seen((free[1],), ())}


@pytest.mark.parametrize(
    ("sender", "address", "what", "command", "inside"),
    [
        (4, "10.127.1.77", "which is not reserved for it, and network net1 has addresses='own'",
         "loopnet reserve vm4 --also 127.1.0.77", True),
        (5, "10.127.1.77", "guest 52:54:00:00:00:05 sends from", "loopnet reserve 52:54:00:00:00:05 --also", True),
        (3, "10.127.1.77", "which", "loopnet reserve 52:54:00:00:00:03 --also 127.1.0.77", True),
        (4, "10.127.1.2", "which is reserved for vm2 in network net1", "give it another address", True),
        (4, "10.127.1.20", "which is reserved for vm2 in network net1", "give it another address", True),
        (5, "10.127.1.30", "which is shared by vm2, vm4",
         "loopnet reserve --shared 127.1.0.30 52:54:00:00:00:05", True),
        (4, "10.127.1.1", "which is the host's", "give it another address", True),
        (4, "10.127.1.254", "which is the host's", "give it another address", True),
        (4, "10.127.1.0", "which is the host's", "give it another address", True),
        (4, "172.17.0.2", "which is not in 10.127.1.0/24 of network net1", "NAT", False),
    ],
)  # fmt: skip
def test_why(sender: int, address: str, what: str, command: str, inside: bool) -> None:
    found = explain(network("own"), KEPT, mac(sender), IPv4Address(address))
    assert f"sends from {address}, " in found.what
    assert what in found.what
    assert command in found.command
    assert found.inside == inside


def test_what_packets_put_into_a_set_is_no_rule() -> None:
    head = "table bridge loopnet {\n\tset macs {\n\t\ttype ether_addr\n\t\telements = { 52:54,\n\t\t\t     a }\n\t}\n"
    empty = "\tset seen-127.1.0.0 {\n\t\ttype ether_addr . ipv4_addr\n\t\tsize 1024\n"
    one = "\t\telements = { 52:54 . 10.127.1.7 expires 29m }\n"
    two = "\t\telements = { 52:54 . 10.127.1.7 expires 29m,\n\t\t\t     52:55 . 10.127.1.8 expires 29m }\n"
    tail = "\t}\n\tset taps {\n\t\telements = { a }\n\t}\n}\n"
    for elements in ("", one, two):
        assert without_seen(head + empty + elements + tail) == head + empty + tail
        counted = empty.replace("size 1024", "size 1024\t# count 2")  # as nft 1.1.7 does
        assert without_seen(head + counted + elements + tail) == head + empty + tail
