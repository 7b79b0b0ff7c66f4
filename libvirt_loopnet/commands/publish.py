"""``loopnet publish``: let the LAN reach a port of a guest, at a port of this host.

As in ``loopnet publish vm1 8080:80``: whoever reaches this host at port 8080 reaches port 80 of vm1.
It holds until ``loopnet unpublish`` or ``loopnet release``, across restarts of all, while the guest's
network is active. Guests see the client's own address, unless it is in their own prefix.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence

from .. import config
from ..addresses.publications import check_free, parse_publication
from ..addresses.store import Store
from ..converge import apply
from ..converge.evict import evict
from ..daemon import runstate
from ..errors import InputError, NotFoundError
from ..host import facts, linux
from ..host.kernel import links
from ..model import ANY_ADDRESS, Publication, Reservation
from ..reports.doctor import rival
from ..validation import shown
from .shared.inventory import Entry, entries, find, networks_of_files
from .shared.output import note
from .shared.privileges import require_root


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("guest", metavar="GUEST|MAC", help="a guest's name or its MAC address")
    parser.add_argument(
        "ports", metavar="[HOST-ADDRESS:]PORT:PORT[/udp]", help="the host's port, then the guest's"
    )


def run(arguments: Namespace) -> int:
    require_root("publish")
    wanted = parse_publication(arguments.ports)
    entry = only_nic(arguments.guest)
    for line in doubts(wanted):
        note(f"warning: {line}")
    store = Store()
    with store.locked():
        kept = load(store, entry)
        if wanted not in kept.published:
            check_free(wanted, {name: store.load(name) for name in store.networks()})
            save(store, entry, kept, (*kept.published, wanted))
            put_into_effect(store)
    print(f"published {line_of(wanted, kept, entry)}")
    if not runstate.is_active(entry.network_name):
        note(
            f"network {entry.network_name} is not active; it takes effect with: {_START} {entry.network_name}"
        )
    return 0


_START = "virsh net-start"


def only_nic(who: str) -> Entry:
    """The NIC that ``who`` means. Raises NotFoundError, and InputError if it has several."""
    found = find(entries(networks_of_files(), Store()), who)
    if not found:
        raise NotFoundError(
            f"no guest {shown(who)} has an address; start it once, or: loopnet reserve GUEST ADDRESS"
        )
    if len(found) > 1:
        macs = ", ".join(entry.reservation.mac for entry in found)
        raise InputError(f"guest {shown(who)} has {len(found)} NICs; say which: {macs}")
    return found[0]


def load(store: Store, entry: Entry) -> Reservation:
    """The reservation as it is now that the lock is held. Raises NotFoundError."""
    for kept in store.load(entry.network_name):
        if kept.mac == entry.reservation.mac:
            return kept
    raise NotFoundError(f"{entry.reservation.mac} was released meanwhile; see: loopnet list")


def save(store: Store, entry: Entry, kept: Reservation, published: Sequence[Publication]) -> None:
    """Store what is published of ``kept``."""
    others = [each for each in store.load(entry.network_name) if each.mac != kept.mac]
    store.save(entry.network_name, [*others, kept._replace(published=tuple(sorted(published)))])


def put_into_effect(store: Store) -> None:
    """The host follows what is stored; within the lock. Where it refuses, ``loopnet sync`` may do better."""
    host = linux.Linux()
    desired = apply.survey(host, store, config.load())
    apply.establish(host, desired, thorough=True)
    for network in desired.networks:
        evict(network, store.load(network.name))


def line_of(publication: Publication, kept: Reservation, entry: Entry) -> str:
    """Whose port it is, and where others find it."""
    address = entry.network.loop_address(kept.number) if entry.network else f"number {kept.number}"
    protocol, host, port, guest_port = publication
    where = "all addresses of this host" if host == ANY_ADDRESS else host
    return f"port {guest_port}/{protocol} of {kept.name or kept.mac} ({address}) at port {port} of {where}"


def doubts(wanted: Publication) -> Iterator[str]:
    """What makes one wonder about it."""
    if wanted.address != ANY_ADDRESS and str(wanted.address) not in links.own_addresses():
        yield f"{wanted.address} is no address of this host now; the port can be reached once it is"
    socket = rival(wanted, facts.listeners())
    if socket:
        yield (
            f"a program of this host listens on {socket.address} port {socket.port}/{socket.protocol}; "
            f"while this is published others reach the guest instead; see: ss -lnp sport {socket.port}"
        )
