"""``loopnet graph``: draw this host as SVG, for a browser or a wiki.

The picture shows lo and the uplink, each network with its bridge and prefixes, and each guest with
its three addresses: on the host (loop), in the guest (guest), and between the two (transit).
"""

from __future__ import annotations

import os
import socket
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from ..addresses.store import Store
from ..errors import HostError, InputError, PrivilegeError
from ..host.kernel import links
from ..reports.graph import Group, Nic, Picture, render
from .shared.inventory import UP, Entry, Networks, entries, networks
from .shared.output import note


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--output", "-o", metavar="FILE", default="", help="write it to FILE, not standard output"
    )


def run(arguments: Namespace) -> int:
    found = networks(arguments.connect)
    listed = entries(found, Store())
    text = render(picture(found, listed)).encode()
    if arguments.output in ("", "-"):
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
    else:
        _write(arguments.output, text)
    lost = sum(1 for entry in listed if entry.network is None)
    if lost:
        note(f"{lost} addresses of networks that aren't defined any more are left out; see: loopnet list")
    return 0


def picture(found: Networks, listed: Sequence[Entry]) -> Picture:
    """What is drawn: guests that are up come first."""
    groups = []
    for network in found.known:
        mine = [entry for entry in listed if entry.network_name == network.name]
        nics = [_nic(entry) for entry in sorted(mine, key=lambda entry: entry.state != UP)]
        groups.append(Group(network, network in found.active, tuple(nics)))
    groups.sort(key=lambda group: not group.active)
    return Picture(socket.gethostname(), links.lo(), links.uplinks(), tuple(groups))


def _nic(entry: Entry) -> Nic:
    number, mac, _, name, published = entry.reservation[:5]
    # without blanks the longest fits into a card
    notes = [f"{p.address}:{{}}→{{}}/{{}}".format(*p.texts) for p in published]
    notes += [f"also {address}" for address in entry.also]
    notes += [f"shared {address}" for address in entry.shared]
    notes += ["link down"] if entry.down else []
    return Nic(name or mac, number, entry.tap, entry.state == UP and not entry.down, tuple(notes))


def _write(path: str, text: bytes) -> None:
    try:
        with open(path, "wb") as file:
            file.write(text)
    except PermissionError:
        raise PrivilegeError(f"{path}: permission denied; name a file that you may write") from None
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        kind = HostError if isinstance(error, OSError) and os.path.exists(path) else InputError
        raise kind(f"{path}: {reason}; name another file") from None
