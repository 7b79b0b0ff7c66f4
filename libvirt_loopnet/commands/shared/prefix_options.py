"""The options that choose a network's prefixes, its mode, and which addresses its guests may use."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from ipaddress import IPv4Network
from typing import NamedTuple

from ...model import ADDRESSES, MODES
from ...prefixes import parse_prefix


class Asked(NamedTuple):
    """What was asked for; None where it is left to us."""

    loop_prefix: IPv4Network | None
    guest_prefix: IPv4Network | None
    mode: str | None
    addresses: str | None = None


def add(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--loop-prefix", metavar="P", help="the host's view, inside 127.0.0.0/8")
    parser.add_argument("--guest-prefix", metavar="P", help="the guests' view, of equal length")
    parser.add_argument(
        "--mode", choices=MODES, help="mapped: any guest; native: guests have 127.x themselves"
    )
    parser.add_argument(
        "--addresses",
        choices=ADDRESSES,
        help="free: guests may use what nobody has reserved as well; own: their own alone",
    )


def add_gateway(parser: ArgumentParser) -> None:
    """Declare the option for the gateway."""
    parser.add_argument("--gateway", metavar="N", type=int, help="host number of the router that guests see")


def read(arguments: Namespace) -> Asked:
    """Read the options. Raises InputError for what is no prefix."""
    return Asked(
        loop_prefix=_prefix(arguments.loop_prefix, "--loop-prefix"),
        guest_prefix=_prefix(arguments.guest_prefix, "--guest-prefix"),
        mode=arguments.mode,
        addresses=arguments.addresses,
    )


def _prefix(text: str | None, option: str) -> IPv4Network | None:
    return None if text is None else parse_prefix(text, option)
