"""Walks packets through rules as ``nft -j`` lists them (libnftables-json(5)). Pure.

Two questions: what surely drops a packet, where what isn't understood counts as not matching; and what surely
lets one pass, where whatever may drop it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from ..records import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]
    Place = tuple[str, str, str]
    """Family, table and chain."""

OURS = "loopnet-"
"""So begin the names of chains that we put into tables of others."""
ACCEPT, DROP, RETURN = "accept", "drop", "return"
_JUMPS = ("jump", "goto")
_STRANGE = (LookupError, TypeError, ValueError, AttributeError)
"""What comes of JSON that no version of nft was seen to write; a network's start must not fail for it."""
_DROPPERS = ("REJECT", "DROP", "NFQUEUE", "TPROXY")
"""Targets of iptables that nft can't tell in its own words, and that end a packet's way."""


class Packet(NamedTuple):
    """A packet, with what is known of it."""

    what: str
    """What doesn't work when it is dropped."""
    hooks: tuple[str, ...]
    """Where it can be told from others by ``match``."""
    match: str
    """nft's words for it and its like, and no more."""
    iif: str
    oif: str
    source: IPv4Address | IPv6Address | None
    destination: IPv4Address | IPv6Address | None
    """None: any; as a destination, one on the internet that no rule singles out."""
    protocol: str
    ports: tuple[int, int]
    """Source, destination."""
    state: str = "new"
    status: str = ""
    """What ct status has of it."""
    six: bool = False
    """IPv6."""
    kind: str = ""
    """Type of its ICMPv6 message in nft's words, '' for others."""


class Fate(NamedTuple):
    """How a base chain drops a packet."""

    handle: int
    """Of the rule that does, in this chain or one it leads to; 0: the policy."""
    entry: int
    """Of the base chain's own rule by which that came; 0: the policy."""


def is_early(chain: Json) -> bool:
    """Does it see packets before conntrack does? To ``ct state`` all are invalid there (nft_ct_get_eval() in the
    kernel's nft_ct.c), and nothing else is known of their connections. Where both have the same priority it depends
    on which was there first."""
    return chain["hook"] in ("prerouting", "output") and chain.get("prio", 0) < _CONNTRACK


_CONNTRACK = -200
"""NF_IP_PRI_CONNTRACK and NF_IP6_PRI_CONNTRACK in linux/netfilter_ipv4.h and linux/netfilter_ipv6.h."""
_INVALID = "invalid"


