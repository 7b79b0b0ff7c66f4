"""IPv6 of networks: prefixes, definitions, what the host needs; without packets."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path

import pytest

from libvirt_loopnet.addresses.labels import host_names6
from libvirt_loopnet.addresses.ula import global_id
from libvirt_loopnet.errors import ConflictError, InputError, StateError
from libvirt_loopnet.ipv6 import (
    Choice,
    check_ipv6_overlap,
    is_routed,
    link_local,
    parse_ipv6_prefix,
    ula_prefix,
)
from libvirt_loopnet.model import Guest, Network
from libvirt_loopnet.networks.dnsmasq_options import ipv6_options, lease_option
from libvirt_loopnet.networks.new import new_network
from libvirt_loopnet.networks.parsing import definition_of, missing_options, parse_network
from libvirt_loopnet.networks.rewrite import rewrite_network
from libvirt_loopnet.planning import ipv6
from libvirt_loopnet.planning.ipv6 import FORWARDING, MARK, METRIC, Observed6, Route6
from libvirt_loopnet.ruleset.ipv6_bridge import claims, router
from libvirt_loopnet.ruleset.moves import parse
from libvirt_loopnet.ruleset.tables import make_tables

PREFIX = IPv6Network("fd12:3456:789a:100::/64")
DEFAULT = IPv6Network("::/0")


def loop(text: str) -> IPv4Network:
    return IPv4Network(text)


def defined(prefix: IPv6Network | None = PREFIX, addresses: str = "free") -> bytes:
    return new_network("n", loop("127.1.0.0/24"), loop("10.127.1.0/24"), "mapped", addresses, ipv6=prefix)


def network(prefix: IPv6Network | None = PREFIX) -> Network:
    made = parse_network(defined(prefix))
    assert made
    return made._replace(bridge="virbr1", bridge_mac="52:54:00:00:00:01")


# --- prefixes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fd00::", "is not an IPv6 prefix"),
        ("10.0.0.0/24", "is not an IPv6 prefix"),
        ("fd00::/x", "is not an IPv6 prefix"),
        ("fd00::/ 64", "is not an IPv6 prefix"),
        ("fd00::/65", "must be a /64"),
        ("fd00::/48", "must be a /64"),
        ("fd00::1/64", "did you mean fd00::/64?"),
        ("fe80::/64", "is neither in fc00::/7"),
        ("ff02::/64", "is neither in fc00::/7"),
        ("::/64", "is neither in fc00::/7"),
        ("auto", "or use ula"),
    ],
)
def test_what_is_no_prefix_for_a_network(text: str, says: str) -> None:
    with pytest.raises(InputError) as error:
        parse_ipv6_prefix(text, "--ipv6")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_prefixes_that_may_be() -> None:
    for text in ("fd00:1:2:3::/64", "fc00::/64", "2001:db8:1:2::/64"):
        assert str(parse_ipv6_prefix(text, "x")) == text


def test_routed_is_what_a_route_leads_to_other_than_the_default() -> None:
    prefix = IPv6Network("2001:db8:1:2::/64")
    assert is_routed(prefix, [DEFAULT, IPv6Network("2001:db8:1::/48")])
    assert is_routed(prefix, [prefix])
    assert not is_routed(
        prefix, [DEFAULT, IPv6Network("2001:db8:2::/48"), IPv6Network("2001:db8:1:2::1/128")]
    )


def test_ula_prefixes_are_stable_and_apart() -> None:
    made = {
        text: ula_prefix(b"\x12\x34\x56\x78\x9a", loop(text))
        for text in (
            "127.1.0.0/24", "127.1.1.0/24", "127.2.0.0/16", "127.1.0.0/25", "127.1.0.128/25", "127.1.0.8/29",
        )
    }  # fmt: skip
    assert str(made["127.1.0.0/24"]) == "fd12:3456:789a:100::/64"
    assert str(made["127.2.0.0/16"]) == "fd12:3456:789a:200::/64"
    assert len(set(made.values())) == len(made) - 1  # that with the same first address can't be beside it


def test_a_link_local_address_is_made_of_a_mac_address() -> None:
    """RFC 4291, appendix A, has the example 34-56-78-9A-BC-DE."""
    assert link_local("34:56:78:9a:bc:de") == IPv6Address("fe80::3656:78ff:fe9a:bcde")


def test_overlap() -> None:
    check_ipv6_overlap("a", PREFIX, [("a", PREFIX), ("b", IPv6Network("fd00::/64"))])
    with pytest.raises(ConflictError, match="of network b"):
        check_ipv6_overlap("a", PREFIX, [("b", PREFIX)])


def test_the_global_id_is_made_once(tmp_path: Path) -> None:
    made = global_id(str(tmp_path))
    assert len(made) == 5
    assert global_id(str(tmp_path)) == made
    assert global_id(str(tmp_path / "other")) != made
    file = tmp_path / "ipv6-global-id"
    assert file.read_text() == made.hex() + "\n"
    for damaged in ("", "12", "xyz", "00112233445566"):
        file.write_text(damaged)
        with pytest.raises(StateError, match="is damaged; put ten hexadecimal digits there"):
            global_id(str(tmp_path))


# --- definitions ---------------------------------------------------------------------------------


def test_a_definition_has_its_prefix() -> None:
    found = network()
    assert (found.ipv6, found.ipv6_forward, found.ipv6_prefixes) == (PREFIX, "nat", (PREFIX,))
    assert str(found.ipv6_address(2)) == "fd12:3456:789a:100::2"
    assert [str(each) for each in found.ipv6_own] == ["fd12:3456:789a:100::1"]
    assert b"ipv6" not in defined(None)
    without = network(None)
    assert (without.ipv6_address(2), without.ipv6_prefixes, without.ipv6_own) == (None, (), ())
    assert rewrite_network(defined()).xml == defined()


def test_rewrite_gives_and_takes() -> None:
    plain = defined(None)
    given = rewrite_network(plain, ipv6=Choice(global_id=lambda: b"\x12\x34\x56\x78\x9a"))
    assert given.network.ipv6 == PREFIX
    assert given.xml == defined()
    assert rewrite_network(given.xml).network.ipv6 == PREFIX  # not asked for it stays
    assert rewrite_network(given.xml, ipv6=Choice()).xml == plain
    other = IPv6Network("fd00::/64")
    assert rewrite_network(given.xml, ipv6=Choice(other)).network.ipv6 == other


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ((str(PREFIX), "fd00::/80"), "must be a /64"),
        ((str(PREFIX), "ula"), "is not an IPv6 prefix"),
        (('ipv6="', 'ipv6-forward="open" ipv6="'), "ipv6-forward 'open' is unknown; use nat or route"),
        (
            ("<forward", "<ip family='ipv6' address='fd00::1' prefix='64'/><forward"),
            "has an IPv6 <ip> of its own",
        ),
    ],
)
def test_a_damaged_definition_is_one_line(change: tuple[str, str], says: str) -> None:
    with pytest.raises(InputError) as error:
        parse_network(defined().decode().replace(*change).encode())
    assert says in str(error.value)
    assert str(error.value).startswith("network n")


def test_native_networks_have_the_file_for_dnsmasq_too() -> None:
    xml = new_network("n", loop("127.1.0.0/24"), loop("127.1.0.0/24"), "native", ipv6=PREFIX)
    made = parse_network(xml)
    assert made
    assert missing_options(definition_of(xml), made) == ()
    assert lease_option("n").encode() in xml
    without = new_network("n", loop("127.1.0.0/24"), loop("127.1.0.0/24"), "native")
    assert missing_options(definition_of(without), made) == ()


def test_what_dnsmasq_is_told() -> None:
    assert ipv6_options(network()) == (
        "enable-ra", "dhcp-range=fd12:3456:789a:100::,static,slaac,64", "ra-param=virbr1,60,0",
    )  # fmt: skip
    assert "slaac" not in ipv6_options(network()._replace(addresses="own"))[1]
    assert ipv6_options(network(None)) == ()


LIBVIRTS = (
    "<network><name>n</name>{forward}<bridge name='virbr1'/><ip address='192.168.122.1' prefix='24'/>"
    "<ip family='ipv6' address='2001:db8:1::1' prefix='64'/></network>"
)


@pytest.mark.parametrize(
    ("forward", "becomes", "internet"),
    [
        ("<forward mode='nat'><nat ipv6='yes'/></forward>", "nat", "all"),
        ("<forward mode='nat'/>", "route", "all"),
        ("<forward mode='route'/>", "route", "all"),
        ("", "nat", "none"),
        ("<forward mode='open'/>", "", "all"),
    ],
)
def test_what_libvirt_gives_a_network_keeps_its_rules(forward: str, becomes: str, internet: str) -> None:
    made = rewrite_network(LIBVIRTS.format(forward=forward).encode())
    found = made.network
    assert (found.ipv6, found.ipv6_forward, found.internet) == (None, becomes, internet)
    assert found.ipv6_given == ((IPv6Interface("2001:db8:1::1/64"),) if becomes else ())
    assert b'<ip family="ipv6" address="2001:db8:1::1" prefix="64"/>' in made.xml
    assert rewrite_network(made.xml).xml == made.xml
    assert any("no firewall rules" in warning for warning in made.warnings) is not bool(becomes)
    for xml in (made.xml, LIBVIRTS.format(forward=forward).encode()):
        with pytest.raises(InputError, match="has an IPv6 <ip> of its own"):
            rewrite_network(xml, ipv6=Choice(PREFIX))


# --- the host ------------------------------------------------------------------------------------

ROUTER = Route6(DEFAULT, "eth0", 1024)
LEARNED = ROUTER._replace(learned=True)


def test_router_is_who_has_a_way_out() -> None:
    seen = Observed6(enabled=True)
    networks = [network()]
    assert not ipv6.is_router(seen, networks)
    assert ipv6.is_router(seen._replace(routes=(ROUTER,)), networks)
    assert not ipv6.is_router(seen._replace(routes=(ROUTER,), enabled=False), networks)
    for dev in ("lo", "virbr1"):
        assert not ipv6.is_router(seen._replace(routes=(ROUTER._replace(dev=dev),)), networks)


def test_a_host_is_no_router_at_the_cost_of_its_own() -> None:
    seen = Observed6(enabled=True, routes=(LEARNED,), accept_ra=frozenset({"eth0"}))
    assert ipv6.is_endangered(seen)
    assert not ipv6.is_router(seen, [network()])
    assert FORWARDING not in ipv6.add(seen, [network()])[0]
    for fine in (seen._replace(accept_ra=frozenset()), seen._replace(settings=frozenset({FORWARDING}))):
        assert ipv6.is_router(fine, [network()])


def test_steps_end() -> None:
    """What add() asks for, once it is there, is asked for no more; and it is what remove() finds."""
    networks = [network()]
    seen = Observed6(enabled=True, routes=(ROUTER,))
    sysctls, lines = ipv6.add(seen, networks)
    assert sysctls[-3:] == ["net/ipv6/conf/virbr1/disable_ipv6=0", FORWARDING, MARK]
    assert lines == [
        "address add fd12:3456:789a:100::1/64 dev virbr1 nodad",
        "route add unicast fd12:3456:789a:100::/64 dev virbr1 table local metric 127",
    ]
    after = seen._replace(
        settings=frozenset(sysctls),
        addresses=frozenset({("virbr1", IPv6Address("fd12:3456:789a:100::1"))}),
        routes=(ROUTER, Route6(PREFIX, "virbr1", 256), Route6(PREFIX, "virbr1", METRIC)),
    )
    assert ipv6.add(after, networks) == ([], [])
    assert ipv6.add(seen._replace(enabled=False), networks) == ([], [])
    assert ipv6.remove(after, networks, {"virbr1"}) == []
    gone = ["net/ipv6/conf/virbr1/disable_ipv6=1", "net/ipv6/conf/all/forwarding=0"]
    assert ipv6.remove(after, [], {"virbr1"}) == gone
    foreign = after._replace(routes=(Route6(PREFIX, "wlan0", METRIC),), settings=frozenset())
    assert ipv6.remove(foreign, [], {"virbr1"}) == []  # somebody else's metric


def test_an_isolated_network_is_no_reason_to_forward() -> None:
    seen = Observed6(enabled=True, routes=(ROUTER,))
    assert FORWARDING not in ipv6.add(seen, [network()._replace(internet="none")])[0]


def test_forwarding_goes_where_it_came_from() -> None:
    """Switched on by us, it goes with the last network that needs it, unless others may need it by then."""
    lan, docker = ("eth0", IPv6Address("2001:db8::5")), ("docker0", IPv6Address("fd00::1"))
    bridge = ("virbr1", IPv6Address("fd12:3456:789a:100::1"))
    link = ("docker0", IPv6Address("fe80::1"))
    on = Observed6(
        enabled=True,
        settings=frozenset({FORWARDING, MARK}),
        routes=(ROUTER,),
        addresses=frozenset({("lo", IPv6Address("::1")), lan, bridge, link}),
    )
    off = "net/ipv6/conf/all/forwarding=0"
    assert ipv6.remove(on, [], {"virbr1"}) == [off]
    assert ipv6.remove(on, [network(None), network()._replace(internet="none")], {"virbr1"}) == [off]
    assert off not in ipv6.remove(on, [network()], {"virbr1"})
    assert ipv6.remove(on._replace(settings=frozenset({FORWARDING})), [], {"virbr1"}) == []
    assert ipv6.remove(on._replace(addresses=on.addresses | {docker}), [], {"virbr1"}) == []
    tunnel = Route6(IPv6Network("2001:db8:66::/48"), "wg0", 1024)
    links = [Route6(IPv6Network(each), "wg0", 256) for each in ("fe80::/64", "ff00::/8", "fe80::1/128")]
    assert ipv6.remove(on._replace(routes=(ROUTER, tunnel)), [], {"virbr1"}) == []
    assert ipv6.remove(on._replace(routes=(ROUTER, *links)), [], {"virbr1"}) == [off]
    # What single devices had would go as well: it is not marked as ours.
    sysctls, _ = ipv6.add(on._replace(settings=frozenset(), forwarding=frozenset({"eth0"})), [network()])
    assert FORWARDING in sysctls
    assert MARK not in sysctls


def test_networks_without_ipv6_need_nothing() -> None:
    seen = Observed6(enabled=True, routes=(ROUTER,))
    given = network(None)._replace(ipv6_forward="route", ipv6_given=(IPv6Interface("2001:db8:1::1/64"),))
    assert ipv6.add(seen, [network(None), given]) == ([], [])
    assert "ip6 loopnet" not in make_tables([network(None)], [], [])
    assert "table ip6 loopnet" in make_tables([given], [], [])


def test_rules_of_netlink_are_read_back() -> None:
    for rule in (*claims(network()), *router(network())):
        assert parse(str(rule)) == rule
    assert claims(network(None)) == []
    assert router(network(None)) == []


def test_only_leased_addresses_have_names() -> None:
    guests = [Guest("n", "52:54:00:00:00:02", 2, "vm2"), Guest("n", "52:54:00:00:00:03", 3, "vm3")]
    leased = {PREFIX[2], PREFIX[9]}
    assert host_names6([network()], guests, leased) == ((PREFIX[2], ("vm2.n",)),)
    assert host_names6([network(None)], guests, leased) == ()
