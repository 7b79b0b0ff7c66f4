"""lo from 127.0.0.1/8 to /16 and back, without a moment in which 127.0.0.1 is not there. Pure.

Bare, the change would let what no network claims leave by the default route, and break software that
uses 127.x beyond /16. So ``local 127.0.0.0/8 dev lo`` is added first. That route's metric is also the only
record of what to do at the end: whether it was us who made lo narrow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..model import LOCALHOST
from ..prefixes import LOOPBACK
from .state import ROUTE_PROTOCOL, LoAddress, Route

WIDE, NARROW = 8, 16
SHRUNK = Route("local", LOOPBACK, "lo", LOCALHOST, ours=True, metric=127)
"""The fallback route when lo was made narrow by us."""
FOUND = SHRUNK._replace(metric=126)
"""The fallback route when an administrator's lo was not 127.0.0.1/8 in the first place."""


def plan_lo(lo: Sequence[LoAddress], routes: Iterable[Route], shrink: bool, active: bool) -> list[str]:
    """The ``ip`` lines that bring lo to the wanted width; none when it is there.

    ``active`` says that something else of ours is on the host: then a narrow lo is our work, even if
    the route that tells so was lost (lo down and up takes it, for one).
    """
    ours = {route for route in routes if route.ours}
    lengths = {entry.length for entry in lo if entry.address == LOCALHOST}
    if shrink:
        return _shrink(lo, ours, lengths, active)
    restore = SHRUNK in ours and WIDE not in lengths and bool(lengths)
    remove = [_route("del", route) for route in (SHRUNK, FOUND) if route in ours]
    # A /8 that somebody else brought back is as it should be; ours beside it goes.
    extra = SHRUNK in ours and {WIDE, NARROW} <= lengths
    return [*(_resize(lo, NARROW, WIDE) if restore or extra else []), *remove]


def _shrink(lo: Sequence[LoAddress], ours: set[Route], lengths: set[int], active: bool) -> list[str]:
    if WIDE in lengths:
        add = [] if SHRUNK in ours else [_route("add", SHRUNK)]
        stale = [_route("del", FOUND)] if FOUND in ours else []
        return [*add, *stale, *_resize(lo, WIDE, NARROW)]
    if {SHRUNK, FOUND} & ours:
        return []
    return [_route("add", SHRUNK if active and NARROW in lengths else FOUND)]


def _resize(lo: Sequence[LoAddress], old: int, new: int) -> list[str]:
    """Replace the length of 127.0.0.1; add before delete."""
    mine = LoAddress(LOCALHOST, old)
    before = [entry for entry in lo if entry.address in LOOPBACK]
    after = [e._replace(length=new) if e[:2] == mine[:2] else e for e in before]
    if len({e[:2] for e in after}) < len(after):  # both lengths were there
        return [_line("del", mine)]
    if len(before) == 1:
        return [_line("add", after[0]), _line("del", mine)]
    # The kernel deletes secondaries with their primary (unless promote_secondaries), so all go and
    # come back in their order. A /32 is nobody's secondary and keeps 127.0.0.1; for the others the
    # fallback route answers meanwhile.
    keep = LoAddress(LOCALHOST, 32)
    return [
        _line("add", keep),
        *(_line("del", entry) for entry in reversed(before)),
        *(_line("add", entry) for entry in after),
        _line("del", keep),
    ]


def _line(verb: str, entry: LoAddress) -> str:
    attributes = f" {entry.attributes}" if verb == "add" and entry.attributes else ""
    return f"address {verb} {entry.address}/{entry.length} dev lo{attributes}"


def _route(verb: str, route: Route) -> str:
    options = f"proto {ROUTE_PROTOCOL} scope host src {route.source} metric {route.metric}"
    return f"route {verb} {route.kind} {route.prefix} dev {route.dev} table local {options}"
