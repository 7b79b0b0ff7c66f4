"""The options that choose a network's prefixes, its mode, and which addresses its guests may use."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from ipaddress import IPv4Network
from typing import NamedTuple

from ...addresses.ula import global_id
from ...errors import InputError
from ...host import ipv6
from ...ipv6 import ULA, Choice, is_routed, parse_ipv6_prefix
from ...model import ADDRESSES, MODES, NONE
from ...prefixes import parse_prefix


class Asked(NamedTuple):
    """What was asked for; None where it is left to us."""

    loop_prefix: IPv4Network | None
    guest_prefix: IPv4Network | None
    mode: str | None
    addresses: str | None = None
    ipv6: Choice | None = None


def add(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--loop-prefix", metavar="P", help="addresses on the host, in 127.0.0.0/8")
    parser.add_argument("--guest-prefix", metavar="P", help="addresses in guests, of the same length")
    parser.add_argument(
        "--mode", choices=MODES, help="mapped: for any guest; native: guests themselves have 127.x"
    )
    parser.add_argument(
        "--addresses",
        choices=ADDRESSES,
        help="free: guests may also use addresses that nobody has reserved; own: only their own",
    )
    parser.add_argument(
        "--ipv6",
        metavar="P",
        help=f"ula: a prefix of this host's own, as new networks have; a /64 of yours; or {NONE}",
    )


def add_gateway(parser: ArgumentParser) -> None:
    """Declare the option for the gateway."""
    parser.add_argument("--gateway", metavar="N", type=int, help="host number of the router that guests see")


def read(arguments: Namespace) -> Asked:
    """Read the options. Raises InputError for what is no prefix; ``ula`` may need root, once, see addresses/ula.py."""
    return Asked(
        loop_prefix=_prefix(arguments.loop_prefix, "--loop-prefix"),
        guest_prefix=_prefix(arguments.guest_prefix, "--guest-prefix"),
        mode=arguments.mode,
        addresses=arguments.addresses,
        ipv6=_ipv6(arguments.ipv6, "--ipv6"),
    )


def _prefix(text: str | None, option: str) -> IPv4Network | None:
    return None if text is None else parse_prefix(text, option)


def _ipv6(text: str | None, option: str) -> Choice | None:
    if text is None:
        return None
    if text == NONE:
        return Choice()
    if text == "ula":
        return Choice(global_id=global_id)
    prefix = parse_ipv6_prefix(text, option)
    if not prefix.subnet_of(ULA) and not is_routed(prefix, ipv6.routes()):
        raise InputError(
            f"{option} {prefix} is not routed here, so nobody could answer its guests; use ula, or see: ip -6 route"
        )
    return Choice(prefix)
