"""``loopnet define``: define a new network, with prefixes that no other loopnet network has.

By default it is a mapped network with the first free /24 (127.1.0.0/24 on the host, 10.127.1.0/24
in guests) and an IPv6 prefix of this host's own (RFC 4193). --print-xml only prints it, for virsh
net-define, and needs neither root nor libvirt.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

from ..addresses.ula import global_id
from ..errors import ConflictError, LoopnetError, PrivilegeError
from ..host.ipv6 import has_ipv6
from ..ipv6 import Choice, check_ipv6_overlap
from ..model import ALL, FREE, MAPPED, NATIVE, NONE
from ..networks.new import new_network
from ..prefixes import (
    check_guest_prefix,
    check_loop_prefix,
    check_overlap,
    default_guest_prefix,
    free_loop_prefix,
    known_user,
)
from ..validation import check_name, shown
from .shared import prefix_options
from .shared.inventory import networks
from .shared.output import note
from .shared.prefix_options import Asked

DEFAULT_NAME = "loopnet"
DEFAULT_LENGTH = 24

Taken = Sequence[tuple[str, IPv4Network]]
"""Names and loop prefixes of other networks."""


class Chosen(NamedTuple):
    """What the new network has."""

    loop_prefix: IPv4Network
    guest_prefix: IPv4Network
    mode: str
    addresses: str
    ipv6: IPv6Network | None


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "name", metavar="NAME", nargs="?", default=DEFAULT_NAME, help=f"by default {DEFAULT_NAME}"
    )
    prefix_options.add(parser)
    parser.add_argument("--isolated", action="store_true", help="guests reach only the host and each other")
    parser.add_argument("--print-xml", action="store_true", help="print the definition and change nothing")


def run(arguments: Namespace) -> int:
    asked = prefix_options.read(arguments)
    internet = NONE if arguments.isolated else ALL
    check_name(arguments.name)  # wrong input is told first
    _new(arguments.name, choose(arguments.name, asked._replace(ipv6=Choice()), ()), internet)
    if arguments.print_xml:
        chosen = _to_print(arguments.name, asked, _taken(arguments.connect))
        sys.stdout.buffer.write(_new(arguments.name, chosen, internet))
    else:
        chosen = _define(arguments.name, asked, internet, arguments.connect)
        also = f" and {chosen.ipv6}" if chosen.ipv6 else ""
        print(
            f"network {arguments.name} is defined: guests at {chosen.loop_prefix} (they see "
            f"{chosen.guest_prefix}){also}; start it with: virsh net-start {arguments.name}"
        )
    user = known_user(chosen.loop_prefix)
    if user:
        note(f"warning: {chosen.loop_prefix} is also used by {user}; choose another if you use that")
    if chosen.guest_prefix.is_global:
        note(f"warning: {chosen.guest_prefix} belongs to others on the internet, whom guests won't reach")
    return 0


def choose(name: str, asked: Asked, taken: Taken) -> Chosen:
    """Fill in what was not asked for. Raises InputError, ConflictError; StateError, PrivilegeError (the global ID)."""
    mode = asked.mode or MAPPED
    loop_prefix = asked.loop_prefix or _free(asked, mode, taken)
    default = loop_prefix if mode == NATIVE else default_guest_prefix(loop_prefix)
    guest_prefix = asked.guest_prefix or default
    check_guest_prefix(guest_prefix, check_loop_prefix(loop_prefix), mode)
    check_overlap(name, loop_prefix, taken)
    ipv6 = asked.ipv6 or Choice(global_id=global_id if has_ipv6() else None)
    return Chosen(loop_prefix, guest_prefix, mode, asked.addresses or FREE, ipv6.of(loop_prefix))


def _to_print(name: str, asked: Asked, taken: Taken) -> Chosen:
    """The same, without IPv6 where nobody asked for it and only root could make the global ID."""
    try:
        return choose(name, asked, taken)
    except PrivilegeError as error:
        if asked.ipv6:
            raise
        note(f"without IPv6: {error}")
        return choose(name, asked._replace(ipv6=Choice()), taken)


def _new(name: str, chosen: Chosen, internet: str) -> bytes:
    return new_network(
        name, chosen.loop_prefix, chosen.guest_prefix, chosen.mode, chosen.addresses, internet, chosen.ipv6
    )


def _free(asked: Asked, mode: str, taken: Taken) -> IPv4Network:
    if asked.guest_prefix is None:
        return free_loop_prefix(DEFAULT_LENGTH, [prefix for _, prefix in taken])
    check_guest_prefix(asked.guest_prefix, asked.guest_prefix, mode)
    if mode == NATIVE:  # where both are the same
        return asked.guest_prefix
    return free_loop_prefix(asked.guest_prefix.prefixlen, [prefix for _, prefix in taken])


def _taken(uri: str) -> Taken:
    """What this host's networks have, as far as can be told."""
    try:
        return [(network.name, network.loop_prefix) for network in networks(uri).known]
    except LoopnetError:
        return []


def _define(name: str, asked: Asked, internet: str, uri: str) -> Chosen:
    from ..daemon.connection import connect

    with connect(uri) as connection:
        if any(info.name == name for info in connection.networks()):
            raise ConflictError(
                f"there is a network {shown(name)} already; choose another name, or turn it into a loopnet "
                f"network with: loopnet convert {name}"
            )
        ours = connection.loopnet_networks()
        chosen = choose(name, asked, [(n.name, n.loop_prefix) for n, _ in ours])
        if chosen.ipv6:
            check_ipv6_overlap(name, chosen.ipv6, [(n.name, n.ipv6) for n, _ in ours if n.ipv6])
        connection.define(_new(name, chosen, internet))
    return chosen
