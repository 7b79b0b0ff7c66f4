"""Runs nft scripts."""

from __future__ import annotations

from ... import process
from ...errors import HostError, PrivilegeError


def nft(script: str) -> None:
    """Run an nft script, one transaction. Raises HostError."""
    result = process.run(["nft", "-f", "-"], script.encode())
    if result.status:
        if b"Operation not permitted" in result.stderr:
            raise PrivilegeError("nft was not permitted to change rules; run this as root")
        # Only now: what it can't read it says in words of its own, and asking costs time.
        from .versions import old_nft

        old = old_nft()
        if old:
            raise HostError(f"{old}; upgrade the package nftables")
        raise HostError(f"nft refused the rules: {result.complaint}")
