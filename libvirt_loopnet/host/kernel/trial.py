"""Loads rules where they matter to nobody, and has nft list them: what listing.foretell() forks for."""

from __future__ import annotations

import _ctypes  # not ctypes, which wants memory to write code into: systemd forbids that to `loopnet watch`

from ... import process
from ...errors import HostError
from . import netlink
from .nftables import nft

CLONE_NEWNET = 0x40000000
"""linux/sched.h"""


def tried(script: str, messages: bytes, acknowledgements: int) -> bytes:
    """Move to a new network namespace, for good, load all there, and list it. Raises HostError."""
    _leave_network()
    nft(script)
    netlink.transact(messages, acknowledgements)
    # At once, as nothing else is here; of several "list table" in a script nft 1.0.6 finds the last one's only.
    result = process.run(["nft", "--stateless", "list", "ruleset"])
    if result.status:
        raise HostError(f"nft list ruleset failed: {result.complaint}")
    return result.stdout


def _leave_network() -> None:
    """unshare(2), which Python has from 3.12 on."""
    unshare = _ctypes.dlsym(_ctypes.dlopen(None, 0), "unshare")  # type: ignore[arg-type] # all that is loaded
    if _ctypes.call_function(unshare, (CLONE_NEWNET,)) != 0:
        # unshare(1) knows the reason.
        why = process.run(["unshare", "--net", "true"]).complaint
        raise HostError(f"there is no network namespace to try rules in: {why}")
