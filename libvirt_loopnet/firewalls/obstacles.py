"""Tables of others in nft that would drop what our networks need, and what to do about it. Pure.

openings.py speaks to iptables and firewalld. A table written by hand or by a VPN's client belongs to
whoever wrote it: nothing is put into it, but ``loopnet doctor`` names the chain, the rule and a command.
Found by walking sample packets through the rules as ``nft -j`` lists them (libnftables-json(5)). What
isn't understood counts as not matching: better a drop that is missed than one that is made up.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Any, NamedTuple, Optional

from ..model import NATIVE, NONE, Network
from ..ruleset.tables import IPV6_TABLE, TABLES

Json = dict[str, Any]
Place = tuple[str, str, str]
"""Family, table and chain."""
_ANYWHERE = IPv4Address("9.9.9.9")
_CLIENT = 40000
_REPLY = "ct state established,related"


class Packet(NamedTuple):
    """A packet that has to pass."""

    what: str
    hooks: tuple[str, ...]
    """Where it can be told from others by ``match``."""
    match: str
    """nft's words for it and its like, and no more."""
    iif: str
    oif: str
    source: IPv4Address
    destination: IPv4Address
    protocol: str
    ports: tuple[int, int]
    """Source, destination."""
    state: str = "new"
    status: str = ""
    """What ct status has of it."""


class Obstacle(NamedTuple):
    """Something on the host that is in the way."""

    where: str
    """Family, table and chain."""
    rule: str
    breaks: tuple[str, ...]
    mend: tuple[str, ...]
    """Commands that put it right until the table is loaded anew."""


class Drop(NamedTuple):
    """A base chain drops packets."""

    place: Place
    handle: int
    """Of the rule that does, in this chain or one it leads to; 0: the policy."""
    packets: tuple[Packet, ...]

    def obstacle(self, rule: str) -> Obstacle:
        """``rule`` is the rule's text."""
        where = " ".join(self.place)
        matches = dict.fromkeys(packet.match for packet in self.packets)
        mend = tuple(f"nft insert rule {where} {match} accept" for match in matches)
        return Obstacle(where, rule, tuple(dict.fromkeys(packet.what for packet in self.packets)), mend)


def packets(
    networks: Iterable[Network], uplink: str, bridged: bool, published: Collection[str] = ()
) -> list[Packet]:
    """What must pass for ``networks``; ``uplink`` is the device of the default route, '' for none.

    ``bridged``: br_netfilter shows rules for IP what goes from guest to guest. ``published`` names the
    networks that have published ports.
    """
    found: list[Packet] = []
    for network in networks:
        found += [*_to_host(network), *_from_host(network)]
        found += _internet(network, uplink) if uplink and network.internet != NONE else ()
        found += [_among_guests(network)] if bridged else ()
        found += [_from_lan(network, uplink)] if uplink and network.name in published else ()
    return found


_NO_DHCP, _NO_DNS, _NO_PING = "guests get no DHCP", "guests get no DNS", "guests can't ping the gateway"
_NO_GUEST, _NO_INTERNET = "the host doesn't reach guests", "guests don't reach the internet"
_NOT_AMONG = "guests don't reach each other"
_NO_LAN = "the LAN doesn't reach published ports"
_NOBODY, _EVERYBODY = IPv4Address("0.0.0.0"), IPv4Address("255.255.255.255")


def _to_host(network: Network) -> Iterable[Packet]:
    hooks, bridge, transit = ("prerouting", "input"), network.bridge, network.transit_prefix
    guest, own = network.transit_address(_guest(network)), network.own_transit[-1]
    dhcp, by_guest = f'iifname "{bridge}" udp dport 67', f'iifname "{bridge}" ip saddr {transit}'
    dns = f"{by_guest} meta l4proto {{ tcp, udp }} th dport 53"
    yield Packet(_NO_DHCP, hooks, dhcp, bridge, "", _NOBODY, _EVERYBODY, "udp", (68, 67))
    yield Packet(_NO_DNS, hooks, dns, bridge, "", guest, own, "udp", (_CLIENT, 53))
    yield Packet(_NO_PING, hooks, f"{by_guest} meta l4proto icmp", bridge, "", guest, own, "icmp", (0, 0))
    guest, own = network.loop_address(_guest(network)), network.loop_address(network.host)
    if network.mode == NATIVE:  # it renews from there
        yield Packet(_NO_DHCP, hooks, dhcp, bridge, "", guest, own, "udp", (68, 67))
    # No ct state: in a chain ahead of conntrack it isn't known yet, and table ip loopnet looks at it.
    reply = f'iifname "{bridge}" ip saddr {network.loop_prefix}'
    ports = (22, _CLIENT)
    yield Packet(_NO_GUEST, hooks, reply, bridge, "", guest, own, "tcp", ports, "established")


