"""Where the host's own traffic gets out by the rules of others, and what their tables are told: as nft lists them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libvirt_loopnet.firewalls import opened_tables
from libvirt_loopnet.firewalls.needs_ipv4 import outs
from libvirt_loopnet.firewalls.obstacles import around
from libvirt_loopnet.firewalls.opened_tables import Table
from libvirt_loopnet.firewalls.openings import NFT_TABLE, Firewalls, orders, script
from libvirt_loopnet.firewalls.walk import Rules
from libvirt_loopnet.firewalls.ways import EVERYWHERE, Ways, of_iptables, ways
from tests.unit.test_firewalls import (
    ACCEPT,
    ALL_DROP,
    DROP,
    ONE,
    REJECT,
    STATE,
    TWO,
    chain,
    field,
    match,
    meta,
    rule,
)  # fmt: skip

OUT = meta("oifname")
ONLY_WG0 = (
    chain("output", "output", "drop"),
    rule("output", 1, match(OUT, "lo"), ACCEPT),
    rule("output", 2, match(OUT, "wg0"), ACCEPT),
)


def found(*ruleset: Any) -> Ways:
    return ways([Rules(ruleset)], ["virbr1"])._replace(by=())


# --- ways --------------------------------------------------------------------------------------------


def out(*statements: Any, policy: str = "drop") -> Ways:
    """What one rule makes of a chain."""
    return found(chain("output", "output", policy), rule("output", 1, *statements))


LAN = {"prefix": {"addr": "192.168.0.0", "len": 16}}


@pytest.mark.parametrize(
    ("statements", "opened"),
    [
        ([match(OUT, "wg0"), ACCEPT], ("wg0",)),
        ([match(meta("oif"), "wg0"), {"counter": None}, ACCEPT], ("wg0",)),
        ([match(OUT, {"set": ["wg0", "lo", "virbr1", "tun*"]}), ACCEPT], ("tun*", "wg0")),
        ([match(OUT, "wg0"), match(meta("l4proto"), "tcp"), ACCEPT], ("wg0",)),
        ([match(OUT, "wg0"), match(meta("nfproto"), "ipv4"), ACCEPT], ("wg0",)),
        ([match(OUT, "wg0"), match(STATE, ["established", "new"], "in"), ACCEPT], ("wg0",)),
        ([match(OUT, "wg0"), match(STATE, ["established", "related"], "in"), ACCEPT], ()),
        ([match(OUT, "wg0"), match(field("daddr"), LAN), ACCEPT], ()),
        ([match(OUT, "wg0"), match(field("daddr"), LAN, "!="), ACCEPT], ("wg0",)),
        ([match(OUT, "wg0"), match(field("daddr"), "198.51.100.1"), ACCEPT], ()),
        ([match(OUT, "wg0"), match(field("daddr"), "198.51.100.1", "!="), ACCEPT], ("wg0",)),
        (
            [match(OUT, "wg0"), match(field("daddr"), {"prefix": {"addr": "0.0.0.0", "len": 0}}), ACCEPT],
            ("wg0",),
        ),
        ([match(OUT, "wg0"), match(field("daddr"), {"prefix": {"addr": "0.0.0.0", "len": 1}}), ACCEPT], ()),
        (
            [match(OUT, "wg0"), match(field("daddr"), {"range": ["10.0.0.1", "10.9.0.0"]}, "!="), ACCEPT],
            ("wg0",),
        ),
        ([match(OUT, "wg0"), match(field("daddr"), {"range": ["10.0.0.1", "11.9.0.0"]}, "!="), ACCEPT], ()),
        ([match(OUT, "wg0"), match(field("saddr"), "10.64.0.2"), ACCEPT], ()),
        ([match(OUT, "wg0"), match(meta("mark"), 51820), ACCEPT], ()),
        ([match(OUT, "wg0"), match(meta("skuid"), 1000), ACCEPT], ()),
        ([match(OUT, "wg0"), match(field("dport", "udp"), 51820), ACCEPT], ()),
        ([match(OUT, "wg0"), {"limit": {"rate": 1, "per": "second"}}, ACCEPT], ()),
        ([match(OUT, "wg0"), {"xt": None}, ACCEPT], ()),
        ([match(OUT, "wg0"), match(field("daddr", "ip6"), "::1", "!="), ACCEPT], ()),
        ([match(OUT, "wg0"), {"queue": {"num": 1}}], ()),
        ([match(meta("oif"), 7), ACCEPT], ()),
        ([match(OUT, 'a"; flush ruleset; "'), ACCEPT], ()),
        ([match(OUT, "a b"), ACCEPT], ()),
        ([match({"concat": [OUT, field("daddr")]}, "@x"), ACCEPT], ()),
        ([match(meta("mark"), 51820), ACCEPT], ()),
        ([match(field("daddr"), LAN), ACCEPT], ()),
    ],
)
def test_what_a_rule_lets_out(statements: Any, opened: tuple[str, ...]) -> None:
    assert out(*statements) == Ways(elsewhere=False, open=opened)


@pytest.mark.parametrize(
    ("statements", "closed"),
    [
        ([match(OUT, "wg0", "!="), DROP], None),
        ([match(OUT, "wg0", "!="), match(meta("mark"), 51820, "!="), {"xt": None}, REJECT], None),
        ([match(OUT, "eth0"), DROP], ("eth0",)),
        ([match(OUT, "eth0"), match(field("daddr"), LAN, "!="), REJECT], ("eth0",)),
        ([match(OUT, "eth0"), match(meta("skuid"), 0), {"queue": {}}], ("eth0",)),
        ([match(OUT, "eth0"), {"xt": {"type": "target", "name": "REJECT"}}], ("eth0",)),
        ([match(OUT, "eth0"), {"xt": {"type": "target", "name": "TCPMSS"}}], ()),
        ([match(OUT, "eth0"), match(field("daddr", "ip6"), "::1"), REJECT], ()),
        ([match(OUT, "eth0"), match(field("dport", "udp"), 53), REJECT], ()),
        ([match(OUT, "eth0"), match(field("dport", "tcp"), 53), REJECT], ()),
        ([match(STATE, "invalid", "in"), DROP], ()),
    ],
)
def test_what_a_rule_stops(statements: Any, closed: Any) -> None:
    """``None``: all but wg0."""
    expected = Ways(False, ("wg0",)) if closed is None else None
    seen = out(*statements, policy="accept")
    assert seen == expected if expected else (seen.elsewhere, seen.closed) == (True, closed)


def test_what_may_drop_comes_first() -> None:
    """Some of what the host sends there is dropped: which, can't be told."""
    some = [match(field("daddr"), LAN, "!="), DROP]
    assert found(ONLY_WG0[0], rule("output", 3, *some), *ONLY_WG0[1:]) == Ways(elsewhere=False)
    assert found(*ONLY_WG0, rule("output", 3, *some)) == Ways(elsewhere=False, open=("wg0",))


