"""By which devices the rules of others let the host's own traffic out: guests' is let out by no others. Pure.

A kill switch keeps what the host sends in a tunnel; were guests let out by all devices, they would go round it.
So every chain that the host's own packets pass is asked, for each device that it names: does it let out a packet
to anywhere on the internet, whatever its address? What may drop one, for all that can be told, does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..records import NamedTuple
from ..ruleset.tables import ALL_TABLES
from ..validation import is_quotable
from .walk import ACCEPT, DROP, RETURN, Packet, Rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .walk import Json, Place

HOOKS = ("output", "postrouting")
"""What the host sends passes these."""
ELSEWHERE = "/"
"""A device that no rule names: no device can have this name (dev_valid_name in the kernel's net/core/dev.c)."""
_CLIENT, _HTTPS = 40000, 443


class Ways(NamedTuple):
    """Where the host's own traffic may leave."""

    elsewhere: bool = True
    """By devices that no rule names."""
    open: tuple[str, ...] = ()
    """Names, and patterns of names that end in '*', of devices that it may leave by."""
    closed: tuple[str, ...] = ()
    """And of those by which it may not."""
    by: tuple[str, ...] = ()
    """Chains that don't let it out everywhere, each as family, table and chain."""

    @property
    def limited(self) -> bool:
        """Not everywhere."""
        return not self.elsewhere or bool(self.closed)

    def lets_out(self, device: str) -> bool:
        if any(_covers(name, device) for name in self.closed):
            return False
        return self.elsewhere or any(_covers(name, device) for name in self.open)


EVERYWHERE = Ways()


def _covers(name: str, device: str) -> bool:
    return device.startswith(name[:-1]) if name.endswith("*") else device == name


def ways(filters: Iterable[Rules], bridges: Iterable[str] = (), *, six: bool = False) -> Ways:
    """What all of ``filters`` together let out of IPv4, or of IPv6 with ``six``, our tables aside; ``bridges`` are
    ours, by which nothing gets out."""
    chains = [
        (rules, place, chain)
        for rules in filters
        for place, chain in rules.base_chains(six)
        if chain["hook"] in HOOKS and place[:2] not in ALL_TABLES
    ]
    inside = {"lo", *bridges}
    named = sorted({name for rules, _, _ in chains for name in rules.devices() if _is_sound(name)} - inside)
    stops = {
        name: [place for each in chains if (place := _stops(*each, name, six))]
        for name in [*named, ELSEWHERE]
    }
    return Ways(
        elsewhere=not stops[ELSEWHERE],
        open=tuple(name for name in named if not stops[name]),
        closed=tuple(name for name in named if stops[name]) if not stops[ELSEWHERE] else (),
        by=tuple(dict.fromkeys(place for name in [ELSEWHERE, *named] for place in stops[name])),
    )


def _stops(rules: Rules, place: Place, chain: Json, device: str, six: bool) -> str:
    """The chain, if it may drop what leaves by ``device``; else ''."""
    packet = Packet("", (), "", "", device, None, None, "tcp", (_CLIENT, _HTTPS), six=six)
    return "" if rules.passes(place, chain, packet) else " ".join(place)


def _is_sound(name: str) -> bool:
    """Whoever wrote the rule may have put anything there, and we put it into ours."""
    plain = name[:-1] if name.endswith("*") else name
    return bool(plain) and is_quotable(plain) and plain.isprintable() and not set(plain) & set(" /\\")


# --- iptables ------------------------------------------------------------------------------------


def of_iptables(saved: str, *, six: bool = False) -> Rules:
    """What ``iptables-save -t filter`` says of OUTPUT and FORWARD, or ip6tables-save with ``six``; options that aren't
    known here may match or not."""
    lines = saved.splitlines()
    policies = {words[0][1:]: words[1] for line in lines if line.startswith(":") for words in [line.split()]}
    family = "ip6" if six else "ip"
    place = {"family": family, "table": "filter"}
    ruleset: list[Json] = [
        {
            "chain": {
                **place, "name": name, "type": "filter", "hook": name.lower(), "policy": policies[name].lower(),
            }
        }
        for name in ("OUTPUT", "FORWARD")
        if name in policies
    ]  # fmt: skip
    for number, line in enumerate(lines, start=1):
        if line.startswith("-A "):
            _, chain, *words = _words(line)
            expr = [*_statements(words, policies, family)]
            ruleset.append({"rule": {**place, "chain": chain, "handle": number, "expr": expr}})
    return Rules(ruleset)


def _words(line: str) -> list[str]:
    """Comments stand in quotes."""
    parts = line.replace('\\"', "").split('"')
    return [word for i, part in enumerate(parts) for word in ([part] if i % 2 else part.split())]


_IGNORED = {"-m", "--comment"}
_FIELDS = {
    "-o": {"meta": {"key": "oifname"}},
    "-i": {"meta": {"key": "iifname"}},
    "-p": {"meta": {"key": "l4proto"}},
    "-d": {},
    "--dst-type": {"fib": {"result": "type", "flags": ["daddr"]}},
    "--ctstate": {"ct": {"key": "state"}},
    "--state": {"ct": {"key": "state"}},
    "--mark": {"meta": {"key": "mark"}},
    "--dport": {"payload": {"protocol": "th", "field": "dport"}},
    "--dports": {"payload": {"protocol": "th", "field": "dport"}},
}
"""Where the packet goes is asked of its own family's header."""
_UNKNOWN: Json = {"xt": None}
_VERDICTS = {"ACCEPT": ACCEPT, "RETURN": RETURN}
_HARMLESS = ("LOG", "NFLOG", "MARK", "CONNMARK")


def _statements(words: list[str], chains: Iterable[str], family: str) -> Iterator[Json]:
    known = {*chains}
    negated, position = False, 0
    while position < len(words):
        word, value = words[position], words[position + 1] if position + 1 < len(words) else ""
        position += 2
        if word == "!":
            negated, position = True, position - 1
            continue
        if word in ("-j", "-g"):
            if value in known:
                yield {"jump" if word == "-j" else "goto": {"target": value}}
            elif value not in _HARMLESS:
                yield {_VERDICTS.get(value, DROP): None}
            return
        if word in _FIELDS:
            right = {"set": [_element(word, part) for part in value.split(",")]}
            op = "!=" if negated else "=="
            left = _FIELDS[word] or {"payload": {"protocol": family, "field": "daddr"}}
            yield {"match": {"op": op, "left": left, "right": right}}
        elif word not in _IGNORED:
            yield _UNKNOWN
            position -= 1 if value[:1] in ("", "-", "!") else 0
        negated = False


def _element(option: str, value: str) -> object:
    if option == "--mark":  # a mask makes no difference to a mark of 0
        return _number(value.partition("/")[0])
    if option == "-d":
        address, _, length = value.partition("/")
        return {"prefix": {"addr": address, "len": _number(length or ("128" if ":" in address else "32"))}}
    if option in ("--dport", "--dports"):
        low, colon, high = value.partition(":")
        return {"range": [_number(low), _number(high)]} if colon else _number(low)
    if option in ("-o", "-i") and value.endswith("+"):
        return value[:-1] + "*"
    return value.lower() if option in ("--ctstate", "--state", "--dst-type") else value


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        return -1