def _from_host(network: Network) -> Iterable[Packet]:
    hooks, bridge = ("output", "postrouting"), network.bridge
    guest, own = network.loop_address(_guest(network)), network.loop_address(network.host)
    match = f'oifname "{bridge}" ip daddr {{ {network.loop_prefix}, {network.transit_prefix} }}'
    yield Packet(_NO_GUEST, hooks, match, "", bridge, own, guest, "tcp", (_CLIENT, 22))
    gateway, match = network.guest_address(network.gateway), f'oifname "{bridge}" udp sport 67'
    yield Packet(_NO_DHCP, hooks, match, "", bridge, gateway, _EVERYBODY, "udp", (67, 68))


def _internet(network: Network, uplink: str) -> Iterable[Packet]:
    bridge, transit = network.bridge, network.transit_prefix
    guest, all_hooks = network.transit_address(_guest(network)), ("prerouting", "forward", "postrouting")
    match, ports = f'iifname "{bridge}" ip saddr {transit}', (_CLIENT, 443)
    yield Packet(_NO_INTERNET, all_hooks, match, bridge, uplink, guest, _ANYWHERE, "tcp", ports)
    # In prerouting it is still on its way to the host, whose address the guest had borrowed.
    hooks, match, ports = all_hooks[1:], f'oifname "{bridge}" ip daddr {transit} {_REPLY}', (443, _CLIENT)
    yield Packet(_NO_INTERNET, hooks, match, uplink, bridge, _ANYWHERE, guest, "tcp", ports, "established")


def _among_guests(network: Network) -> Packet:
    hooks, bridge = ("prerouting", "forward"), network.bridge
    match, guest = f'iifname "{bridge}" ip saddr {network.guest_prefix}', _guest(network)
    here, there = network.guest_address(guest), network.guest_address(guest + 1)
    return Packet(_NOT_AMONG, hooks, match, bridge, bridge, here, there, "tcp", (_CLIENT, 22))


def _from_lan(network: Network, uplink: str) -> Packet:
    hooks, bridge, guest = (
        ("forward", "postrouting"),
        network.bridge,
        network.transit_address(_guest(network)),
    )
    match, ports = f'oifname "{bridge}" ct status dnat', (_CLIENT, 80)
    return Packet(_NO_LAN, hooks, match, uplink, bridge, _ANYWHERE, guest, "tcp", ports, status="dnat")


def _guest(network: Network) -> int:
    return next(n for n in network.guest_numbers if n not in (network.host, network.gateway))


def drops(ruleset: Sequence[Json], packets: Sequence[Packet], known: Iterable[Place]) -> list[Drop]:
    """Base chains that would drop some of ``packets``, but for ours and those ``known``.

    ``ruleset`` is the list that ``nft -j list ruleset`` prints.
    """
    rules = _Rules(ruleset)
    skipped = {*known}
    found: dict[tuple[Place, int], list[Packet]] = {}
    for place, chain in rules.base_chains():
        if place in skipped or place[:2] in (*TABLES, IPV6_TABLE):
            continue
        for packet in packets:
            handle = rules.dropping(place, chain, packet) if chain["hook"] in packet.hooks else None
            if handle is not None:
                found.setdefault((place, handle), []).append(packet)
    return [Drop(place, handle, tuple(hit)) for (place, handle), hit in found.items()]


# --- walking through rules -----------------------------------------------------------------------

_ACCEPT, _DROP, _RETURN = "accept", "drop", "return"