def test_names_and_patterns() -> None:
    one = rule("output", 1, match(OUT, "wg0"), DROP)
    all_of_them = rule("output", 2, match(OUT, "wg*"), ACCEPT)
    closed = found(chain("output", "output", "drop"), one, all_of_them)
    assert closed == Ways(elsewhere=False)
    wide = Ways(elsewhere=True, closed=("wg*",))
    assert [wide.lets_out(name) for name in ("wg0", "wg", "eth0")] == [False, False, True]
    assert EVERYWHERE.lets_out("eth0")
    assert not Ways(elsewhere=False, open=("wg0",)).lets_out("eth0")


def test_jumps() -> None:
    base = chain("output", "output", "drop")
    tunnel = rule("tunnel", 5, match(OUT, "wg*"), ACCEPT)
    jump = {"jump": {"target": "tunnel"}}
    assert found(base, chain("tunnel"), rule("output", 1, jump), tunnel).open == ("wg*",)
    assert found(base, chain("tunnel"), rule("output", 1, match(meta("skuid"), 0), jump), tunnel).open == ()
    back = rule("tunnel", 4, match(meta("skuid"), 0), {"return": None})
    assert found(base, chain("tunnel"), rule("output", 1, jump), back, tunnel).open == ()
    open_base = chain("output", "output", "accept")
    assert found(open_base, chain("tunnel"), rule("output", 1, jump), back, tunnel).elsewhere
    circle = rule("output", 1, {"jump": {"target": "output"}})
    assert not found(open_base, circle).elsewhere


