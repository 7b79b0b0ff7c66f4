"""``loopnet list``: show guests and their addresses.

``--json`` prints an array with one object for each NIC that has a reservation and, for root, for
each NIC on a network's bridge that is not let in::

    guest          libvirt's name of the guest; null if libvirt knows none for the NIC
    dns_name       the name that resolves to the address while the guest runs, or null
    name           its first part, a DNS label; "" if there is none
    network        libvirt's name of the network
    mac            MAC address
    loop_address   the address on the host; null if the network is no longer defined
    guest_address  the address in the guest; likewise
    ipv6_address   the address kept for it in the network's IPv6 prefix; null if there is no prefix
    tap            the host's device for the NIC; null while there is none
    state          "up": seen on the network's bridge, with carrier, and let in;
                   "off": its guest runs, but it is not up (see loopnet doctor);
                   "unknown": not let in; "reserved": all others
    link           "down" if libvirt has the link of its NIC down: the guest sees no carrier,
                   although it is "up" on the host; null otherwise
    also           array: additional loop addresses, reserved for it alone
    shared         array: additional loop addresses that it may hold in turn with other NICs
    seen           array: loop addresses that it uses although nobody has reserved them
    dropped        array: addresses, as the guest writes them, that it recently tried to send from
    published      array of objects: protocol, host_address (null: all), host_port, guest_port,
                   ports (how many, from these on), from (allowed clients' prefix; null: everybody)
    why, command   why an unknown NIC is not let in, and what lets it in or shows more; else null
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

from ..addresses.store import Store
from ..model import ANY_ADDRESS, EVERYBODY, Publication
from ..validation import shown
from .shared.inventory import FEW, Entry, entries, networks
from .shared.ipv6 import whereabouts
from .shared.output import note, print_json, print_table
from .shared.untold import Untold, untold

COLUMNS = ("guest", "dns_name", "network", "mac", "loop_address", "guest_address", "tap", "state")
UNKNOWN = "unknown"
IPV6, LINK = "ipv6_address", "link"
ALSO, SHARED, SEEN, DROPPED, PUBLISHED = "also", "shared", "seen", "dropped", "published"
"""Columns of their own where there are any."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs; the keys are stable")


def run(arguments: Namespace) -> int:
    store = Store()
    found = networks(arguments.connect)
    listed, unknown = entries(found, store), untold(store, found.ports)
    if arguments.json:
        print_json([*map(_as_json, listed), *map(_unknown_as_json, unknown)])
        return 0
    columns = [*COLUMNS]
    rows = [[_printable(cell or "") for cell in _row(entry)] for entry in listed]
    further: list[tuple[str, list[Sequence[object]]]] = [
        (LINK, [["down"] if entry.down else [] for entry in listed]),
        (IPV6, [_few(addresses) for addresses in whereabouts(listed)]),
        (ALSO, [entry.also for entry in listed]),
        (SHARED, [entry.shared for entry in listed]),
        (SEEN, [entry.seen for entry in listed]),
        (DROPPED, [_few(entry.dropped) for entry in listed]),
        (PUBLISHED, [entry.reservation.published for entry in listed]),
    ]
    for column, cells in further:
        if any(cells):
            columns.append(column)
            rows = [[*row, " ".join(map(str, each))] for row, each in zip(rows, cells)]
    rows += [_unknown_row(each, len(columns)) for each in unknown]
    print_table(columns, rows)
    for each in unknown:
        note(f"{each}; {each.command}")
    return 0


def _few(addresses: Sequence[IPv4Address | IPv6Address]) -> list[str]:
    more = len(addresses) - FEW
    return [*map(str, addresses[:FEW]), *([f"+{more}"] if more > 0 else [])]


def _as_json(entry: Entry) -> dict[str, object]:
    return {
        **dict(zip(COLUMNS, _row(entry))),
        "name": entry.reservation.name,
        IPV6: str(entry.ipv6_address) if entry.ipv6_address else None,
        LINK: "down" if entry.down else None,
        ALSO: [str(address) for address in entry.also],
        SHARED: [str(address) for address in entry.shared],
        SEEN: [str(address) for address in entry.seen],
        DROPPED: [str(address) for address in entry.dropped],
        PUBLISHED: [as_json(each) for each in entry.reservation.published],
        "why": None,
        "command": None,
    }


def _unknown_as_json(nic: Untold) -> dict[str, object]:
    known = {"network": nic.network, "mac": nic.mac, "tap": nic.device, "state": UNKNOWN}
    none: dict[str, object] = {key: [] for key in (ALSO, SHARED, SEEN, DROPPED, PUBLISHED)}
    rest = {"name": "", IPV6: None, LINK: None, **none, "why": nic.why, "command": nic.command}
    return {**dict.fromkeys(COLUMNS), **known, **rest}


def _unknown_row(nic: Untold, width: int) -> list[str]:
    row = ["", "", nic.network, nic.mac, "", "", _printable(nic.device), UNKNOWN]
    return row + [""] * (width - len(row))


def as_json(publication: Publication) -> dict[str, object]:
    """A publication as ``--json`` prints it."""
    protocol, address, port, guest_port, count, clients = publication
    return {
        "protocol": protocol,
        "host_address": None if address == ANY_ADDRESS else str(address),
        "host_port": port,
        "guest_port": guest_port,
        "ports": count,
        "from": None if clients == EVERYBODY else str(clients),
    }


def _row(entry: Entry) -> tuple[str | None, ...]:
    return (
        entry.guest or None,
        entry.dns_name or None,
        entry.network_name,
        entry.reservation.mac,
        str(entry.loop_address) if entry.loop_address else None,
        str(entry.guest_address) if entry.guest_address else None,
        entry.tap or None,
        entry.state,
    )


def _printable(cell: str) -> str:
    """Guests may have control characters in their names: a terminal is not to obey them."""
    return cell if cell.isprintable() else shown(cell)