class Rules:
    """Rules by chain, elements by set."""

    def __init__(self, ruleset: Sequence[Json], *, without_ours: bool = False) -> None:
        self._chains: dict[Place, Json] = {}
        self._rules: dict[Place, list[Json]] = {}
        self._sets: dict[Place, list[Any]] = {}
        for kind, item in (pair for entry in ruleset for pair in entry.items()):
            if kind == "chain":
                self._chains[item["family"], item["table"], item["name"]] = item
            elif kind == "rule" and not (without_ours and target(item).startswith(OURS)):
                place = item["family"], item["table"], item["chain"]
                self._rules.setdefault(place, []).append(item)
            elif kind in ("set", "map"):
                self._sets[item["family"], item["table"], item["name"]] = item.get("elem", [])

    def base_chains(self, six: bool) -> Iterator[tuple[Place, Json]]:
        """Those that filter IPv4, or IPv6, bridges aside."""
        for place, chain in self._chains.items():
            if "hook" in chain and chain["type"] != "nat" and place[0] in ("inet", "ip6" if six else "ip"):
                yield place, chain

    def handles(self, place: Place) -> list[int]:
        """Of a chain's rules, in order."""
        return [rule["handle"] for rule in self._rules.get(place, ())]

    def devices(self) -> set[str]:
        """Names and patterns of devices that rules tell outgoing packets by."""
        names: set[str] = set()
        for place, rules in self._rules.items():
            for statement in (statement for rule in rules for statement in rule["expr"]):
                with suppress(*_STRANGE):
                    names |= self._devices(statement["match"], place)
        return names

    def _devices(self, match: Json, place: Place) -> set[str]:
        if match["left"] not in ({"meta": {"key": "oif"}}, {"meta": {"key": "oifname"}}):
            return set()
        elements = [
            element["elem"].get("val") if isinstance(element, dict) else element
            for element in self._elements(match["right"], place)
        ]
        return {
            element for element in elements if isinstance(element, str)
        }  # a number: a device that is gone

    # --- what surely drops -------------------------------------------------------------------

    def dropping(self, place: Place, chain: Json, packet: Packet) -> Fate | None:
        """What drops the packet; None if it passes, or nothing can be told."""
        try:
            verdict, handle, entry = self._walk(place, _as_seen(chain, packet), 0)
        except _STRANGE:
            return None
        if verdict == DROP:
            return Fate(handle, entry)
        return Fate(0, 0) if verdict == RETURN and chain.get("policy") == DROP else None

    def _walk(self, place: Place, packet: Packet, depth: int) -> tuple[str, int, int]:
        """(verdict, handle of the rule that has it, handle of this chain's rule that leads there)."""
        for rule in self._rules.get(place, ()) if depth < 16 else ():  # NFT_JUMP_STACK_SIZE
            for sure, verdict, where in self._verdicts(rule["expr"], place, packet):
                if not sure:
                    continue
                if verdict in _JUMPS:
                    inner, handle, _ = self._walk((*place[:2], where), packet, depth + 1)
                    if inner != RETURN or verdict == "goto":
                        return inner, handle, rule["handle"]
                else:
                    return verdict, rule["handle"], rule["handle"]
        return RETURN, 0, 0

    # --- what surely passes ------------------------------------------------------------------

    def passes(self, place: Place, chain: Json, packet: Packet) -> bool:
        """Does the base chain surely let every packet of this kind pass?"""
        try:
            verdict = self._certain(place, _as_seen(chain, packet), 0)
        except _STRANGE:
            return False
        return verdict == ACCEPT or (verdict == RETURN and chain.get("policy") != DROP)

    def _certain(self, place: Place, packet: Packet, depth: int) -> str:
        """DROP if any may be dropped, ACCEPT if none is and none gets to this chain's end."""
        left = False
        if depth == 16:
            return DROP
        for rule in self._rules.get(place, ()):
            for sure, verdict, where in self._verdicts(rule["expr"], place, packet):
                inner = (
                    self._certain((*place[:2], where), packet, depth + 1) if verdict in _JUMPS else verdict
                )
                if inner in (DROP, "queue"):
                    return DROP
                ends = inner == ACCEPT or verdict in ("goto", RETURN)
                if sure and ends:
                    return RETURN if left else inner
                left = left or (ends and inner == RETURN)
        return RETURN

    # --- one rule ----------------------------------------------------------------------------

    def _verdicts(
        self, statements: Sequence[Json], place: Place, packet: Packet
    ) -> Iterator[tuple[bool, str, str]]:
        """(whether it surely comes to it, verdict, target); nothing if the rule doesn't match or has none."""
        sure = True
        for statement in statements:
            (kind, value), *_ = statement.items()
            if kind == "match":
                matches = self._matches(value, place, packet)
                if matches is False:
                    return
                sure = sure and bool(matches)
            elif kind == "vmap":
                yield from self._look_up(value, place, packet, sure)
                return
            elif kind == "xt" and value and value.get("name") in _DROPPERS:
                yield False, DROP, ""
            elif kind in ("limit", "xt", "connlimit", "quota"):
                sure = False
            else:
                verdict, where = _verdict(statement)
                if verdict:
                    yield sure, verdict, where
                    return

    def _look_up(
        self, vmap: Json, place: Place, packet: Packet, sure: bool
    ) -> Iterator[tuple[bool, str, str]]:
        value = _value(vmap["key"], packet)
        for key, verdict in self._elements(vmap["data"], place):
            found = _is(value, self._elements(key, place))
            if found is not False:
                yield (sure and bool(found), *_verdict(verdict))

    def _matches(self, match: Json, place: Place, packet: Packet) -> bool | None:
        """None: can't be told."""
        value = _value(match["left"], packet)
        if value is _ABSENT:
            return False
        if match["op"] not in ("==", "!=", "in"):
            return None
        found = _is(value, self._elements(match["right"], place))
        return not found if match["op"] == "!=" and found is not None else found

    def _elements(self, right: Any, place: Place) -> list[Any]:
        """A set's elements, whether it has a name or not; one value is a set as well."""
        if isinstance(right, str) and right.startswith("@"):
            return self._sets.get((*place[:2], right[1:]), [])
        if isinstance(right, dict) and "set" in right:
            right = right["set"]
        return right if isinstance(right, list) else [right]


def _as_seen(chain: Json, packet: Packet) -> Packet:
    return packet._replace(state=_INVALID) if is_early(chain) else packet


def target(rule: Json) -> str:
    """The chain that a rule leads to; '' if none."""
    with suppress(*_STRANGE):
        (kind, value), *_ = rule["expr"][-1].items()
        return str(value["target"]) if kind in _JUMPS else ""
    return ""


def _verdict(statement: Json) -> tuple[str, str]:
    (kind, value), *_ = statement.items()
    if kind in _JUMPS:
        return kind, value["target"]
    known = {"accept": ACCEPT, "drop": DROP, "reject": DROP, "return": RETURN, "queue": "queue"}
    return known.get(kind, ""), ""


_ABSENT = object()
"""Another protocol's header, or a connection, isn't there: no value, not even for '!='."""


_PUBLIC, _PUBLIC6 = object(), object()
"""An address on the internet that no rule singles out."""
_BROAD = 2**24
"""A range of more addresses singles out none."""


