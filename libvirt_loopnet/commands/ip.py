"""``loopnet ip``: print a guest's address, for scripts: ``curl http://$(loopnet ip vm1)/``.

It prints one line per NIC; with ``--all``, also the addresses reserved with --also and --shared.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

from ..addresses.store import Store
from ..errors import NotFoundError
from ..validation import shown
from .shared.inventory import Entry, entries, find, networks


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--ipv6", action="store_true", help="print the address in the network's IPv6 prefix")
    parser.add_argument("guest", metavar="GUEST", help="vm1, vm1.loopnet, or a MAC address")
    parser.add_argument("--all", action="store_true", help="also print additional addresses")


def run(arguments: Namespace) -> int:
    found = find(entries(networks(arguments.connect), Store()), arguments.guest)
    addresses = [address for entry in found for address in _addresses(entry, arguments) if address]
    if not addresses:
        raise NotFoundError(f"no guest {shown(arguments.guest)} has an address; see: loopnet list")
    for address in addresses:
        print(address)
    return 0


def _addresses(entry: Entry, arguments: Namespace) -> Sequence[IPv4Address | IPv6Address | None]:
    if arguments.ipv6:
        return [entry.ipv6_address]
    return [entry.loop_address, *(entry.also + entry.shared if arguments.all else [])]