def test_all_have_to_agree() -> None:
    post = [chain("post", "postrouting", "accept"), rule("post", 9, match(OUT, "wg0"), DROP)]
    assert found(*ONLY_WG0, *post) == Ways(elsewhere=False)
    nat = chain("nat", "output", "drop")
    nat["chain"]["type"] = "nat"
    assert found(nat, chain("in", "input", "drop"), chain("f", "forward", "drop")) == EVERYWHERE
    six = chain("output", "output", "drop", "ip6")
    assert found(six) == EVERYWHERE
    ours = copy.deepcopy(chain("postrouting", "postrouting", "drop", "ip"))
    ours["chain"]["table"] = "loopnet"
    assert found(ours) == EVERYWHERE
    assert ways([Rules(ONLY_WG0), Rules([*post])]).by == ("inet t output", "inet t post")


JUNK = st.recursive(
    st.none() | st.integers() | st.sampled_from(["@x", "10.0.0.0", "::", "wg*", "accept"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from([
            "match", "vmap", "op", "left", "right", "meta", "key", "payload", "protocol", "field", "fib", "flags",
            "result", "set", "range", "prefix", "addr", "len", "elem", "val", "jump", "target", "data", "ct",
        ]),
        inner,
        min_size=1,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.lists(st.dictionaries(st.sampled_from(["match", "vmap", "jump", "xt", "drop"]), JUNK, min_size=1)))
def test_whatever_stands_there(statements: list[Any]) -> None:
    """Nobody's network fails to start for rules that make no sense, and nothing is let out by them."""
    ruleset = [chain("output", "output", "drop"), rule("output", 1, *statements, ACCEPT)]
    found(*ruleset)
    assert told(tuple(ruleset), [ONE], WG0) is not None


# --- iptables ----------------------------------------------------------------------------------------

HEAD = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT {} [0:0]\n"
IVPN = """\
:IVPN-OUT - [0:0]
:IVPN-OUT-VPN - [0:0]
-A OUTPUT -j IVPN-OUT
-A IVPN-OUT -m cgroup --cgroup 1230000974 -m comment --comment "IVPN Split -j Tunneling" -j ACCEPT
-A IVPN-OUT -o lo -j ACCEPT
-A IVPN-OUT -p udp -m udp --dport 67 -j ACCEPT
-A IVPN-OUT ! -d 172.16.0.1/32 -p udp -m udp --dport 53 -j DROP
-A IVPN-OUT -j IVPN-OUT-VPN
-A IVPN-OUT -d 185.65.134.66/32 -j ACCEPT
-A IVPN-OUT -j DROP
"""
KUBERNETES = """\
:KUBE-FIREWALL - [0:0]
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment "block incoming localnet connections" \
-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
"""
UFW = """\
:ufw-before-output - [0:0]
:ufw-track-output - [0:0]
:ufw-skip-to-policy-output - [0:0]
:ufw-logging-deny - [0:0]
-A OUTPUT -j ufw-before-output
-A OUTPUT -j ufw-logging-deny
-A OUTPUT -j ufw-track-output
-A ufw-before-output -o lo -j ACCEPT
-A ufw-before-output -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-logging-deny -m conntrack --ctstate INVALID -m limit --limit 3/min --limit-burst 10 -j RETURN
-A ufw-logging-deny -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix "[UFW BLOCK] "
-A ufw-skip-to-policy-output -j ACCEPT
-A ufw-track-output -p tcp -m conntrack --ctstate NEW -j ACCEPT
"""


@pytest.mark.parametrize(
    ("policy", "rules", "expected"),
    [
        ("ACCEPT", "", EVERYWHERE),
        ("DROP", IVPN, Ways(elsewhere=False)),
        ("DROP", IVPN + "-A IVPN-OUT-VPN -o wgivpn -j ACCEPT\n", Ways(False, ("wgivpn",))),
        ("DROP", "-A OUTPUT -o tun+ -j ACCEPT\n", Ways(False, ("tun*",))),
        ("DROP", "-A OUTPUT -p tcp -m state --state NEW,ESTABLISHED -j ACCEPT\n", EVERYWHERE),
        ("DROP", "-A OUTPUT -p tcp -m multiport --dports 80,443 -j ACCEPT\n", EVERYWHERE),
        (
            "DROP",
            "-A OUTPUT -p tcp -m tcp --dport 400:500 -m conntrack --ctstate NEW -j ACCEPT\n",
            EVERYWHERE,
        ),
        ("DROP", "-A OUTPUT -d 10.0.0.0/8 -j ACCEPT\n", Ways(elsewhere=False)),
        ("DROP", "-A OUTPUT -m owner ! --uid-owner 0 -j ACCEPT\n", Ways(elsewhere=False)),
        ("DROP", "-A OUTPUT ! -d 10.0.0.0/8 -o wg0 -j ACCEPT\n", Ways(False, ("wg0",))),
        ("DROP", "-A OUTPUT ! -d 9.9.9.9/32 -o wg0 -j ACCEPT\n", Ways(False, ("wg0",))),
        ("ACCEPT", "-A OUTPUT -d 198.51.100.7/32 -j DROP\n", EVERYWHERE),
        ("ACCEPT", "-A OUTPUT -d 0.0.0.0/1 -j DROP\n", Ways(elsewhere=False)),
        ("ACCEPT", "-A OUTPUT ! -d 198.51.100.7/32 -j DROP\n", Ways(elsewhere=False)),
        ("ACCEPT", KUBERNETES, EVERYWHERE),
        ("ACCEPT", UFW, EVERYWHERE),
        ("DROP", "-A OUTPUT -m connmark ! --mark 0x1 -j LOG --log-prefix x\n", Ways(elsewhere=False)),
        (
            "ACCEPT",
            "-A OUTPUT ! -o wg0 -m mark ! --mark 0xca6c -m addrtype ! --dst-type LOCAL -j REJECT\n",
            Ways(False, ("wg0",)),
        ),
        ("ACCEPT", "-A OUTPUT -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu\n", None),
        ("ACCEPT", "-A OUTPUT -j NFQUEUE --queue-num 1\n", Ways(elsewhere=False)),
        ("ACCEPT", "-A OUTPUT -m mark --mark 0x1/0xff -j DROP\n", EVERYWHERE),
        ("ACCEPT", "-A OUTPUT -m mark --mark 0x0/0xff -j DROP\n", Ways(elsewhere=False)),
        ("ACCEPT", "-A OUTPUT -p udp -g nowhere\n", EVERYWHERE),
    ],
)
def test_iptables(policy: str, rules: str, expected: Any) -> None:
    """``None``: what isn't known may drop."""
    expected = expected or Ways(elsewhere=False)
    assert ways([of_iptables(HEAD.format(policy) + rules + "COMMIT\n")])._replace(by=()) == expected


def test_no_chain_no_limit() -> None:
    assert ways([of_iptables("")]) == EVERYWHERE


def test_forward_goes_no_further_than_output() -> None:
    text = script(ALL_DROP, [ONE], ways=Ways(False, ("wg0", "tun*")))
    lines = [line for line in text.splitlines() if line.startswith("-A LOOPNET_FORWARD")]
    assert lines == [
        "-A LOOPNET_FORWARD -s 10.127.1.0/24 -i virbr1 -o virbr1 -j ACCEPT",
        "-A LOOPNET_FORWARD -d 247.1.0.0/24 -i wg0 -o virbr1 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A LOOPNET_FORWARD -d 247.1.0.0/24 -i tun+ -o virbr1 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A LOOPNET_FORWARD -o virbr1 -j RETURN",
        "-A LOOPNET_FORWARD -s 247.1.0.0/24 -i virbr1 -o wg0 -j ACCEPT",
        "-A LOOPNET_FORWARD -s 247.1.0.0/24 -i virbr1 -o tun+ -j ACCEPT",
    ]
    closed = script(ALL_DROP, [ONE], ways=Ways(True, (), ("eth0",)))
    assert closed.index("-o eth0 -j RETURN") < closed.index("-s 247.1.0.0/24 -i virbr1 -j ACCEPT")
    none = script(ALL_DROP, [ONE], published=["net1"], ways=Ways(False))
    assert "247.1.0.0/24 -i virbr1 -o" not in none
    assert "DNAT" not in none
    assert script(ALL_DROP, [ONE], ways=EVERYWHERE) == script(ALL_DROP, [ONE])


# --- tables ------------------------------------------------------------------------------------------

TABLE = (
    *ONLY_WG0,
    chain("input", "input", "drop"),
    rule("input", 11, match(meta("iifname"), "lo"), ACCEPT),
    chain("forward", "forward", "drop"),
    rule("forward", 21, match(field("dport", "th"), 53), REJECT),
    rule("forward", 22, REJECT),
    chain("other", "input"),
)
WG0 = Ways(False, ("wg0",))


def after(ruleset: tuple[Any, ...], text: str) -> tuple[Any, ...]:
    """What nft lists after ``nft -f``; it is never given what isn't there."""
    found = [*copy.deepcopy(ruleset)]
    handle = 1000
    for line in text.splitlines():
        verb, kind, family, table, name, *rest = line.split(" ")
        assert (family, table) == ("inet", "t")
        if (verb, kind) == ("add", "chain"):
            if chain(name) not in found:
                found.append(chain(name))
            continue
        mine = [i for i, each in enumerate(found) if each.get("rule", {}).get("chain") == name]
        if (verb, kind) == ("delete", "chain"):
            assert not mine
            found.remove(chain(name))
        elif (verb, kind) == ("flush", "chain"):
            found = [each for i, each in enumerate(found) if i not in mine]
        elif verb == "delete":
            (place,) = [i for i in mine if found[i]["rule"]["handle"] == int(rest[1])]
            del found[place]
        else:
            before = int(rest[1]) if rest[0] == "handle" else 0
            words = " ".join(rest[2:] if before else rest)
            handle += 1
            if "jump" in words:
                target, comment = words.split(" ")[1], words.partition('"')[2].rstrip('"')
                new = rule(name, handle, {"jump": {"target": target}})
                new["rule"]["comment"] = comment
            else:
                new = rule(name, handle, {"text": words}, ACCEPT)
            at = [i for i in mine if found[i]["rule"]["handle"] == before] if before else mine[:1]
            found.insert(at[0] if verb == "insert" and at else len(found), new)
    return tuple(found)


def told(ruleset: tuple[Any, ...], networks: Any, ways: Ways = WG0, bridged: bool = False) -> str:
    seen = Firewalls(uplink="eth0", bridged=bridged)
    return opened_tables.script(
        Table("inet", "t", ruleset), opened_tables.needed(seen, networks, ways, EVERYWHERE)
    )


def test_what_a_table_is_told() -> None:
    text = told(TABLE, [ONE])
    guest = 'iifname "virbr1" ip saddr 247.1.0.0/24'
    to_gateway = f"{guest} ip daddr {{ 247.1.0.1 }} meta l4proto"
    answers = "ct state established,related accept"
    assert text.splitlines() == [
        "add chain inet t loopnet-forward",
        'add rule inet t loopnet-forward iifname "virbr1" oifname "wg0" ip saddr 247.1.0.0/24 accept',
        f'add rule inet t loopnet-forward iifname "wg0" oifname "virbr1" ip daddr 247.1.0.0/24 {answers}',
        f'insert rule inet t forward handle 22 jump loopnet-forward comment "loopnet {mark(text, "forward")}"',
        "add chain inet t loopnet-input",
        'add rule inet t loopnet-input iifname "virbr1" udp dport 67 accept',
        f"add rule inet t loopnet-input {to_gateway} {{ tcp, udp }} th dport 53 accept",
        f"add rule inet t loopnet-input {to_gateway} icmp accept",
        'add rule inet t loopnet-input iifname "virbr1" ip saddr 127.1.0.0/24 accept',
        f'insert rule inet t input jump loopnet-input comment "loopnet {mark(text, "input")}"',
        "add chain inet t loopnet-output",
        'add rule inet t loopnet-output oifname "virbr1" ip daddr { 127.1.0.0/24, 247.1.0.0/24 } accept',
        'add rule inet t loopnet-output oifname "virbr1" udp sport 67 accept',
        f'insert rule inet t output jump loopnet-output comment "loopnet {mark(text, "output")}"',
    ]


def mark(text: str, base: str) -> str:
    return text.partition(f'jump loopnet-{base} comment "loopnet ')[2][:8]


def test_once_is_enough_and_all_goes_again() -> None:
    opened = after(TABLE, told(TABLE, [ONE, TWO]))
    assert told(opened, [ONE, TWO]) == ""
    fewer = after(opened, told(opened, [ONE]))
    assert told(fewer, [ONE]) == ""
    assert "virbr2" not in str(fewer)
    assert after(fewer, told(fewer, [])) == TABLE
    shut = after(fewer, told(fewer, [ONE], Ways(False)))
    assert "wg0" not in str([each for each in shut if each.get("rule", {}).get("chain") == "loopnet-forward"])
    assert told(TABLE, []) == ""


def test_others_disturb_it() -> None:
    opened = after(TABLE, told(TABLE, [ONE]))
    flushed = tuple(
        each for each in opened if "chain" in each
    )  # nft flush table; ours is still entered by nothing
    again = after(flushed, told(flushed, [ONE]))
    assert told(again, [ONE]) == ""
    # A rule that they add at the end has its say before ours.
    later = (*opened[: opened.index(TABLE[7])], rule("forward", 30, DROP), *opened[opened.index(TABLE[7]) :])
    assert "insert rule inet t forward handle 30 jump" in told(later, [ONE])


def test_what_needs_no_accept_gets_none() -> None:
    """Mullvad and NordVPN forward to their tunnel themselves."""
    own = (*TABLE[:6], rule("forward", 19, match(OUT, "wg0"), ACCEPT),
           rule("forward", 20, match(meta("iifname"), "wg0"), ACCEPT), *TABLE[6:])  # fmt: skip
    assert "loopnet-forward" not in told(own, [ONE])
    assert "loopnet-forward" in told(own, [ONE], bridged=True)


def test_what_is_not_ours_to_change() -> None:
    needed = opened_tables.needed(Firewalls(), [ONE], WG0, WG0)
    assert opened_tables.script(Table("inet", "t", TABLE), needed)
    assert opened_tables.script(Table("inet", "t", TABLE, owned=True), needed) == ""
    strange = chain("a; flush ruleset", "input", "drop")
    assert told((strange,), [ONE]) == ""


def test_only_what_is_trusted_is_told() -> None:
    seen = Firewalls(tables=(Table("inet", "t", TABLE),), uplink="eth0")
    assert orders(seen, [ONE]) == []
    (order,) = orders(seen, [ONE], trusted=["inet t"])
    assert order == (NFT_TABLE, told(TABLE, [ONE]))
    assert str(order).startswith("nft -f - <<END\nadd chain")
    opened = Firewalls(tables=(Table("inet", "t", after(TABLE, order.text)),))
    (closed,) = orders(opened, [ONE])
    assert after(opened.tables[0].ruleset, closed.text) == TABLE


def test_who_goes_round_it() -> None:
    """A kill switch about what the host sends, and none about what it forwards."""
    switch, forward = Rules(ONLY_WG0), chain("forward", "forward", "drop")
    saved = "*filter\n:OUTPUT ACCEPT [0:0]\n:FORWARD {} [0:0]\nCOMMIT\n"
    assert around([switch], outs([ONE], "eth0"), "eth0", WG0) == "eth0"
    assert around([switch], outs([ONE], "wg0"), "wg0", WG0) == ""
    assert around([switch], outs([ONE], ""), "", WG0) == ""
    assert around([switch], outs([ONE._replace(internet="none")], "eth0"), "eth0", WG0) == ""
    assert around([Rules([*ONLY_WG0, forward])], outs([ONE], "eth0"), "eth0", WG0) == ""
    for policy, device in (("DROP", ""), ("ACCEPT", "eth0")):
        assert around([switch, of_iptables(saved.format(policy))], outs([ONE], "eth0"), "eth0", WG0) == device
    assert around([switch], outs([ONE], "eth0"), "eth0", EVERYWHERE) == ""


def test_a_firewall_that_lets_the_host_out_everywhere() -> None:
    plain = (chain("forward", "forward", "drop"),)
    assert 'iifname "virbr1" ip saddr 247.1.0.0/24 accept' in told(plain, [ONE], EVERYWHERE)
    spared = told(plain, [ONE], Ways(True, (), ("eth0",)))
    assert 'iifname "virbr1" oifname != "eth0" ip saddr 247.1.0.0/24 accept' in spared
