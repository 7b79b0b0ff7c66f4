"""Which NICs our tables let in, by what the kernel holds; root alone may look.

A NIC that is bound to its tap is let in there and nowhere else; one that isn't, wherever it is
(ruleset/bridge.py).
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from .. import process
from ..errors import HostError
from ..ruleset.bridge import STRANGERS

_MAC = r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}"
_BOUND = re.compile(rf'"([^"]+)" \. ({_MAC}) :')
_REFUSED = re.compile(rf'"([^"]+)" \. ({_MAC})')
_SET = re.compile(r"^\t(?:set|map) (\S+) \{(.*?)^\t\}", re.MULTILINE | re.DOTALL)


class Admitted(NamedTuple):
    """Elements of the tables."""

    bound: frozenset[tuple[str, str]] = frozenset()
    """(tap, MAC)"""
    bound_macs: frozenset[str] = frozenset()
    macs: frozenset[str] = frozenset()

    def lets_in(self, tap: str, mac: str) -> bool:
        """May frames from ``mac`` come in at ``tap``?"""
        return (tap, mac) in self.bound or mac in self.macs - self.bound_macs


def admitted() -> Admitted | None:
    """None for whom may not look, and where nft is missing."""
    if os.geteuid() != 0:
        return None
    try:
        result = process.run(["nft", "--stateless", "list", "table", "bridge", "loopnet"])
    except HostError:
        return None
    return Admitted() if result.status else parse(result.stdout.decode(errors="replace"))


def refused() -> list[tuple[str, str]]:
    """(MAC, device) of what was dropped lately, since it is not the device's own; root alone may look."""
    if os.geteuid() != 0:
        return []
    try:
        result = process.run(["nft", "--stateless", "list", "set", "bridge", "loopnet", STRANGERS])
    except HostError:
        return []
    found = _REFUSED.findall(result.stdout.decode(errors="replace")) if not result.status else []
    return sorted({(mac, device) for device, mac in found})


def parse(listing: str) -> Admitted:
    """By what nft lists."""
    text = dict(_SET.findall(listing))
    return Admitted(
        bound=frozenset(_BOUND.findall(text.get("bound", ""))),
        bound_macs=frozenset(re.findall(_MAC, text.get("bound-macs", ""))),
        macs=frozenset(re.findall(_MAC, text.get("macs", ""))),
    )
