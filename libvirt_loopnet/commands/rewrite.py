"""``loopnet rewrite``: a filter, as in ``virsh net-dumpxml default | loopnet rewrite``.

Warnings about changes that guests will notice go to standard error.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from ipaddress import IPv4Network

from ..errors import InputError, PrivilegeError
from ..networks.rewrite import rewrite_network
from ..xml.schema import check_schema
from ..xml.tree import MAX_BYTES
from .shared import prefix_options
from .shared.inventory import networks_of_files
from .shared.output import note


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        default="",
        help="the network XML; by default or with -, standard input",
    )
    prefix_options.add(parser)
    prefix_options.add_gateway(parser)


def run(arguments: Namespace) -> int:
    asked = prefix_options.read(arguments)
    given = _read(arguments.file)
    check_schema(given, "network", arguments.file.strip("-") or "standard input")
    rewritten = rewrite_network(
        given,
        loop_prefix=asked.loop_prefix,
        guest_prefix=asked.guest_prefix,
        mode=asked.mode,
        addresses=asked.addresses,
        ipv6=asked.ipv6,
        gateway=arguments.gateway,
        taken=_taken(),
    )
    for warning in rewritten.warnings:
        note(f"warning: {warning}")
    sys.stdout.buffer.write(rewritten.xml)
    sys.stdout.buffer.flush()
    return 0


def _taken() -> list[tuple[str, IPv4Network]]:
    """What this host's networks have, as far as the caller may know."""
    return [(network.name, network.loop_prefix) for network in networks_of_files().known]


def _read(file: str) -> bytes:
    if file in ("", "-"):
        if not file and sys.stdin.isatty():
            raise InputError("no FILE was given; try: virsh net-dumpxml NETWORK | loopnet rewrite")
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    try:
        with open(file, "rb") as source:
            return source.read(MAX_BYTES + 1)
    except PermissionError:
        raise PrivilegeError(f"{file}: permission denied; make it readable to you") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{file}: {reason.lower()}; name a readable file") from None
