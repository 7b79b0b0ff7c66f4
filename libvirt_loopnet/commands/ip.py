"""``loopnet ip``: for scripts, as in ``curl http://$(loopnet ip vm1)/``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..addresses.store import Store
from ..errors import NotFoundError
from ..validation import shown
from .shared.inventory import entries, find, networks


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--ipv6", action="store_true", help="its IPv6 address, where its network has a prefix"
    )
    parser.add_argument("guest", metavar="GUEST", help="vm1, vm1.loopnet or a MAC address")


def run(arguments: Namespace) -> int:
    found = find(entries(networks(arguments.connect), Store()), arguments.guest)
    kinds = [entry.ipv6_address if arguments.ipv6 else entry.loop_address for entry in found]
    addresses = [address for address in kinds if address]
    if not addresses:
        raise NotFoundError(f"no guest {shown(arguments.guest)} has an address; see: loopnet list")
    for address in addresses:
        print(address)
    return 0
