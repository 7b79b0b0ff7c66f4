"""``loopnet revert``: restore a converted network, byte for byte.

Its autostart setting is restored too and, with --restart, whether it is active. Reservations are
kept, in case you convert it again.
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
