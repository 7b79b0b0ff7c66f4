"""Looks for tables of others in nft that are in the way. For ``loopnet doctor``; hooks don't ask."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .. import process
from ..errors import HostError
from ..firewalls import needs_ipv4, needs_ipv6
from ..firewalls.obstacles import Drop, Foreign, around, drops
from ..firewalls.openings import BUILTINS, IP6TABLES, IPTABLES, Firewalls
from ..firewalls.walk import Rules
from ..firewalls.ways import EVERYWHERE, of_iptables, ways
from ..model import Network
from ..planning.ipv6 import uplinks
from . import ipv6, other_firewalls

if TYPE_CHECKING:
    from ..firewalls.walk import Place


def find(networks: Sequence[Network], published: Collection[str] = ()) -> Foreign:
    """What tables of others, which we don't put rules into, keep ``networks`` from; ``published`` names
    those that have published ports. Raises HostError."""
    ruleset, unread = _ruleset()
    seen = ipv6.observe((), None, first=True)
    observed = other_firewalls.observe()
    with suppress(HostError):  # what ip6tables can't read is judged as nft lists it
        observed = ipv6.with_ip6tables(observed, seen, networks)
    known = _spoken_to(observed, ruleset)
    bridges = [network.bridge for network in networks]
    # iptables itself says more of its rules than nft knows.
    used = {tool for tool, _ in (*observed.iptables, *observed.ip6tables)}
    told = {(family, "filter") for family, tool in _TELLS if tool in used}
    rest = [entry for entry in ruleset if _table(entry) not in told]
    filters = [Rules(rest, without_ours=True), *(of_iptables(saved) for _, saved in observed.iptables)]
    filters += [of_iptables(saved, six=True) for _, saved in observed.ip6tables]
    out, out6 = ways(filters, bridges), ways(filters, bridges, six=True)
    uplink, uplinks6 = other_firewalls.uplink_device(), uplinks(seen.routes)
    needed = needs_ipv4.packets(networks, uplink, other_firewalls.is_bridged(), published, out)
    needed += needs_ipv6.packets(
        networks,
        next(iter(uplinks6), ""),
        other_firewalls.is_bridged(other_firewalls.BRIDGED6),
        published,
        out6,
    )
    found = [drop.obstacle(_rule_text(drop)) for drop in drops(Rules(ruleset), needed, known)]
    owned = {each.table for each in found if other_firewalls.is_owned(each.table)}
    tables = [entry["table"] for entry in ruleset if "table" in entry]
    return Foreign(
        tuple(found),
        out,
        frozenset(f"{it['family']} {it['name']}" for it in tables),
        frozenset(owned),
        around(filters, needs_ipv4.outs(networks, uplink), uplink, out),
        frozenset(unread),
        out6 if uplinks6 and any(network.ipv6_prefixes for network in networks) else EVERYWHERE,
        next((d for d in uplinks6 if around(filters, needs_ipv6.outs(networks, d), d, out6)), ""),
    )


_TELLS = (("ip", IPTABLES[0]), ("ip6", IP6TABLES[0]))
"""Of whose table ``filter`` that program says more than nft knows."""


def _ruleset() -> tuple[list[dict[str, Any]], list[str]]:
    """All that nft lists, and the tables that it can't: nft 1.0.6 writes broken JSON of some with an owner."""
    with suppress(ValueError):
        return json.loads(_nft("-j", "list", "ruleset"))["nftables"], []
    found: list[dict[str, Any]] = []
    unread = []
    for line in _nft("list", "tables").splitlines():
        _, family, name = line.split()
        try:
            found += json.loads(_nft("-j", "list", "table", family, name))["nftables"]
        except ValueError:
            found.append({"table": {"family": family, "name": name}})
            unread.append(f"{family} {name}")
    return found, unread


def _table(entry: dict[str, Any]) -> tuple[str, str]:
    (item,) = entry.values()
    return item.get("family", ""), item.get("table", "")


def _spoken_to(observed: Firewalls, ruleset: Sequence[dict[str, Any]]) -> set[Place]:
    """Chains of the firewalls that other_firewalls.apply() speaks to."""
    known: set[Place] = set()
    used = {tool for tool, _ in (*observed.iptables, *observed.ip6tables)}
    known |= {(family, "filter", name) for family, tool in _TELLS if tool in used for name in BUILTINS}
    if observed.firewalld:
        chains = [entry["chain"] for entry in ruleset if "chain" in entry]
        known |= {("inet", "firewalld", c["name"]) for c in chains if c["table"] == "firewalld"}
    return known


def _rule_text(drop: Drop) -> str:
    """The rule as nft lists it."""
    if not drop.handle:
        return "policy drop"
    for line in _nft("-s", "-a", "list", "table", *drop.place[:2]).splitlines():
        rule, _, handle = line.strip().rpartition(" # handle ")
        if handle == str(drop.handle):
            return rule
    return f"rule with handle {drop.handle}"


def _nft(*arguments: str) -> str:
    result = process.run(["nft", *arguments])
    if result.status:
        reason = (result.stderr.decode(errors="replace").splitlines() or ["no reason given"])[0]
        raise HostError(f"nft {' '.join(arguments)} failed: {reason}")
    return result.stdout.decode(errors="replace")
