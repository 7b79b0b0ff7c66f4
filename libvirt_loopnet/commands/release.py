"""``loopnet release``: give back the addresses of a guest, or of all that libvirt no longer knows.

``--also`` and ``--shared`` give back one additional address and leave the rest; a shared one for
the named guests, or for all. Both take effect at once, even if a guest uses the address.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from ..addresses import pool
from ..addresses.store import Store
from ..converge.dhcp_files import publish
from ..converge.enact import enact
from ..daemon import runstate
from ..errors import ConflictError, InputError, NotFoundError
from ..validation import shown
from .reserve import parse_address, place
from .shared.inventory import Entry, entries, find, networks_of_files
from .shared.privileges import require_root


def add_arguments(parser: ArgumentParser) -> None:
    parser.usage = (
        "loopnet release GUEST|MAC\n"
        "       loopnet release GUEST|MAC --also ADDRESS\n"
        "       loopnet release --shared ADDRESS [GUEST|MAC...]\n"
        "       loopnet release --dead [--yes]"
    )
    parser.add_argument("guests", metavar="GUEST|MAC", nargs="*", help="whose address to give back")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--also", metavar="ADDRESS", help="only this additional address")
    what.add_argument(
        "--shared", metavar="ADDRESS", help="only this shared address; for all its guests if none is named"
    )
    what.add_argument("--dead", action="store_true", help="addresses of guests that libvirt no longer knows")
    parser.add_argument("--yes", action="store_true", help="with --dead: give them back, not just list them")


def run(arguments: Namespace) -> int:
    require_root("release")
    if arguments.shared is not None:
        return _release_further(arguments.guests, arguments.shared, shared=True)
    if len(arguments.guests) != int(not arguments.dead):
        raise InputError("name one guest, or give --dead; see: loopnet release --help")
    if arguments.dead:
        return _release_dead(arguments.connect, arguments.yes)
    if arguments.also is not None:
        return _release_further(arguments.guests, arguments.also, shared=False)
    _release(_found(_entries(), arguments.guests[0]))
    return 0


def _found(listed: Sequence[Entry], guest: str) -> list[Entry]:
    found = find(listed, guest)
    if not found:
        raise NotFoundError(f"no guest {shown(guest)} has a reservation; see: loopnet list")
    return found


def _release_further(guests: Sequence[str], text: str, *, shared: bool) -> int:
    """One that was reserved with --also or --shared: for these ``guests``, or for all."""
    found = networks_of_files()
    listed = entries(found, Store())
    mine = [_found(listed, guest) for guest in guests]
    network, number = place(parse_address(text), found.known, [entry for each in mine for entry in each])
    macs = [{entry.reservation.mac for entry in each if entry.network == network} for each in mine]
    macs = macs or [{entry.reservation.mac for entry in listed if entry.network == network}]
    store = Store()
    with store.locked():
        before = store.load(network.name)
        holders = {kept.mac for kept in before if number in (kept.shared if shared else kept.also)}
        for who, each in zip([f"guest {shown(guest)}" for guest in guests] or ["any guest"], macs):
            if not each & holders:
                how = "reserved as shared" if shared else "reserved with --also"
                raise NotFoundError(
                    f"{network.loop_address(number)} is not {how} for {who}; see: loopnet list"
                )
        released = holders.intersection(set().union(*macs))
        store.save(network.name, pool.reduce(before, released, number, shared=shared))
        if runstate.is_active(network.name):
            enact(store)
    for kept in before:
        if kept.mac in released:
            print(
                f"released {network.loop_address(number)} of {kept.name or kept.mac} in network {network.name}"
            )
    return 0


def _release_dead(uri: str, really: bool) -> int:
    listed = _entries()
    dead = [entry for entry in listed if entry.reservation.uuid and not entry.port]
    if dead:
        known = _known_uuids(uri)  # before the lock, as with reserve
        # other drivers' guests, which this connection doesn't know, have definitions
        dead = [entry for entry in dead if entry.reservation.uuid not in known and not entry.guest]
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
            enact(store)
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
    where = str(entry.loop_address or f"host number {number}")
    if entry.network:
        where = ", ".join(str(entry.network.loop_address(each)) for each in entry.reservation.numbers)
    return f"{where} of {name or mac} in network {entry.network_name}"
