"""Findings of doctor.py's about other people's firewalls. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ..config import OF_IPTABLES
from ..config import PATH as CONFIG
from ..firewalls.obstacles import Obstacle
from ..firewalls.ways import Ways
from ..model import NONE
from ..records import NamedTuple
from .findings import NOTE, WARNING, Facts, Finding


def firewalls(facts: Facts) -> Iterator[Finding]:
    """What other firewalls keep guests and host from, and where guests would get round them."""
    for obstacle in facts.foreign.obstacles:
        yield Finding(
            "firewall",
            WARNING,
            f"another firewall, {obstacle.where}: {obstacle.rule}",
            f"cut off: {', '.join(obstacle.breaks)}",
            _opened(facts, obstacle),
        )
    for table in sorted({*facts.open_firewalls} - facts.foreign.tables):
        yield Finding(
            "firewall-absent",
            NOTE,
            f"open-firewalls names {table}, and there is no such table now",
            "loopnet watch opens it as soon as there is",
            "nft list tables",
        )
    for table in sorted(facts.foreign.unread):
        yield Finding(
            "firewall-unknown",
            WARNING,
            f"table {table} can't be read: nft prints broken JSON for it",
            "loopnet can't tell what it drops, and only the program it belongs to can change it",
            f"nft --terse list table {table}",
        )
    yield from _kept_in(facts)
    for problem in facts.firewall_problems:
        yield Finding(
            "firewall-unknown",
            WARNING,
            problem,
            "loopnet can't tell it what guests need",
            "loopnet sync",
        )


def _opened(facts: Facts, obstacle: Obstacle) -> str:
    """How the user has it opened: never further than the host's own traffic gets."""
    table = obstacle.table
    if table in facts.foreign.owned:
        return f"only the program it belongs to can change it, so look there: nft --terse list table {table}"
    if not obstacle.mend:
        return (
            "no rule there can tell answers from new connections, as the chain runs before conntrack; where it is made "
            f"give it a priority above -200, or let it accept all from the bridge; see: nft list table {table}"
        )
    if table in facts.open_firewalls:
        return "loopnet sync"
    if table in OF_IPTABLES:
        return "; ".join(obstacle.mend)
    names = ", ".join(f'"{name}"' for name in [*facts.open_firewalls, table])
    line = f"open-firewalls = [ {names} ]"
    return (
        f"loopnet sync, with {line} in {CONFIG}; or until the table is recreated: {'; '.join(obstacle.mend)}"
    )


class _Kept(NamedTuple):
    """By which ways guests are let out."""

    ways: Ways
    around: str
    family: str = ""
    """As nft calls it, '' for both."""


def _kept_in(facts: Facts) -> Iterator[Finding]:
    """Guests' traffic goes no further than the host's own, and that is kept in a VPN, say."""
    four = _Kept(facts.foreign.ways, facts.foreign.around)
    six = _Kept(facts.foreign.ways6, facts.foreign.around6, "ipv6")
    if four.ways.limited and six.ways.limited and four[:2] != six[:2]:
        four = four._replace(family="ipv4")
    yield from _of_ways(facts, four)
    if four[:2] != six[:2]:
        yield from _of_ways(facts, six)


def _of_ways(facts: Facts, kept: _Kept) -> Iterator[Finding]:
    ways, device = kept.ways, kept.around
    family = kept.family.replace("ipv", "IPv") + " " if kept.family else ""
    guests_go_out = any(network.internet != NONE for network in facts.networks)
    if not ways.limited or not guests_go_out:
        return
    rules = f"nft list chain {ways.by[0]}"
    if device:
        yield Finding(
            "firewall-around",
            WARNING,
            f"{', '.join(ways.by)}: the host's own {family}traffic is not let out by {device}, but guests' traffic is",
            f"guests bypass these rules as soon as the route leads to {device}",
            _keep_in(facts, kept),
        )
    if not ways.elsewhere and not ways.open:
        yield Finding(
            "firewall-closed",
            NOTE,
            f"{', '.join(ways.by)}: it seems that the host's own {family}traffic gets out by no interface",
            "guests are let out by none either",
            rules,
        )
    elif facts.published:
        yield Finding(
            "firewall-published",
            NOTE,
            f"{', '.join(ways.by)}: the host's own {family}traffic gets out by some interfaces only",
            "guests' replies to the LAN are let out by no others, so the LAN may not reach published ports",
            rules,
        )


def _keep_in(facts: Facts, kept: _Kept) -> str:
    """A table of its own that holds guests to where the host's own traffic goes."""
    bridges = [network.bridge for network in facts.networks if network.internet != NONE]
    spared = " ".join(f'oifname != "{name}"' for name in [*kept.ways.open, *bridges])
    inside = ", ".join(f'"{bridge}"' for bridge in bridges)
    only = f"meta nfproto {kept.family} " if kept.family else ""
    chain = "inet guests forward"
    return (
        f"nft add table inet guests; nft 'add chain {chain} {{ type filter hook forward priority 0; }}'; "
        f"nft 'add rule {chain} {only}iifname {{ {inside} }} {spared} drop'"
    )
