"""``loopnet revert``: a converted network becomes what it was, to the byte.

So does whether libvirt starts it by itself, and, with --restart, whether it is active.
Reservations are kept, should it be converted once more.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..networks.conversion.revert import revert_network
from .shared import conversion


def add_arguments(parser: ArgumentParser) -> None:
    conversion.add_arguments(parser)


def run(arguments: Namespace) -> int:
    with conversion.open_connection(arguments, "revert") as connection:
        change = revert_network(
            conversion.tools(connection),
            arguments.network,
            restart=arguments.restart,
            dry_run=conversion.is_dry(arguments),
        )
    conversion.tell(arguments, change, "revert")
    return 0
