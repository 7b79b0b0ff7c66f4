"""How publications are written, which exclude each other, and what rules they make."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libvirt_loopnet.addresses import pool
from libvirt_loopnet.addresses.publications import check_free, clash, overlap, parse_publication, published
from libvirt_loopnet.addresses.reservations import parse, render
from libvirt_loopnet.errors import ConflictError, InputError
from libvirt_loopnet.firewalls.openings import Firewalls, orders
from libvirt_loopnet.model import ANY_ADDRESS, NATIVE, Options, Publication, Published, Reservation
from libvirt_loopnet.planning.state import desire
from libvirt_loopnet.ruleset.tables import make_tables
from tests.unit.test_plan import network

HERE = IPv4Address("192.0.2.7")
WEB = Publication("tcp", ANY_ADDRESS, 8080, 80)
SIX = WEB._replace(clients=IPv6Network("2001:db8::/32"))
DNS = Publication("udp", HERE, 53, 5353)
RANGE = Publication("tcp", ANY_ADDRESS, 8000, 9000, 3, IPv4Network("10.0.0.0/8"))
GUESTS = IPv4Network("127.2.0.0/24")
VM1 = Reservation(2, "52:54:00:00:00:02", "", "vm1", (WEB, DNS))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("8080:80", WEB), ("8080:80/tcp", WEB), ("0.0.0.0:8080:80", WEB), ("192.0.2.7:53:5353/udp", DNS),
        ("1:65535", Publication("tcp", ANY_ADDRESS, 1, 65535)), ("8000-8002:9000-9002@10.0.0.0/8", RANGE),
        ("1-65535:1-65535", Publication("tcp", ANY_ADDRESS, 1, 1, 65535)), ("8080:80@0.0.0.0/0", WEB),
        ("8080:80@2001:db8::/32", SIX), ("8080:80@::/0", SIX._replace(clients=IPv6Network("::/0"))),
    ],
)  # fmt: skip
def test_what_is_understood(text: str, meant: Publication) -> None:
    assert parse_publication(text) == meant
    assert parse_publication(str(meant)) == meant


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "does not name a port"), ("80", "does not name a port"), ("1:2:3:4", "does not name a port"),
        (":80", "'' is not a port"), ("80:", "'' is not a port"), ("0:80", "'0' is not a port"),
        ("65536:1", "'65536' is not a port"), ("1:65536", "'65536' is not a port"), ("080:80", "'080' is not a port"),
        ("-1:80", "'-1' is not a port"), ("+1:80", "not a port"), ("1 :80", "not a port"), ("٣:80", "not a port"),
        ("²:80", "is not a port"), ("http:80", "'http' is not a port"), ("80:80/", "protocol ''"),
        ("80:80/TCP", "'TCP' is neither tcp nor udp"), ("80:80/sctp", "neither"), ("80:80/udp/tcp", "neither"),
        ("x:80:80", "'x' is not an IPv4 address"), ("1.2.3:80:80", "not an IPv4 address"),
        ("[::1]:80:80", "does not name a port"),
        ("01.2.3.4:80:80", "not an IPv4 address"), (":80:80", "'' is not an IPv4 address"),
        ("127.0.0.1:80:80", "reaches the guest already"), ("247.1.0.1:80:80", "loopnet uses"),
        ("224.0.0.1:80:80", "multicast"), ("255.255.255.255:80:80", "broadcast"), ("0.0.0.1:80:80", "no host can"),
        ("1-3:1-2", "1-3 has 3, 1-2 has 2"), ("1-3:1", "1-3 has 3"), ("3-1:3-1", "not a range"), ("-3:1", "not a port"),
        ("1-1:1-1", "not a range"), ("1-:1-", "'' is not a port"), ("1-2-3:1-2-3", "'2-3' is not a port"),
        ("1:1@", "no length"), ("1:1@x/8", "not an IPv4 prefix"), ("1:1@fd00::/x", "not an IPv6 prefix"),
        ("1:1@fd00::1/64", "did you mean fd00::/64"), ("1:1@fd00::", "no length"), ("1:1@::/129", "not an IPv6 prefix"),
        ("1:1@fe80::/10", "nobody is forwarded"), ("1:1@ff02::/16", "nobody is forwarded"), ("1:1@:", "IPv6 prefix"),
        ("1:1@fe80::1%eth0/128", "not an IPv6 prefix"), ("192.0.2.7:1:1@fd00::/64", "of IPv4, fd00::/64 of IPv6"),
        ("1:1@10.0.0.1/8", "host bits"), ("1:1@247.1.0.0/24", "inside the host"), ("1:1@1.2.3.4", "no length"),
        ("8080:80\n", "is not a port"), ("x" * 9999, "does not name a port"), ("8080:80\x1b[1m", "is not a port"),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_publication(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 300


@given(st.text(max_size=30) | st.text("0123456789.:/tcpud-@", max_size=30))
def test_any_text_is_refused_or_comes_back(text: str) -> None:
    try:
        found = parse_publication(text)
    except InputError as error:
        lines = str(error).splitlines()
    else:
        lines = [str(found)]
        assert parse_publication(lines[0]) == found
        assert 0 < found.port < 65536 > found.guest_port > 0
        assert set(lines[0]) <= set("0123456789abcdef.:/tcpud-@")
    assert len(lines) == 1


def test_overlap() -> None:
    assert overlap(WEB, WEB._replace(guest_port=1))
    assert overlap(WEB, WEB._replace(address=HERE))
    assert overlap(WEB._replace(address=HERE), WEB)
    assert not overlap(WEB, WEB._replace(port=1))
    assert overlap(WEB, WEB._replace(port=8000, size=81))
    assert not overlap(WEB, WEB._replace(port=8000, size=80))
    assert overlap(WEB._replace(port=8079, size=3), WEB)
    assert not overlap(WEB, WEB._replace(protocol="udp"))
    assert not overlap(DNS, DNS._replace(address=HERE + 1))
    assert clash([WEB, DNS]) is None
    assert clash([DNS, WEB, WEB._replace(address=HERE)]) == WEB._replace(address=HERE)


def test_what_is_taken() -> None:
    kept = {"net1": (VM1,), "net2": ()}
    check_free(DNS._replace(address=HERE + 1), kept)
    with pytest.raises(ConflictError) as caught:
        check_free(WEB._replace(address=HERE, guest_port=1), kept)
    assert str(caught.value) == (
        "192.0.2.7:8080:1/tcp can't be published: 8080:80/tcp of vm1 in network net1 already is; "
        "first run: loopnet unpublish vm1 8080:80/tcp"
    )


def test_what_is_published() -> None:
    one, two = network(1), network(2)
    other = Reservation(3, "52:54:00:00:00:03", "", "vm2", (DNS, Publication("tcp", HERE, 8080, 1)))
    kept = {"net1": (VM1,), "net2": (other,), "gone": (other,)}
    assert published([two, one], kept) == (Published("net1", 2, WEB), Published("net1", 2, DNS))
    assert published([two], kept) == tuple(Published("net2", 3, each) for each in other.published)
    # numbers that a changed definition gave to others, or took away
    assert published([one._replace(gateway=2)], kept) == ()
    assert published([one._replace(host=2)], kept) == ()
    assert published([one], {"net1": (VM1._replace(number=255),)}) == ()


def test_a_reservation_keeps_them() -> None:
    after, kept = pool.reserve(network(1), [VM1], VM1.mac, "", "other")
    assert kept == VM1._replace(name="other")
    after, kept = pool.reserve(network(1), after, VM1.mac, "", "", 9)
    assert kept.published == VM1.published
    assert after == [kept]


def test_rules_are_few_and_only_where_wanted() -> None:
    networks = [network(1), network(2, NATIVE)]
    without = make_tables(networks, [], [])
    assert "dnat ip" not in without
    assert "hook prerouting priority -100" not in without
    one = make_tables(networks, [], [], [Published("net1", 2, WEB)])
    ports = [Published("net1", 2, Publication("tcp", ANY_ADDRESS, n, n)) for n in range(1, 500)]
    many = make_tables(networks, [], [], ports)
    assert len(many.splitlines()) == len(one.splitlines())
    assert "tcp . 8080 : 247.1.0.2 . 80" in one
    assert 'oifname "virbr1" ip saddr 10.127.1.0/24 ct status dnat snat to 247.1.0.1' in one
    assert one.count("10.127.2.0/24 ct status dnat") == 0  # native: no client has 127.x
    assert "127.0.0.1 . tcp . 8080 : 247.1.0.2 . 80" in one
    spared = make_tables(networks, [], [], [Published("net1", 2, WEB, (8080,))])
    assert "127.0.0.1 . tcp . 8080" not in spared
    few = make_tables(networks, [], [], [Published("net1", 2, RANGE)])
    assert "tcp . 8002 : 247.1.0.2 . 9002" in few
    assert "ip saddr 10.0.0.0/8 meta l4proto { tcp, udp } dnat" in few
    guests = make_tables(networks, [], [], [Published("net1", 2, RANGE._replace(clients=GUESTS))])
    assert "ip saddr 247.2.0.0/24 meta l4proto { tcp, udp } dnat" in guests


def test_it_is_part_of_what_should_be() -> None:
    state = desire([network(1)], {"net1": [VM1]}, [], [], Options())
    assert state.published == (Published("net1", 2, WEB), Published("net1", 2, DNS))


def test_iptables_lets_it_in_where_it_would_drop() -> None:
    dropping = Firewalls((("iptables-nft", "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n"),))
    (without,) = orders(dropping, [network(1), network(2)])
    assert "DNAT" not in without.text
    (order,) = orders(dropping, [network(1), network(2)], (), {"net1"})
    assert (
        "-A LOOPNET_FORWARD -d 247.1.0.0/24 -o virbr1 -m conntrack --ctstate DNAT -j ACCEPT\n" in order.text
    )
    assert order.text.count("DNAT") == 1
    assert order.text.index("DNAT") < order.text.index("RETURN")
    accepting = Firewalls((("iptables-nft", "*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n"),))
    assert orders(accepting, [network(1)], (), {"net1"}) == []


def test_a_range_pairs_each_port_of_the_host_with_the_guests() -> None:
    assert list(parse_publication("8000-8002:80-82").pairs) == [(8000, 80), (8001, 81), (8002, 82)]
    assert list(parse_publication("8080:80").pairs) == [(8080, 80)]


def test_clients_of_two_families_are_not_the_same() -> None:
    """The same port may be for some in IPv4 and for others in IPv6; everybody is both."""
    four = WEB._replace(clients=IPv4Network("10.0.0.0/8"))
    assert not overlap(four, SIX)
    assert overlap(SIX, WEB)
    assert overlap(SIX, SIX._replace(clients=IPv6Network("fd00::/8")))
    here = WEB._replace(address=HERE)
    assert not overlap(here, SIX)
    assert sorted([SIX, WEB, four]) == sorted([four, SIX, WEB])
    kept = VM1._replace(published=tuple(sorted([SIX, four])))
    assert parse(render([kept]), "x") == (kept,)
    one = network(1)._replace(ipv6=IPv6Network("fd00:0:0:1::/64"), ipv6_forward="nat")
    both = tuple(Published("net1", 2, each) for each in (four, SIX))
    rules = make_tables([one], [], [], both, is_ipv6_router=True, published6=both)
    ip, _, ip6 = rules.partition("table ip6 loopnet")
    assert "ip saddr 10.0.0.0/8 meta l4proto" in ip
    assert "2001:db8" not in ip
    assert "ip6 saddr 2001:db8::/32 meta l4proto { tcp, udp } dnat ip6 to" in ip6
    assert "10.0.0.0" not in ip6
