"""Tables of others in nft that the user trusts us to open: ``open-firewalls`` in the configuration. Pure.

A drop ends a packet's way whatever other tables say (nft(8), VERDICT STATEMENTS), so the accepts have to stand in
their chains. Ours is a chain of its own beside each of theirs that would drop what guests and host need of each
other, entered by one jump; nothing of theirs is changed, and ours goes with the network, with the setting, or with
the table, which a VPN's client makes anew at each connection.

What stays on the host is let pass before all else. What leaves it is let out by the devices only by which the
host's own traffic may leave (ways.py), and not before all of their own rules have had their say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from zlib import crc32

from ..model import Network
from ..records import NamedTuple
from .obstacles import Drop, drops, packets
from .walk import OURS, Rules, target
from .ways import ELSEWHERE, Ways, of_iptables, ways

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .walk import Json, Place

_MAX_CHAIN = 256 - len(OURS)
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
    tables: Iterable[Table], iptables: Iterable[tuple[str, str]], networks: Iterable[Network]
) -> Ways:
    """By which devices all of these together let the host's own traffic out."""
    filters = [*(Rules(table.ruleset, without_ours=True) for table in tables)]
    filters += [of_iptables(saved) for _, saved in iptables]
    return ways(filters, [network.bridge for network in networks])


def script(table: Table, networks: Sequence[Network], uplink: str, bridged: bool, ways: Ways) -> str:
    """What brings ``table`` to let pass what ``networks`` need, as input for ``nft -f``; '' when it does so already
    or can't be changed. Without networks all of ours goes.

    ``uplink`` and ``bridged`` as in packets().
    """
    if table.owned:
        return ""
    rules = Rules(table.ruleset, without_ours=True)
    needed = packets(networks, uplink or ELSEWHERE, bridged, (), ways)
    wanted = {it.base: it for it in _openings(rules, drops(rules, needed))}
    present = _Present(table)
    lines: list[str] = []
    for base in sorted({*wanted, *present.bases}):
        opening = wanted.get(base)
        if opening is None or not present.holds(opening):
            lines += present.removal(base, keep=opening is not None)
            lines += opening.lines(str(table)) if opening else ()
    return "".join(f"{line}\n" for line in lines)


class _Opening(NamedTuple):
    """What a base chain of theirs has to let pass."""

    base: str
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
        own = OURS + self.base
        return [
            f"add chain {table} {own}",
            *(f"add rule {table} {own} {match} accept" for match in self.matches),
            f'{self.insert} jump {own} comment "{self.mark}"',
        ]


def _openings(rules: Rules, found: Iterable[Drop]) -> Iterable[_Opening]:
    by_place: dict[Place, list[Drop]] = {}
    for drop in found:
        if _is_identifier(drop.place[2]):
            by_place.setdefault(drop.place, []).append(drop)
    for place, same in by_place.items():
        order = [*rules.handles(place), 0]
        first = min(same, key=lambda drop: order.index(drop.entry))
        matches = tuple(dict.fromkeys(match for drop in same for match in drop.matches))
        yield _Opening(place[2], matches, first.insert, first.entry, first.late)


class _Present:
    """What is ours in a table."""

    def __init__(self, table: Table) -> None:
        self._table = str(table)
        self._rules = Rules(table.ruleset)
        self._place = (table.family, table.name)
        chains = [entry["chain"]["name"] for entry in table.ruleset if "chain" in entry]
        self._chains = {name for name in chains if name.startswith(OURS)}
        rules = [entry["rule"] for entry in table.ruleset if "rule" in entry]
        self._jumps = [rule for rule in rules if target(rule).startswith(OURS)]

    @property
    def bases(self) -> set[str]:
        """Base chains that have something of ours, though they be gone."""
        return {name[len(OURS) :] for name in self._chains}

    def holds(self, opening: _Opening) -> bool:
        """Is it as it should be, and at the right place?"""
        own = OURS + opening.base
        jumps = [rule for rule in self._jumps if target(rule) == own]
        handles = self._rules.handles((*self._place, opening.base))
        if [(rule["chain"], rule.get("comment")) for rule in jumps] != [(opening.base, opening.mark)]:
            return False
        if len(self._rules.handles((*self._place, own))) != len(opening.matches):
            return False
        before = handles.index(jumps[0]["handle"])
        drops_at = handles.index(opening.entry) if opening.entry else len(handles)
        return drops_at == before + 1 if opening.late else before < drops_at

    def removal(self, base: str, keep: bool) -> list[str]:
        """Deletes jumps by handle, then the chain, or with ``keep`` what is in it."""
        own = OURS + base
        if own not in self._chains:
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
