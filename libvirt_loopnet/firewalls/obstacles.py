"""Tables of others in nft that would drop what our networks need, and what to do about it. Pure.

openings.py speaks to iptables and firewalld. A table written by hand or by a VPN's client belongs to
whoever wrote it: nothing is put into it unless the user says so (opened_tables.py), but ``loopnet doctor`` names the
chain, the rule and a command. Found by walking sample packets through the rules. What isn't understood counts
as not matching: better a drop that is missed than one that is made up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..records import NamedTuple
from ..ruleset.tables import ALL_TABLES
from .needs import REPLY
from .walk import Fate, Packet, Rules, is_early
from .ways import EVERYWHERE, Ways

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .walk import Json, Place


class Obstacle(NamedTuple):
    """Something on the host that is in the way."""

    where: str
    """Family, table and chain."""
    rule: str
    breaks: tuple[str, ...]
    mend: tuple[str, ...]
    """Commands that put it right until the table is loaded anew; they open no more than ``ways`` do. None where the
    chain runs too early to tell answers from new connections."""
    table: str = ""
    """Family and table, if the user may name it in ``open-firewalls``."""


class Foreign(NamedTuple):
    """What tables of others do to our networks."""

    obstacles: tuple[Obstacle, ...] = ()
    ways: Ways = EVERYWHERE
    """By which devices guests' traffic may leave at most, since the host's own does by no others."""
    tables: frozenset[str] = frozenset()
    """All there are, each as family and name."""
    owned: frozenset[str] = frozenset()
    """Those in the way that nobody may change but the program that they belong to."""
    around: str = ""
    """The device by which guests get out though the host's own traffic does not; '' for none."""
    unread: frozenset[str] = frozenset()
    """Tables whose rules nft can't tell."""
    ways6: Ways = EVERYWHERE
    """As ``ways``, of IPv6, where guests and host have a way out."""
    around6: str = ""
    """As ``around``."""


class Drop(NamedTuple):
    """A base chain drops packets."""

    place: Place
    handle: int
    """Of the rule that does, in this chain or one it leads to; 0: the policy."""
    packets: tuple[Packet, ...]
    hook: str
    entry: int
    """The handle of the chain's own rule that leads there; 0: the policy."""
    six: bool = False
    """These are of IPv6."""
    early: bool = False
    """The chain sees packets before conntrack."""

    @property
    def late(self) -> bool:
        """Does an accept have to come right before what drops? What leaves the host is for all rules to judge,
        what stays on it is between guests and us."""
        return self.hook in ("forward", "postrouting")

    @property
    def insert(self) -> str:
        """nft's words for where an accept goes."""
        where = " ".join(self.place)
        if not self.late:
            return f"insert rule {where}"
        return f"insert rule {where} handle {self.entry}" if self.entry else f"add rule {where}"

    @property
    def matches(self) -> list[str]:
        """nft's words for all that an accept can tell from others there."""
        told = (packet.match for packet in self.packets if not (self.early and REPLY in packet.match))
        return [*dict.fromkeys(told)]

    def obstacle(self, rule: str) -> Obstacle:
        """``rule`` is the rule's text."""
        where = " ".join(self.place)
        mend = tuple(f"nft {self.insert} {match} accept" for match in self.matches)
        family = " by IPv6" if self.six else ""
        breaks = tuple(dict.fromkeys(f"{packet.what}{family}" for packet in self.packets))
        return Obstacle(where, rule, breaks, mend, " ".join(self.place[:2]))


def around(filters: Iterable[Rules], outs: Sequence[Packet], uplink: str, ways: Ways) -> str:
    """``uplink``, if it is a way for ``outs``, what guests send by it, while ``ways`` keep the host's own traffic from
    it: whoever wrote these rules had no guests in mind."""
    return uplink if uplink and not ways.lets_out(uplink) and _is_any_let_out(filters, outs) else ""


def _is_any_let_out(filters: Iterable[Rules], outs: Sequence[Packet]) -> bool:
    """Is there a packet among ``outs`` that no base chain is known to drop?"""
    by_family = {
        six: [
            (rules, place, chain)
            for rules in filters
            for place, chain in rules.base_chains(six)
            if place[:2] not in ALL_TABLES
        ]
        for six in {out.six for out in outs}
    }
    return any(
        not any(
            c["hook"] in out.hooks and rules.dropping(place, c, out) for rules, place, c in by_family[out.six]
        )
        for out in outs
    )


def drops(rules: Rules, packets: Sequence[Packet], known: Iterable[Place] = ()) -> list[Drop]:
    """Base chains that would drop some of ``packets``, but for ours and those ``known``."""
    skipped = {*known}
    found: dict[tuple[Place, Fate, bool], list[Packet]] = {}
    chains: dict[Place, Json] = {}
    both = [(six, *each) for six in (False, True) for each in rules.base_chains(six)]
    for six, place, chain in both:
        if place in skipped or place[:2] in ALL_TABLES:
            continue
        chains[place] = chain
        for packet in packets:
            passing = packet.six == six and chain["hook"] in packet.hooks
            fate = rules.dropping(place, chain, packet) if passing else None
            if fate is not None:
                found.setdefault((place, fate, six), []).append(packet)
    return [
        Drop(place, fate.handle, tuple(hit), chains[place]["hook"], fate.entry, six, is_early(chains[place]))
        for (place, fate, six), hit in found.items()
    ]
