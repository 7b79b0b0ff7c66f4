"""``loopnet list``: who has which address.

``--json`` prints an array with one object for each NIC that has a reservation::

    name           DNS label, "" if it has none
    network        libvirt's name of the network
    mac            MAC address
    loop_address   the address on the host, null when the network isn't defined any more
    guest_address  the address in the guest, likewise
    tap            the host's device for the NIC, null while there is none
    state          "up" while it is plugged in, else "reserved"
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..reservations import Store
from .inventory import Entry, entries, networks
from .output import print_json, print_table

COLUMNS = ("name", "network", "mac", "loop_address", "guest_address", "tap", "state")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs; the keys are stable")


def run(arguments: Namespace) -> int:
    rows = [_row(entry) for entry in entries(networks(arguments.connect), Store())]
    if arguments.json:
        print_json([dict(zip(COLUMNS, row)) for row in rows])
    else:
        print_table(COLUMNS, ([cell or "" for cell in row] for row in rows))
    return 0


def _row(entry: Entry) -> tuple[str | None, ...]:
    return (
        entry.reservation.name,
        entry.network_name,
        entry.reservation.mac,
        str(entry.loop_address) if entry.loop_address else None,
        str(entry.guest_address) if entry.guest_address else None,
        entry.tap or None,
        entry.state,
    )
