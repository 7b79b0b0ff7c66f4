"""Tables of others in nft that the user trusts us to open: ``open-firewalls`` in the configuration. Pure.

A drop ends a packet's way whatever other tables say (nft(8), VERDICT STATEMENTS), so the accepts have to stand in
their chains. Ours is a chain of its own beside each of theirs that would drop what guests and host need of each
other, entered by one jump; nothing of theirs is changed, and ours goes with the network, with the setting, or with
the table, which a VPN's client makes anew at each connection.

What stays on the host is let pass before all else. What leaves it is let out by the devices only by which the
host's own traffic may leave (ways.py), and not before all of their own rules have had their say. For IPv6 it is one
more chain, as another rule may drop that, and other devices let it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from zlib import crc32

from ..model import Network
from ..records import NamedTuple
from . import needs_ipv4, needs_ipv6
from .obstacles import Drop, drops
from .walk import OURS, Packet, Rules, target
from .ways import ELSEWHERE, Ways, of_iptables, ways

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .openings import Firewalls
    from .walk import Json, Place

SIX = "6-"
"""Follows in the names of those for IPv6: no chain of theirs that nft could be told of begins with a digit."""
_MAX_CHAIN = 256 - len(OURS + SIX)
"""NFT_CHAIN_MAXNAMELEN in linux/netfilter/nf_tables.h."""


class Table(NamedTuple):
    """A table of somebody else, as it is now."""

    family: str
    name: str
    ruleset: tuple[Json, ...]
    """As ``nft -j list table`` has it."""
    owned: bool = False
    """It belongs to a running program, and the kernel lets nobody else change it (NFT_TABLE_F_OWNER in
    linux/netfilter/nf_tables.h)."""

    def __str__(self) -> str:
        return f"{self.family} {self.name}"


def ways_out(
    tables: Iterable[Table],
    iptables: Iterable[tuple[str, str]],
    networks: Iterable[Network],
    *,
    six: bool = False,
) -> Ways:
    """By which devices all of these together let the host's own traffic out, of IPv4 or of IPv6; ``iptables`` is
    ip6tables then."""
    filters = [*(Rules(table.ruleset, without_ours=True) for table in tables)]
    filters += [of_iptables(saved, six=six) for _, saved in iptables]
    return ways(filters, [network.bridge for network in networks], six=six)


def needed(observed: Firewalls, networks: Sequence[Network], ways: Ways, ways6: Ways) -> list[Packet]:
    """What has to pass tables that are opened for ``networks``."""
    return [
        *needs_ipv4.packets(networks, observed.uplink or ELSEWHERE, observed.bridged, (), ways),
        *needs_ipv6.packets(networks, observed.uplink6 or ELSEWHERE, observed.bridged6, (), ways6),
    ]


def script(table: Table, needed: Sequence[Packet]) -> str:
    """What brings ``table`` to let pass what is ``needed``, as input for ``nft -f``; '' when it does so already
    or can't be changed. Where nothing is, all of ours goes."""
    if table.owned:
        return ""
    rules = Rules(table.ruleset, without_ours=True)
    wanted = {it.own: it for it in _openings(rules, drops(rules, needed))}
    present = _Present(table)
    lines: list[str] = []
    for own in sorted({*wanted, *present.chains}):
        opening = wanted.get(own)
        if opening is None or not present.holds(opening):
            lines += present.removal(own, keep=opening is not None)
            lines += opening.lines(str(table)) if opening else ()
    return "".join(f"{line}\n" for line in lines)


class _Opening(NamedTuple):
    """What a base chain of theirs has to let pass."""

    base: str
    own: str
    """The chain of ours beside it."""
    matches: tuple[str, ...]
    insert: str
    """nft's words for where."""
    entry: int
    """The handle of the first rule that drops any of it; 0: the policy."""
    late: bool
    """Right before that rule, not before all."""

    @property
    def mark(self) -> str:
        """The jump's comment tells what the chain was made for: nft lists rules in words of its own."""
        return f"loopnet {crc32(repr(self).encode()):08x}"

    def lines(self, table: str) -> list[str]:
        return [
            f"add chain {table} {self.own}",
            *(f"add rule {table} {self.own} {match} accept" for match in self.matches),
            f'{self.insert} jump {self.own} comment "{self.mark}"',
        ]


def _openings(rules: Rules, found: Iterable[Drop]) -> Iterable[_Opening]:
    by_place: dict[tuple[Place, bool], list[Drop]] = {}
    for drop in found:
        if drop.matches and _is_identifier(drop.place[2]):
            by_place.setdefault((drop.place, drop.six), []).append(drop)
    for (place, six), same in by_place.items():
        order = [*rules.handles(place), 0]
        first = min(same, key=lambda drop: order.index(drop.entry))
        matches = tuple(dict.fromkeys(match for drop in same for match in drop.matches))
        own = OURS + (SIX if six else "") + place[2]
        yield _Opening(place[2], own, matches, first.insert, first.entry, first.late)


class _Present:
    """What is ours in a table."""

    def __init__(self, table: Table) -> None:
        self._table = str(table)
        self._rules = Rules(table.ruleset)
        self._place = (table.family, table.name)
        chains = [entry["chain"]["name"] for entry in table.ruleset if "chain" in entry]
        self.chains = {name for name in chains if name.startswith(OURS)}
        """Though those that they stand beside be gone."""
        rules = [entry["rule"] for entry in table.ruleset if "rule" in entry]
        self._jumps = [rule for rule in rules if target(rule).startswith(OURS)]

    def holds(self, opening: _Opening) -> bool:
        """Is it as it should be, and at the right place?"""
        jumps = [rule for rule in self._jumps if target(rule) == opening.own]
        if [(rule["chain"], rule.get("comment")) for rule in jumps] != [(opening.base, opening.mark)]:
            return False
        if len(self._rules.handles((*self._place, opening.own))) != len(opening.matches):
            return False
        here = jumps[0]["handle"]
        others = {rule["handle"] for rule in self._jumps} - {here}  # that for the other family
        handles = [each for each in self._rules.handles((*self._place, opening.base)) if each not in others]
        before = handles.index(here)
        drops_at = handles.index(opening.entry) if opening.entry else len(handles)
        return drops_at == before + 1 if opening.late else before < drops_at

    def removal(self, own: str, keep: bool) -> list[str]:
        """Deletes jumps by handle, then the chain, or with ``keep`` what is in it."""
        if own not in self.chains:
            return []
        jumps = [rule for rule in self._jumps if target(rule) == own]
        lines = [f"delete rule {self._table} {rule['chain']} handle {rule['handle']}" for rule in jumps]
        flush = f"flush chain {self._table} {own}"
        return [*lines, flush, *(() if keep else (f"delete chain {self._table} {own}",))]


def _is_identifier(name: str) -> bool:
    """Can nft be given the chain's name? (its scanner.l); by netlink it can be anything."""
    plain = name.translate(dict.fromkeys(map(ord, "_-./"), "a"))
    return (
        name.isascii()
        and plain.isalnum()
        and (name[0].isalpha() or name[0] == "_")
        and len(name) < _MAX_CHAIN
    )
