"""What convert and revert have in common: their options, and how they tell what was done."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator

from ...addresses.store import Store
from ...converge.mend import mend
from ...daemon.connection import Connection, connect
from ...networks.conversion.change import Change, Tools
from ...networks.conversion.originals import Originals
from ...plugging.replug import HostPlugs
from .output import note
from .privileges import require_root


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of both."""
    parser.add_argument("network", metavar="NETWORK", help="the network's name in libvirt")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--print-xml", action="store_true", help="print the result and change nothing")
    shown.add_argument(
        "--print-diff", action="store_true", help="print what would change, and change nothing"
    )
    parser.add_argument(
        "--restart",
        action="store_true",
        help="restart the network if it is active, and plug running guests in again",
    )


def is_dry(arguments: Namespace) -> bool:
    """Is the result only to be printed?"""
    return bool(arguments.print_xml or arguments.print_diff)


def open_connection(arguments: Namespace, verb: str) -> Connection:
    """Open libvirt; to look at things only needs no root."""
    if not is_dry(arguments):
        require_root(verb)
    return connect(arguments.connect, read_only=is_dry(arguments))


def tools(connection: Connection) -> Tools:
    """What convert and revert work with on this host."""
    return Tools(connection, Store(), Originals(), HostPlugs(), mend)


def tell(arguments: Namespace, change: Change, verb: str) -> None:
    """Print what was done, or would be."""
    for warning in change.warnings:
        note(f"warning: {warning}")
    if arguments.print_xml:
        sys.stdout.buffer.write(change.after)
        return
    lines = _diff(change) if arguments.print_diff else _story(change, verb)
    for line in lines:
        print(line)


def _diff(change: Change) -> Iterable[str]:
    from difflib import unified_diff

    from ...xml.document import alike

    before, after = (alike(xml).splitlines() if xml else [] for xml in (change.before, change.after))
    return unified_diff(before, after, f"{change.name} (now)", f"{change.name} (then)", lineterm="")


def _story(change: Change, verb: str) -> Iterator[str]:
    if change.after == change.before and not change.restarted:
        yield f"network {change.name} is already defined like that"
    elif change.network:
        prefixes = f"{change.network.loop_prefix} (they see {change.network.guest_prefix})"
        yield f"network {change.name} is a loopnet network: guests at {prefixes}"
    else:
        yield f"network {change.name} is defined as it was before its conversion"
    if change.network:
        for kept in change.reserved:
            address = change.network.loop_address(kept.number)
            yield f"{kept.name or kept.mac} has {address}"
    guests = ", ".join(change.plugged)
    if change.restarted:
        yield "restarted" + (f"; plugged in again: {guests}" if guests else "")
    elif change.pending:
        yield f"it still runs as it was; restart it with: loopnet {verb} {change.name} --restart"
        if guests:
            yield f"that cuts these guests off for some seconds: {guests}"
