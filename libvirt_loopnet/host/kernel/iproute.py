"""Addresses, routes and permanent neighbours, as ``ip -oneline`` says them (iproute2's ipaddress.c, iproute.c,
ipneigh.c).

One run of ip for all, and not as JSON, which takes longer to import than ip takes to answer::

    1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever preferred_lft forever
    2: virbr1    inet 10.0.0.1 peer 10.0.0.2/32 scope global noprefixroute virbr1\\       valid_lft …
    local 127.0.0.0/8 dev lo proto kernel scope host src 127.0.0.1
    127.1.0.0/24 dev virbr1 proto 127 scope link src 127.1.0.254
    247.1.0.2 dev virbr1 lladdr 52:54:00:b0:00:01 PERMANENT
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from ... import process
from ...errors import HostError
from ...planning.state import ROUTE_PROTOCOL, Address, LoAddress, Neighbour, Route
from ...prefixes import TRANSIT
from ...records import NamedTuple

_QUESTIONS = b"address show\nroute show table local\nneighbour show nud permanent\n"
_TYPES = (
    "local", "broadcast", "anycast", "multicast",
    "blackhole", "unreachable", "prohibit", "throw", "nat",
)  # fmt: skip
"""Types of routes (rtnl_rtntype_n2a); a unicast route is told without."""


class Seen(NamedTuple):
    """As in state.Observed."""

    lo: tuple[LoAddress, ...]
    addresses: frozenset[Address]
    routes: frozenset[Route]
    neighbours: frozenset[Neighbour]


def look() -> Seen:
    """All IPv4 addresses, the routes of table local, and our permanent neighbours. Raises HostError."""
    result = process.run(["ip", "-4", "-oneline", "-batch", "-"], _QUESTIONS)
    text = result.stdout.decode(errors="replace")
    if result.status:
        raise HostError(f"ip can't read addresses and routes: {result.complaint}")
    # A backslash stands for the end of a line: lifetimes, or nexthops of a multipath route, follow.
    lines = [line.partition("\\")[0].split() for line in text.splitlines() if line]
    addresses = [words for words in lines if words[0].endswith(":")]
    neighbours = [words for words in lines if words[-1] == "PERMANENT"]
    routes = [words for words in lines if not words[0].endswith(":") and words[-1] != "PERMANENT"]
    try:
        return Seen(
            lo=tuple(_lo(words) for words in addresses if words[1] == "lo"),
            addresses=frozenset(_address(words) for words in addresses if words[1] != "lo"),
            routes=frozenset(route for route in map(_route, routes) if route),
            neighbours=frozenset(n for n in map(_neighbour, neighbours) if n.address in TRANSIT),
        )
    except (ValueError, LookupError) as error:
        raise HostError(f"ip's answer makes no sense ({error}); see: ip -4 -oneline address") from None


def _lo(words: list[str]) -> LoAddress:
    after = _after(words[4:])
    if words[-1].startswith("lo:"):
        after["label"] = words[-1]
    attributes = [f"{key} {after[key]}" for key in ("scope", "brd", "label", "proto") if key in after]
    return LoAddress(*_prefix(words), " ".join(attributes))


def _address(words: list[str]) -> Address:
    return Address(words[1], *_prefix(words), "noprefixroute" in words[4:])


def _prefix(words: list[str]) -> tuple[IPv4Address, int]:
    address, _, length = words[3].partition("/")
    if words[4] == "peer":
        length = words[5].partition("/")[2]
    return IPv4Address(address), int(length)


def _route(words: list[str]) -> Route | None:
    """None for a route without a device: several nexthops, or none at all."""
    kind, destination, *rest = words if words[0] in _TYPES else ("unicast", *words)
    after = _after(rest)
    if "dev" not in after:
        return None
    return Route(
        kind,
        IPv4Network("0.0.0.0/0" if destination == "default" else destination),
        after["dev"],
        IPv4Address(after["src"]) if "src" in after else None,
        ours=after.get("proto") == str(ROUTE_PROTOCOL),
        metric=int(after.get("metric", 0)),
    )


def _neighbour(words: list[str]) -> Neighbour:
    after = _after(words[1:])
    return Neighbour(after["dev"], IPv4Address(words[0]), after.get("lladdr", ""))


def _after(words: list[str]) -> dict[str, str]:
    """Each word and the one that follows it."""
    return dict(zip(words, words[1:]))
