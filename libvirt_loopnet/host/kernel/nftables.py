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
        raise HostError(f"nft refused the rules: {result.complaint}")
