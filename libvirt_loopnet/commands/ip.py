"""``loopnet ip``: print a guest's address, for scripts: ``curl http://$(loopnet ip vm1)/``.

It prints one line per NIC; with ``--all``, also the addresses reserved with --also and --shared
and, with ``--ipv6``, every address at which the guest was seen.
"""

from __future__ import annotations

import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

from ..addresses.store import Store
from ..errors import NotFoundError
from ..validation import shown
from .shared.inventory import Entry, entries, find, networks
from .shared.ipv6 import whereabouts


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--ipv6", action="store_true", help="print the IPv6 address that it has leased or is seen at"
    )
    parser.add_argument("guest", metavar="GUEST", help="vm1, vm1.loopnet, or a MAC address")
    parser.add_argument("--all", action="store_true", help="also print additional addresses")


def run(arguments: Namespace) -> int:
    found = find(entries(networks(arguments.connect), Store()), arguments.guest)
    addresses = _six(found, arguments) if arguments.ipv6 else _four(found, arguments)
    for address in addresses:
        print(address)
    return 0


def _four(found: Sequence[Entry], arguments: Namespace) -> Sequence[IPv4Address]:
    each = [[entry.loop_address, *(entry.also + entry.shared if arguments.all else [])] for entry in found]
    addresses = [address for some in each for address in some if address]
    if not addresses:
        raise NotFoundError(f"no guest {shown(arguments.guest)} has an address; see: loopnet list")
    return addresses


def _six(found: Sequence[Entry], arguments: Namespace) -> Sequence[IPv6Address]:
    if not any(entry.network and entry.network.ipv6_prefixes for entry in found):
        raise NotFoundError(
            f"no guest {shown(arguments.guest)} is on a network with IPv6; see: loopnet list, loopnet status"
        )
    addresses = [address for some in whereabouts(found) for address in (some if arguments.all else some[:1])]
    if not addresses:
        raise NotFoundError(
            f"{shown(arguments.guest)} has leased no IPv6 address, and none of its own was seen yet; it has IPv4: "
            f"loopnet ip {shlex.quote(arguments.guest)}"
        )
    return addresses