class _Rules:
    """Rules by chain, elements by set."""

    def __init__(self, ruleset: Sequence[Json]) -> None:
        self._chains: dict[Place, Json] = {}
        self._rules: dict[Place, list[Json]] = {}
        self._sets: dict[Place, list[Any]] = {}
        for kind, item in (pair for entry in ruleset for pair in entry.items()):
            if kind == "chain":
                self._chains[item["family"], item["table"], item["name"]] = item
            elif kind == "rule":
                place = item["family"], item["table"], item["chain"]
                self._rules.setdefault(place, []).append(item)
            elif kind in ("set", "map"):
                self._sets[item["family"], item["table"], item["name"]] = item.get("elem", [])

    def base_chains(self) -> Iterator[tuple[Place, Json]]:
        """Those that filter IPv4, bridges aside."""
        for place, chain in self._chains.items():
            if "hook" in chain and chain["type"] != "nat" and place[0] in ("ip", "inet"):
                yield place, chain

    def dropping(self, place: Place, chain: Json, packet: Packet) -> Optional[int]:
        """The handle of the rule that drops the packet, 0 for the policy, None if it passes."""
        verdict, handle = self._walk(place, packet, 0)
        if verdict == _DROP:
            return handle
        return 0 if verdict == _RETURN and chain.get("policy") == _DROP else None

    def _walk(self, place: Place, packet: Packet, depth: int) -> tuple[str, int]:
        for rule in self._rules.get(place, ()) if depth < 16 else ():  # NFT_JUMP_STACK_SIZE
            verdict, target = self._apply(rule["expr"], place, packet)
            if verdict in ("jump", "goto"):
                inner, handle = self._walk((*place[:2], target), packet, depth + 1)
                if inner != _RETURN or verdict == "goto":
                    return inner, handle
            elif verdict:
                return verdict, rule["handle"]
        return _RETURN, 0

    def _apply(self, statements: Sequence[Json], place: Place, packet: Packet) -> tuple[str, str]:
        """(verdict, target); ('', '') if the rule doesn't match or has none."""
        for statement in statements:
            (kind, value), *_ = statement.items()
            if kind == "match":
                if not self._matches(value, place, packet):
                    return "", ""
            elif kind == "vmap":
                return self._look_up(value, place, packet)
            elif kind in ("limit", "xt", "connlimit", "quota"):
                return "", ""
            else:
                verdict = _verdict(statement)
                if verdict[0]:
                    return verdict
        return "", ""

    def _look_up(self, vmap: Json, place: Place, packet: Packet) -> tuple[str, str]:
        value = _value(vmap["key"], packet)
        for key, verdict in self._elements(vmap["data"], place):
            if _is(value, self._elements(key, place)):
                return _verdict(verdict)
        return "", ""

    def _matches(self, match: Json, place: Place, packet: Packet) -> bool:
        value = _value(match["left"], packet)
        if value is None or match["op"] not in ("==", "!=", "in"):
            return False
        found = _is(value, self._elements(match["right"], place))
        return not found if match["op"] == "!=" else found

    def _elements(self, right: Any, place: Place) -> list[Any]:
        """A set's elements, whether it has a name or not; one value is a set as well."""
        if isinstance(right, str) and right.startswith("@"):
            return self._sets.get((*place[:2], right[1:]), [])
        if isinstance(right, dict) and "set" in right:
            right = right["set"]
        return right if isinstance(right, list) else [right]


def _verdict(statement: Json) -> tuple[str, str]:
    (kind, value), *_ = statement.items()
    if kind in ("jump", "goto"):
        return kind, value["target"]
    known = {"accept": _ACCEPT, "drop": _DROP, "reject": _DROP, "return": _RETURN, "queue": _ACCEPT}
    return known.get(kind, ""), ""


def _value(left: Json, packet: Packet) -> Any:
    """What the packet has there; None if that isn't known."""
    (kind, it), *_ = left.items() if isinstance(left, dict) else (("", {}),)
    if kind == "meta":
        return _META[it["key"]](packet) if it["key"] in _META else None
    if kind == "payload":
        return _payload(it.get("protocol"), it.get("field"), packet)
    if kind == "ct" and it["key"] in ("state", "status", "mark"):
        return {"state": packet.state, "status": packet.status, "mark": 0}[it["key"]]
    if kind == "fib" and it["result"] == "type" and it["flags"] == ["daddr"]:
        broadcast = packet.destination == IPv4Address("255.255.255.255")
        return "broadcast" if broadcast else "unicast" if packet.oif else "local"
    return None


_META: dict[str, Callable[[Packet], Any]] = {
    "iif": lambda packet: packet.iif,
    "iifname": lambda packet: packet.iif,
    "oif": lambda packet: packet.oif,
    "oifname": lambda packet: packet.oif,
    "l4proto": lambda packet: packet.protocol,
    "nfproto": lambda _: "ipv4",
    "protocol": lambda _: "ip",
    "mark": lambda _: 0,
}


def _payload(protocol: str, field: str, packet: Packet) -> Any:
    if protocol == "ip":
        fields = {"saddr": packet.source, "daddr": packet.destination, "protocol": packet.protocol}
        return fields.get(field)
    if protocol in (packet.protocol, "th"):
        return dict(zip(("sport", "dport"), packet.ports)).get(field)
    # Another protocol's header isn't there: no value, not even for '!='
    return None


def _is(value: Any, elements: Iterable[Any]) -> bool:
    return value is not None and any(_is_one(value, element) for element in elements)


def _is_one(value: Any, element: Any) -> bool:
    if isinstance(element, dict):
        (kind, it), *_ = element.items()
        if kind == "elem":
            return _is_one(value, it["val"])
        if kind == "prefix" and isinstance(value, IPv4Address):
            return ":" not in it["addr"] and value in IPv4Network((it["addr"], it["len"]))
        if kind == "range":
            return _is_between(value, *it)
        return False
    if isinstance(element, str) and element.endswith("*"):
        return str(value).startswith(element[:-1])
    return str(value) == str(element)


def _is_between(value: Any, low: Any, high: Any) -> bool:
    if isinstance(value, IPv4Address):
        return ":" not in str(low) and IPv4Address(low) <= value <= IPv4Address(high)
    return all(isinstance(it, int) for it in (value, low, high)) and low <= value <= high
