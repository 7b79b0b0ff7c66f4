"""``loopnet publish``: open a port of a guest to others, at a port of this host.

After ``loopnet publish vm1 8080:80``, whoever reaches port 8080 of this host reaches port 80 of
vm1: the LAN, containers, other guests and the host itself, also as localhost. The port is open
while the guest's network is active, across restarts, until ``loopnet unpublish`` or ``loopnet
release``. The guest sees the client's own address, or its gateway's if it could not answer that.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence

from ..addresses.publications import check_free, limited, parse_clients, parse_publication
from ..addresses.store import Store
from ..converge.enact import enact
from ..daemon import runstate
from ..errors import ConflictError, HostError, InputError, NotFoundError
from ..host import sockets
from ..model import ANY_ADDRESS, EVERYBODY, NONE, Publication, Reservation
from ..reports.doctor import rival
from ..reports.findings import Listener
from ..validation import shown
from .shared.inventory import Entry, entries, find, networks_of_files
from .shared.ipv6 import has_leased
from .shared.output import note
from .shared.privileges import require_root


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("guest", metavar="GUEST|MAC", help="the guest's name, or the MAC address of its NIC")
    parser.add_argument(
        "ports",
        metavar="[HOST-ADDRESS:]PORT[-PORT]:PORT[-PORT][/udp]",
        help="the host's port, then the guest's; or two ranges",
    )
    parser.add_argument(
        "--from",
        dest="clients",
        metavar="PREFIX",
        help="only for these clients, such as 192.0.2.0/24 or 2001:db8:1::/64; guests count by their addresses in "
        "127.0.0.0/8",
    )


def run(arguments: Namespace) -> int:
    require_root("publish")
    wanted = parse_publication(arguments.ports)
    if arguments.clients is not None:
        wanted = limited(wanted, parse_clients(arguments.clients))
    entry = only_nic(arguments.guest)
    if not wanted.is_ipv4 and entry.network and not entry.network.ipv6:
        raise InputError(
            f"network {entry.network.name} has no IPv6 prefix, and {wanted.clients} is one; give it one: virsh "
            f"net-dumpxml --inactive {entry.network.name} | loopnet rewrite --ipv6 ula"
        )
    if entry.network and entry.network.internet == NONE:
        raise ConflictError(
            f"network {entry.network.name} is isolated (internet='none'), so only the host reaches its "
            f"guests: {entry.loop_address}; to publish ports, remove that attribute: "
            f"virsh net-edit {entry.network.name}"
        )
    if wanted not in entry.reservation.published:
        check_unused(wanted, six=bool(entry.network and entry.network.ipv6_prefixes))
    for line in doubts(wanted, entry):
        note(f"warning: {line}")
    store = Store()
    with store.locked():
        kept = load(store, entry)
        if wanted not in kept.published:
            check_free(wanted, {name: store.load(name) for name in store.networks()})
            save(store, entry, kept, (*kept.published, wanted))
            try:
                enact(store)
            except HostError:  # what this host can't do now no start of a network is to try again
                save(store, entry, kept, kept.published)
                raise
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
        macs = [entry.reservation.mac for entry in found]
        each = macs if len({*macs}) == len(macs) else map(_in_network, found)
        raise InputError(f"guest {shown(who)} has {len(found)} NICs; say which: {', '.join(each)}")
    return found[0]


def _in_network(entry: Entry) -> str:
    """What find() knows it by if the same MAC address is reserved in another network as well: it was moved."""
    return f"{entry.reservation.name or entry.reservation.mac}.{entry.network_name}"


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


def check_unused(wanted: Publication, *, six: bool) -> None:
    """Raise ConflictError if a program of the host has a port of ``wanted``, in a family that it is published in. One
    that has it at an address of 127/8 or ::1 alone keeps it there."""
    waiting = {Listener(*socket[:3]): socket for socket in sockets.waiting()}
    found = rival(wanted, waiting, runstate.active_networks(), six=six)
    if found:
        or_at = f"192.0.2.7:{wanted.port}:{wanted.guest_port}"
        hint = (
            f" or one of this host's addresses, as in: loopnet publish GUEST {or_at}"
            if wanted.is_ipv4
            else ""
        )
        raise ConflictError(
            f"{wanted} can't be published: {waiting[found]}; stop that program, or use another port{hint}"
        )


def line_of(publication: Publication, kept: Reservation, entry: Entry) -> str:
    """Whose port it is, and where others find it."""
    address = entry.network.loop_address(kept.number) if entry.network else f"number {kept.number}"
    host, guest, protocol = publication.texts
    where = "all addresses of this host" if publication.address == ANY_ADDRESS else publication.address
    who = "" if publication.clients == EVERYBODY else f", for {publication.clients} alone"
    port = "ports" if publication.size > 1 else "port"
    name = kept.name or kept.mac
    return f"{port} {guest}/{protocol} of {name} ({address}) at {port} {host} of {where}{who}"


def doubts(wanted: Publication, entry: Entry) -> Iterator[str]:
    """What makes one wonder about it."""
    if wanted.address != ANY_ADDRESS and str(wanted.address) not in _own_addresses():
        yield f"{wanted.address} is not an address of this host now; the port can be reached once it is"
    if wanted.address == ANY_ADDRESS and wanted.is_ipv4:
        for (protocol, port), socket in sorted(sockets.at_localhost().items()):
            if protocol == wanted.protocol and port in wanted.ports:
                yield f"{socket}, and keeps it: this host reaches the guest at its other addresses"
    if entry.network and not wanted.is_ipv4 and not has_leased(entry):
        yield f"the guest has not leased {entry.ipv6_address} (DHCPv6); the port can be reached once it has"


def _own_addresses() -> frozenset[str]:
    from ..host.kernel import links  # pyroute2, which few publications need

    return links.own_addresses()
