"""``loopnet release``: give addresses back, of one guest or of all that libvirt has forgotten."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from ..addresses.store import Store
from ..converge.dhcp_files import publish
from ..daemon import runstate
from ..errors import ConflictError, InputError, NotFoundError
from ..validation import shown
from .publish import put_into_effect
from .shared.inventory import Entry, entries, find, networks_of_files
from .shared.privileges import require_root


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("guest", metavar="GUEST|MAC", nargs="?", default="", help="whose address")
    parser.add_argument(
        "--dead", action="store_true", help="all of guests that libvirt doesn't know any more"
    )
    parser.add_argument("--yes", action="store_true", help="with --dead: do it, else list them")


def run(arguments: Namespace) -> int:
    require_root("release")
    if arguments.dead == bool(arguments.guest):
        raise InputError("name one guest, or give --dead; see: loopnet release --help")
    if arguments.dead:
        return _release_dead(arguments.connect, arguments.yes)
    found = find(_entries(), arguments.guest)
    if not found:
        raise NotFoundError(f"no guest {shown(arguments.guest)} has a reservation; see: loopnet list")
    _release(found)
    return 0


def _release_dead(uri: str, really: bool) -> int:
    listed = _entries()
    dead = [entry for entry in listed if entry.reservation.uuid and not entry.port]
    if dead:
        known = _known_uuids(uri)  # before the lock, as with reserve
        dead = [entry for entry in dead if entry.reservation.uuid not in known]
    if not dead:
        print("nothing to do")
    elif really:
        _release(dead)
    else:
        print("\n".join(f"would release {line(entry)}" for entry in dead))
    return 1 if dead and not really else 0


def _known_uuids(uri: str) -> set[str]:
    from ..daemon.connection import connect

    with connect(uri, read_only=True) as connection:
        return {info.uuid for info in connection.domains()}


def _entries() -> list[Entry]:
    return entries(networks_of_files(), Store())


def _release(chosen: Sequence[Entry]) -> None:
    """Release all of ``chosen`` or none. Raises ConflictError when one of them is live."""
    store = Store()
    published = False
    names = sorted({entry.network_name for entry in chosen})
    with store.locked():
        for entry in chosen:
            _refuse_live(entry)
        for name in names:
            macs = {entry.reservation.mac for entry in chosen if entry.network_name == name}
            before = store.load(name)
            store.save(name, [kept for kept in before if kept.mac not in macs])
            publish(store, name)
            published = published or any(kept.published for kept in before)
        if published or any(map(runstate.is_active, names)):
            put_into_effect(store)
    for entry in chosen:
        print(f"released {line(entry)}")


def _refuse_live(entry: Entry) -> None:
    for port in runstate.live_ports(entry.network_name):
        if port.mac == entry.reservation.mac:
            raise ConflictError(
                f"guest {shown(port.owner)} is running with {entry.loop_address} in network "
                f"{entry.network_name}; shut it down first, then try again"
            )


def line(entry: Entry) -> str:
    """Whose address it is."""
    number, mac, _, name = entry.reservation[:4]
    where = entry.loop_address or f"host number {number}"
    return f"{where} of {name or mac} in network {entry.network_name}"