def _value(left: Json, packet: Packet) -> Any:
    """What the packet has there; None if that isn't known."""
    (kind, it), *_ = left.items() if isinstance(left, dict) else (("", {}),)
    if kind == "meta":
        return _META[it["key"]](packet) if it["key"] in _META else None
    if kind == "payload":
        return _payload(it.get("protocol"), it.get("field"), packet)
    if kind == "ct" and packet.state == _INVALID and it["key"] != "state":
        return _ABSENT
    if kind == "ct" and it["key"] in ("state", "status", "mark"):
        return {"state": packet.state, "status": packet.status, "mark": 0}[it["key"]]
    if kind == "fib" and it["result"] == "type" and it["flags"] == ["daddr"]:
        return _type(packet)
    return None


def _type(packet: Packet) -> str:
    """Of the address that it goes to."""
    if packet.destination == IPv4Address("255.255.255.255"):
        return "broadcast"
    if packet.destination and packet.destination.is_multicast:
        return "multicast"
    return "unicast" if packet.oif else "local"


_META: dict[str, Callable[[Packet], Any]] = {
    "iif": lambda packet: packet.iif,
    "iifname": lambda packet: packet.iif,
    "oif": lambda packet: packet.oif,
    "oifname": lambda packet: packet.oif,
    "l4proto": lambda packet: packet.protocol,
    "nfproto": lambda packet: "ipv6" if packet.six else "ipv4",
    "protocol": lambda packet: "ip6" if packet.six else "ip",
    "mark": lambda _: 0,
}


def _payload(protocol: str, field: str, packet: Packet) -> Any:
    if protocol == ("ip6" if packet.six else "ip"):
        public = _PUBLIC6 if packet.six else _PUBLIC
        there = public if packet.destination is None else packet.destination
        fields = {"saddr": packet.source, "daddr": there}
        return fields.get(field, packet.protocol if field in ("protocol", "nexthdr") else None)
    if protocol == "icmpv6" and packet.protocol == ICMPV6:
        return {"type": packet.kind or None, "code": _CODE}.get(field)
    if protocol in (packet.protocol, "th"):
        return dict(zip(("sport", "dport"), packet.ports)).get(field)
    return _ABSENT if protocol else None


ICMPV6 = "ipv6-icmp"
_CODE = "no-route"
"""nft's word for code 0, whatever the type."""


def _is(value: Any, elements: Iterable[Any]) -> bool | None:
    if value is None or value is _ABSENT:
        return None
    found = [_is_one(value, element) for element in elements]
    return True if True in found else None if None in found else False


def _is_one(value: Any, element: Any) -> bool | None:
    if value in (_PUBLIC, _PUBLIC6):
        return _may_be_public(element, value is _PUBLIC6)
    if isinstance(element, dict):
        (kind, it), *_ = element.items()
        if kind == "elem":
            return _is_one(value, it["val"])
        if kind == "prefix" and _is_address(value):
            return value in ip_network(f"{it['addr']}/{it['len']}")
        return _is_between(value, *it) if kind == "range" else None
    return _is_named(str(value), str(element))


def _is_address(value: Any) -> bool:
    return isinstance(value, (IPv4Address, IPv6Address))


def _may_be_public(element: Any, six: bool) -> bool | None:
    """Is an address of the internet, which no rule singles out, among these? None: can't be told."""
    if not isinstance(element, dict):
        return False
    (kind, it), *_ = element.items()
    if kind == "elem":
        return _may_be_public(it["val"], six)
    if kind not in ("prefix", "range"):
        return None
    low, high = (it["addr"], "") if kind == "prefix" else map(str, it)
    if (":" in low) != six:
        return False
    if kind == "prefix":
        singled_out = it["len"] >= (_SINGLED6 if six else _SINGLED) or low in _APART
        return True if it["len"] == 0 else False if singled_out else None
    broad = _BROAD << 80 if six else _BROAD
    return None if int(ip_address(high)) - int(ip_address(low)) > broad else False


_SINGLED, _SINGLED6 = 8, 24
"""Shorter prefixes single out no address; half of IPv6's internet is 2000::/4."""
_APART = (
    "224.0.0.0",
    "240.0.0.0",
    "fc00::",
    "fd00::",
    "fe80::",
    "fec0::",
    "ff00::",
    "ff01::",
    "ff02::",
    "ff05::",
)
"""Multicast, what is reserved, and what is somebody's own."""


def _is_named(value: str, element: str) -> bool | None:
    """Patterns of devices' names end in '*'; ``value`` may be one as well, and stands for all of these."""
    if element.endswith("*") and value.rstrip("*").startswith(element[:-1]):
        return True
    if value.endswith("*") and element.startswith(value[:-1]) and element != value:
        return None
    return value == element


def _is_between(value: Any, low: Any, high: Any) -> bool:
    if _is_address(value):
        first, last = ip_address(low), ip_address(high)
        return bool(value.version == first.version == last.version and first <= value <= last)
    return all(isinstance(it, int) for it in (value, low, high)) and low <= value <= high
