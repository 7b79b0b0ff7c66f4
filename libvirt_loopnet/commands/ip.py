"""``loopnet ip``: for scripts, as in ``curl http://$(loopnet ip vm1)/``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..addresses.store import Store
from ..errors import NotFoundError
from ..validation import shown
from .shared.inventory import entries, find, networks


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("guest", metavar="GUEST", help="vm1, vm1.loopnet or a MAC address")


def run(arguments: Namespace) -> int:
    found = find(entries(networks(arguments.connect), Store()), arguments.guest)
    addresses = [entry.loop_address for entry in found if entry.loop_address]
    if not addresses:
        raise NotFoundError(f"no guest {shown(arguments.guest)} has an address; see: loopnet list")
    for address in addresses:
        print(address)
    return 0
