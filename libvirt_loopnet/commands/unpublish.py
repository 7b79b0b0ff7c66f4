"""``loopnet unpublish``: close a port that ``loopnet publish`` opened; its connections end at once.

The host's port or range is enough if it is unambiguous: ``loopnet unpublish vm1 8080``.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..addresses.publications import parse_publication
from ..addresses.store import Store
from ..converge.enact import enact
from ..errors import InputError, NotFoundError
from ..model import EVERYBODY, Publication, Reservation
from ..validation import shown
from .publish import line_of, load, save
from .shared.inventory import entries, find, networks_of_files
from .shared.privileges import require_root


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("guest", metavar="GUEST|MAC", help="the guest's name, or a MAC address of it")
    parser.add_argument(
        "ports",
        metavar="PORTS",
        nargs="?",
        default="",
        help="as loopnet list shows them, or only the host's",
    )
    parser.add_argument("--all", action="store_true", help="all published ports of the guest")


def run(arguments: Namespace) -> int:
    require_root("unpublish")
    if arguments.all == bool(arguments.ports):
        raise InputError("give one publication, or --all; see: loopnet unpublish --help")
    found = find(entries(networks_of_files(), Store()), arguments.guest)
    store = Store()
    closed = []
    with store.locked():
        current = [(entry, load(store, entry)) for entry in found]
        for entry, kept in current:
            gone = kept.published if arguments.all else _meant(arguments.ports, kept)
            if gone:
                save(store, entry, kept, [each for each in kept.published if each not in gone])
                closed += [line_of(each, kept, entry) for each in gone]
        if closed:
            enact(store)
    if not closed:
        what = "nothing" if arguments.all else f"no {arguments.ports[:60]}"
        raise NotFoundError(f"{what} of guest {shown(arguments.guest)} is published; see: loopnet list")
    print("\n".join(f"unpublished {line}" for line in closed))
    return 0


def _meant(ports: str, kept: Reservation) -> tuple[Publication, ...]:
    """What ``ports`` names: in full, or by the host's port. Raises InputError."""
    bare, slash, protocol = ports.partition("/")
    if ":" in bare:
        exact = parse_publication(ports)
        return tuple(each for each in kept.published if exact in (each, each._replace(clients=EVERYBODY)))
    wanted = parse_publication(f"{bare}:{bare}{slash}{protocol}")
    found = [each for each in kept.published if (each.port, each.size) == (wanted.port, wanted.size)]
    found = [each for each in found if not slash or each.protocol == protocol]
    if len(found) > 1:
        raise InputError(f"{ports} can be any of {', '.join(map(str, found))}; say which")
    return tuple(found)
