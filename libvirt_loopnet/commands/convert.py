"""``loopnet convert``: turn a libvirt network into a loopnet network. Its guests need no change.

Guests keep their addresses; the host reaches them at addresses in 127.0.0.0/8. An active network
does not change until it is restarted. loopnet revert restores everything.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..networks.conversion.convert import Wanted, convert_network
from .shared import conversion, prefix_options


def add_arguments(parser: ArgumentParser) -> None:
    conversion.add_arguments(parser)
    prefix_options.add(parser)
    prefix_options.add_gateway(parser)


def run(arguments: Namespace) -> int:
    wanted = Wanted(*prefix_options.read(arguments), gateway=arguments.gateway)
    with conversion.open_connection(arguments, "convert") as connection:
        change = convert_network(
            conversion.tools(connection),
            arguments.network,
            wanted,
            restart=arguments.restart,
            dry_run=conversion.is_dry(arguments),
        )
    conversion.tell(arguments, change, "convert")
    return 0
