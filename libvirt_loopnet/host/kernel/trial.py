"""Loads rules where they matter to nobody, and has nft list them: what listing.foretell() starts a Python for.

That Python imports this and what stands here, no more. On its stdin are a line with the script's length (bytes) and the
number of acknowledgements that the messages bring, the script for nft, and the messages for netfilter.
"""

from __future__ import annotations

import sys

from ... import process
from ...errors import HostError, LoopnetError
from . import netlink
from .nftables import nft


def main() -> int:
    """In a network namespace made for it: load what stdin has, list all to stdout; the exit status."""
    length, acknowledgements = map(int, sys.stdin.buffer.readline().split())
    try:
        nft(sys.stdin.buffer.read(length).decode())
        netlink.transact(sys.stdin.buffer.read(), acknowledgements)
        # At once, as nothing else is here; of several "list table" in a script nft 1.0.6 finds the last one's only.
        result = process.run(["nft", "--stateless", "list", "ruleset"])
        if result.status:
            raise HostError(f"nft list ruleset failed: {result.complaint}")
    except LoopnetError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.buffer.write(result.stdout)
    sys.stdout.flush()
    return 0
