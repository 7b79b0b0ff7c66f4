"""Where the host's own IPv6 gets out by the rules of others, and what these are told for guests'."""

from __future__ import annotations

from ipaddress import IPv6Network
from typing import Any

import pytest

from libvirt_loopnet.firewalls import needs_ipv6, opened_tables
from libvirt_loopnet.firewalls.obstacles import Foreign, around, drops
from libvirt_loopnet.firewalls.opened_tables import Table
from libvirt_loopnet.firewalls.openings import Firewalls, orders
from libvirt_loopnet.firewalls.walk import Rules
from libvirt_loopnet.firewalls.ways import EVERYWHERE, Ways, of_iptables, ways
from libvirt_loopnet.model import NAT, NONE, ROUTE
from libvirt_loopnet.reports.doctor import findings
from libvirt_loopnet.reports.findings import Facts
from tests.unit.test_firewalls import ACCEPT, ALL_DROP, DROP, ONE, TWO, chain, field, match, meta, rule
from tests.unit.test_killswitches import after

SIX = ONE._replace(ipv6=IPv6Network("fd00:0:0:1::/64"), ipv6_forward=NAT)
OUT, WG0 = meta("oifname"), Ways(False, ("wg0",))
ICMP_TYPE = field("type", "icmpv6")


def prefix(text: str) -> Any:
    address, _, length = text.partition("/")
    return {"prefix": {"addr": address, "len": int(length)}}


@pytest.mark.parametrize(
    ("statements", "opened"),
    [
        ([match(OUT, "wg0"), ACCEPT], ("wg0",)),
        ([match(OUT, "wg0"), match(meta("nfproto"), "ipv6"), ACCEPT], ("wg0",)),
        ([match(OUT, "wg0"), match(meta("nfproto"), "ipv4"), ACCEPT], ()),
        ([match(OUT, "wg0"), match(field("daddr", "ip6"), prefix("::/0")), ACCEPT], ("wg0",)),
        ([match(OUT, "wg0"), match(field("daddr", "ip6"), prefix("2000::/3")), ACCEPT], ()),
        ([match(OUT, "wg0"), match(field("daddr", "ip6"), prefix("fc00::/7")), ACCEPT], ()),
        ([match(OUT, "wg0"), match(field("daddr", "ip6"), prefix("fc00::/7"), "!="), ACCEPT], ("wg0",)),
        ([match(OUT, "wg0"), match(field("daddr", "ip6"), "2001:db8::1"), ACCEPT], ()),
        (
            [match(OUT, "wg0"), match(field("daddr", "ip6"), {"range": ["2001::", "2fff::"]}, "!="), ACCEPT],
            (),
        ),
        ([match(OUT, "wg0"), match(field("daddr"), prefix("0.0.0.0/0")), ACCEPT], ()),
        ([match(OUT, "wg0"), match(field("daddr"), prefix("10.0.0.0/8"), "!="), ACCEPT], ()),
        ([match(OUT, "wg0"), match(meta("l4proto"), "ipv6-icmp"), ACCEPT], ()),
    ],
)
def test_what_a_rule_lets_out(statements: Any, opened: tuple[str, ...]) -> None:
    found = ways([Rules([chain("output", "output", "drop"), rule("output", 1, *statements)])], six=True)
    assert found._replace(by=()) == Ways(elsewhere=False, open=opened)


def test_families_are_apart() -> None:
    four, six, both = (Rules([chain("output", "output", "drop", family)]) for family in ("ip", "ip6", "inet"))
    assert ways([four], six=True) == EVERYWHERE
    assert ways([six]) == EVERYWHERE
    for rules in (six, both):
        assert not ways([rules], six=True).elsewhere
    ours = chain("output", "output", "drop", "ip6")
    ours["chain"]["table"] = "loopnet"
    assert ways([Rules([ours])], six=True) == EVERYWHERE


def test_ip6tables() -> None:
    saved = (
        "*filter\n:FORWARD ACCEPT [0:0]\n:OUTPUT DROP [0:0]\n-A OUTPUT -d fc00::/7 -j ACCEPT\n"
        "-A OUTPUT ! -d 2001:db8::1 -o wg0 -j ACCEPT\n-A OUTPUT -o eth0 -p ipv6-icmp -j ACCEPT\nCOMMIT\n"
    )
    rules = of_iptables(saved, six=True)
    assert ways([rules], six=True)._replace(by=()) == WG0
    assert ways([rules]) == EVERYWHERE
    assert around([rules], needs_ipv6.outs([SIX], "eth0"), "eth0", WG0) == "eth0"
    assert around([rules], needs_ipv6.outs([SIX], "wg0"), "wg0", WG0) == ""
    assert around([rules], needs_ipv6.outs([ONE], "eth0"), "eth0", WG0) == ""  # no IPv6 that leaves
    assert around([rules], needs_ipv6.outs([SIX._replace(internet=NONE)], "eth0"), "eth0", WG0) == ""
    shut = of_iptables(saved.replace("FORWARD ACCEPT", "FORWARD DROP"), six=True)
    assert around([shut], needs_ipv6.outs([SIX], "eth0"), "eth0", WG0) == ""


