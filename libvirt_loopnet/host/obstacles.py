"""Looks for tables of others in nft that are in the way. For ``loopnet doctor``; hooks don't ask."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

from .. import process
from ..errors import HostError
from ..firewalls.obstacles import Drop, Obstacle, Place, drops, packets
from ..firewalls.openings import BUILTINS, Firewalls
from ..model import Network
from . import firewall

ROUTES = "/proc/net/route"
BRIDGED = "/proc/sys/net/bridge/bridge-nf-call-iptables"
"""Docker and Kubernetes have it on; absent without the module br_netfilter."""


def find(networks: Sequence[Network], published: Collection[str] = ()) -> list[Obstacle]:
    """What tables of others, which we don't put rules into, keep ``networks`` from; ``published`` names
    those that have published ports. Raises HostError."""
    ruleset = json.loads(_nft("-j", "list", "ruleset"))["nftables"]
    known = _spoken_to(firewall.observe(), ruleset)
    found = drops(ruleset, packets(networks, _uplink(), _is_bridged(), published), known)
    return [drop.obstacle(_rule_text(drop)) for drop in found]


def _spoken_to(observed: Firewalls, ruleset: Sequence[dict[str, Any]]) -> set[Place]:
    """Chains of the firewalls that firewall.apply() speaks to."""
    known: set[Place] = set()
    if any(tool == "iptables-nft" for tool, _ in observed.iptables):
        known |= {("ip", "filter", builtin) for builtin in BUILTINS}
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


def _uplink() -> str:
    """The device of the first default route; '' without one."""
    try:
        with open(ROUTES) as file:
            lines = [line.split() for line in file]
    except OSError:
        return ""
    # Iface, Destination, …, Mask (fib_route_seq_show in the kernel's net/ipv4/fib_trie.c)
    return next((line[0] for line in lines[1:] if line[1] == line[7] == "00000000"), "")


def _is_bridged() -> bool:
    try:
        with open(BRIDGED) as file:
            return file.read().strip() != "0"
    except OSError:
        return False


def _nft(*arguments: str) -> str:
    result = process.run(["nft", *arguments])
    if result.status:
        reason = (result.stderr.decode(errors="replace").splitlines() or ["no reason given"])[0]
        raise HostError(f"nft {' '.join(arguments)} failed: {reason}")
    return result.stdout.decode(errors="replace")