def told(ruleset: tuple[Any, ...], networks: Any, ways6: Ways = WG0, bridged: bool = False) -> str:
    seen = Firewalls(uplink6="eth0", bridged6=bridged)
    return opened_tables.script(
        Table("inet", "t", ruleset), opened_tables.needed(seen, networks, EVERYWHERE, ways6)
    )


TABLE = (
    chain("output", "output", "drop"),
    chain("input", "input", "drop"),
    rule("input", 11, match(ICMP_TYPE, {"set": ["nd-router-advert", "nd-redirect"]}), ACCEPT),
    chain("forward", "forward", "drop"),
    rule("forward", 21, match(meta("nfproto"), "ipv6"), DROP),
    rule("forward", 22, match(field("dport", "th"), 53), DROP),
)


def test_what_a_table_is_told_beside_ipv4() -> None:
    """Another rule drops IPv6 there, and both stand right before what drops them."""
    text = told(TABLE, [SIX])
    lines = [line for line in text.splitlines() if "loopnet-6-" in line]
    guest = 'iifname "virbr1" ip6 saddr { fd00:0:0:1::/64, fe80::/10 }'
    reply = "ct state established,related accept"
    own = "ip6 daddr { fe80::/10, fd00:0:0:1::1 }"
    assert [line.partition(" comment")[0] for line in lines] == [
        "add chain inet t loopnet-6-forward",
        'add rule inet t loopnet-6-forward iifname "virbr1" oifname "wg0" ip6 saddr fd00:0:0:1::/64 accept',
        f'add rule inet t loopnet-6-forward iifname "wg0" oifname "virbr1" ip6 daddr fd00:0:0:1::/64 {reply}',
        "insert rule inet t forward handle 21 jump loopnet-6-forward",
        "add chain inet t loopnet-6-input",
        'add rule inet t loopnet-6-input iifname "virbr1" ip6 saddr fe80::/10 udp dport 547 accept',
        f"add rule inet t loopnet-6-input {guest} {own} meta l4proto {{ tcp, udp }} th dport 53 accept",
        'add rule inet t loopnet-6-input iifname "virbr1" meta l4proto ipv6-icmp accept',
        f"add rule inet t loopnet-6-input {guest} {reply}",
        "insert rule inet t input jump loopnet-6-input",
        "add chain inet t loopnet-6-output",
        'add rule inet t loopnet-6-output oifname "virbr1" ip6 daddr { fd00:0:0:1::/64, fe80::/10, ff02::/16 } accept',
        "insert rule inet t output jump loopnet-6-output",
    ]
    assert "insert rule inet t forward handle 21 jump loopnet-forward" not in text
    assert 'oifname "wg0"' not in told(TABLE, [SIX], Ways(False))
    spared = told(TABLE, [SIX], Ways(True, (), ("eth0",)))
    assert 'iifname "virbr1" oifname != "eth0" ip6 saddr fd00:0:0:1::/64 accept' in spared
    assert "::" not in told(TABLE, [ONE, TWO])
    assert "{ fd00:0:0:1::/64, fe80::/10, :: }" in told(TABLE, [SIX], bridged=True)


def test_before_conntrack_nothing_is_an_answer() -> None:
    """There a rule for answers does nothing, be it theirs or ours; and there is no mark and no status."""
    early = chain("early", "prerouting", "drop")
    answers = rule("early", 1, match({"ct": {"key": "state"}}, "established"), ACCEPT)
    marked = rule("early", 1, match({"ct": {"key": "mark"}}, 7, "!="), ACCEPT)
    needed = needs_ipv6.packets([SIX], "eth0", False, (), WG0)
    for before, priority in ((False, -150), (True, -300)):
        early["chain"]["prio"] = priority
        found = drops(Rules((early, answers)), needed)
        assert ("tcp" in {packet.protocol for drop in found for packet in drop.packets}) == before
        assert bool(drops(Rules((early, marked)), needed)) == before
    assert "established" not in told((early, answers), [SIX])
    opened = (early, rule("early", 1, match(meta("l4proto"), "tcp", "!="), ACCEPT))
    assert "loopnet-6-" not in told(opened, [SIX])
    (obstacle,) = (drop.obstacle("policy drop") for drop in drops(Rules(opened), needed))
    assert (obstacle.breaks, obstacle.mend) == (("the host doesn't reach guests by IPv6",), ())
    (finding,) = findings(Facts(foreign=Foreign((obstacle,)), open_firewalls=("inet t",)))[:1]
    assert "priority above -200" in finding.command


def test_once_is_enough_and_all_goes_again() -> None:
    """Both of one family's and the other's stand before the same policy."""
    plain = (chain("output", "output", "drop"), chain("forward", "forward", "drop"))
    for ruleset in (TABLE, plain):
        opened = after(ruleset, told(ruleset, [SIX, TWO]))
        assert told(opened, [SIX, TWO]) == ""
        four = after(opened, told(opened, [ONE]))
        assert "loopnet-6-" not in str(four)
        assert told(four, [ONE]) == ""
        assert after(four, told(four, [])) == ruleset


def test_neighbour_discovery_is_found_dropped() -> None:
    """Of all that a host asks and answers, one type is missing."""
    kinds = [
        "echo-request", "nd-neighbor-solicit", "nd-neighbor-advert", "nd-router-solicit", "nd-router-advert",
    ]  # fmt: skip
    accepted = [match(meta("l4proto"), {"set": ["tcp", "udp"]}), ACCEPT]
    needed = needs_ipv6.packets([SIX], "", False)
    for kind in ["", *kinds[:-1]]:
        rest = {"set": [each for each in kinds if each != kind]}
        ruleset = [
            chain("input", "input", "drop"),
            rule("input", 1, *accepted),
            rule("input", 2, match(ICMP_TYPE, rest), match(field("code", "icmpv6"), "no-route"), ACCEPT),
        ]
        found = {packet.kind for drop in drops(Rules(ruleset), needed) for packet in drop.packets}
        assert found == ({kind} if kind else set())


def test_ip6tables_is_told_no_more_than_the_hosts_own() -> None:
    seen = Firewalls(ip6tools=("ip6tables-nft",), ip6tables=(("ip6tables-nft", ALL_DROP),))
    routed = SIX._replace(ipv6_forward=ROUTE)
    (shut,) = orders(seen, [routed])
    assert "-A LOOPNET_INPUT -i virbr1 -p ipv6-icmp -j ACCEPT" in shut.text
    assert "-s fd00:0:0:1::/64" not in shut.text
    assert "-d fd00:0:0:1::/64 -o virbr1 -j ACCEPT\n" not in shut.text.partition("LOOPNET_OUTPUT")[0]
    saved = ALL_DROP.replace("COMMIT", "-A OUTPUT -o wg+ -j ACCEPT\nCOMMIT")
    (order,) = orders(seen._replace(ip6tables=(("ip6tables-nft", saved),)), [SIX])
    assert [line for line in order.text.splitlines() if line.startswith("-A LOOPNET_FORWARD")] == [
        "-A LOOPNET_FORWARD -i virbr1 -o virbr1 -j ACCEPT",
        "-A LOOPNET_FORWARD -d fd00:0:0:1::/64 -i wg+ -o virbr1 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A LOOPNET_FORWARD -o virbr1 -j RETURN",
        "-A LOOPNET_FORWARD -s fd00:0:0:1::/64 -i virbr1 -o wg+ -j ACCEPT",
    ]
    # A kill switch of nft's counts for what ip6tables is told.
    switch = Table("inet", "t", (chain("output", "output", "drop"),))
    docker = ALL_DROP.replace("OUTPUT DROP", "OUTPUT ACCEPT")
    open_ = seen._replace(ip6tables=(("ip6tables-nft", docker),))
    assert "-s fd00:0:0:1::/64 -i virbr1 -j ACCEPT" in orders(open_, [routed])[0].text
    assert "-d fd00:0:0:1::/64 -o virbr1 -j ACCEPT" in orders(open_, [routed])[0].text
    assert "-s fd00:0:0:1::/64" not in orders(open_._replace(tables=(switch,)), [SIX])[0].text


def test_the_doctor_tells_families_apart_where_they_differ() -> None:
    same = Foreign(ways=WG0._replace(by=("inet t output",)), around="eth0")
    same = same._replace(ways6=same.ways, around6="eth0")

    def texts(foreign: Foreign) -> list[tuple[str, str]]:
        found = findings(Facts(networks=(SIX,), foreign=foreign))
        return [(each.what, each.command) for each in found if each.id == "firewall-around"]

    ((what, command),) = texts(same)
    assert "IPv" not in what
    assert "nfproto" not in command
    four, six = texts(same._replace(ways6=same.ways._replace(open=("wg1",))))
    assert ("IPv4" in four[0], "IPv6" in six[0]) == (True, True)
    assert 'meta nfproto ipv4 iifname { "virbr1" } oifname != "wg0"' in four[1]
    assert 'meta nfproto ipv6 iifname { "virbr1" } oifname != "wg1"' in six[1]
    ((what, command),) = texts(same._replace(ways=EVERYWHERE, around=""))
    assert "IPv6" in what
    assert "nfproto ipv6" in command
    ((what, command),) = texts(same._replace(ways6=EVERYWHERE, around6=""))
    assert "nfproto" not in command
