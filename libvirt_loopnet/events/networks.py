"""What libvirt's events of networks mean for the host; hook.py says which may refuse.

They plan the whole host, and are idempotent. Those of guests are in guests.py.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from .. import config, process
from ..addresses import pool
from ..addresses.store import Store
from ..converge.apply import establish, force, survey
from ..converge.evict import evict
from ..daemon import leftover, runstate
from ..errors import ConflictError, HostError, InputError, LoopnetError, attempts
from ..host import confinement, dnsmasq, leases, linux, sockets
from ..host.kernel import iproute
from ..ipv6 import check_ipv6_overlap
from ..log import warn
from ..model import Network, Options, Reservation
from ..networks.dhcp import static_of
from ..networks.dnsmasq_options import tftp_options
from ..networks.parsing import Definition, check_options, given_options, hosts_of, parse_hook
from ..prefixes import LOOPBACK, check_overlap


def network_start(data: bytes) -> None:
    """Before libvirt makes the bridge: refuse what can't work, and lay out what dnsmasq reads."""
    definition, network = _read(data)
    store = Store()
    if leftover.is_here():
        raise HostError(
            f"network {network.name}: libvirt-loopnet was removed; install it, or use another network"
        )
    options = config.load()
    check_options(definition, network)
    denied = confinement.of_reservations()
    if denied:
        raise HostError(f"network {network.name}: {denied}")
    _clear_away(network)
    given, tftp = given_options(definition), tftp_options(definition)
    _check_sockets(network, "port=0" not in given)
    with store.locked():
        others = [other for other in runstate.active_networks() if other.name != network.name]
        check_overlap(network.name, network.loop_prefix, [(o.name, o.loop_prefix) for o in others])
        if network.ipv6:
            check_ipv6_overlap(network.name, network.ipv6, [(o.name, o.ipv6) for o in others if o.ipv6])
        _check_addresses(network, {network.bridge, *(other.bridge for other in others)})
        survey(linux.Linux(), store, options)  # what network_started can't read is better said now
        process.find("nft")
        before = store.load(network.name)
        try:
            dnsmasq.sync_hosts(network, _with_own_hosts(store, network, definition))
            obstacle = leases.prepare(network, options.lease_addresses, given, more=tftp)
        except LoopnetError:
            for error in attempts(
                lambda: store.save(network.name, before),
                lambda: dnsmasq.remove(network.name),
                lambda: leases.remove(network.name, network.bridge),
            ):
                warn(f"network {network.name}, undoing its start: {error}")
            raise
    if obstacle:
        warn(f"network {network.name}: libvirt will list guest addresses, since {obstacle}")


def _clear_away(network: Network) -> None:
    """Bridge and dnsmasq of a start that libvirt has given up, and nobody has taken away: another program's hook has
    failed, or ours was killed."""
    if not runstate.is_saved(network.name):
        dnsmasq.stop(network.name)
        if linux.is_bridge(network.bridge, network.bridge_mac):
            linux.delete_device(network.bridge)


def _check_sockets(network: Network, dns: bool) -> None:
    """Refuse where dnsmasq will not start; say who can't be reached any more."""
    host = network.loop_address(network.host)
    rivals = sockets.rivals(host, dns)
    if rivals:
        raise ConflictError(
            f"network {network.name}: {rivals[0]}, which its dnsmasq needs at {host}; stop that program or "
            "make it listen only on the addresses it needs (not 0.0.0.0 or ::)"
        )
    for socket in sockets.inside(network.loop_prefix):
        warn(
            f"network {network.name}: {socket}, inside {network.loop_prefix}; "
            "nobody reaches it there while the network is up"
        )


def _check_addresses(network: Network, bridges: set[str]) -> None:
    seen = iproute.look()
    taken = [("lo", entry.address) for entry in seen.lo]
    taken += [(a.dev, a.address) for a in seen.addresses if a.dev != network.bridge]
    for dev, address in taken:
        if address in network.loop_prefix or address in network.transit_prefix:
            raise ConflictError(
                f"network {network.name}: {address} on {dev} is inside {network.loop_prefix}; "
                f"remove it (ip address del {address} dev {dev}) or choose another loop prefix"
            )
        if dev != "lo" and address in LOOPBACK and dev not in bridges and linux.routes_loopback(dev):
            # A guest of a native network: no rule of ours could tell what it gets there from an attack.
            raise ConflictError(
                f"network {network.name}: this host itself is at {address} on {dev}, and loopnet's rules would "
                "cut it off; give it a NIC on a network that is not in 127.0.0.0/8 (loopnet's mapped mode will do)"
            )


def _with_own_hosts(store: Store, network: Network, definition: Definition) -> Iterable[Reservation]:
    """The network's reservations, joined by those that its definition brings along.

    What ``<host>`` says goes first, being what libvirt itself would do; ours is for new NICs.
    """
    reservations, errors = _declared(network, store, definition, live=())
    if errors:
        raise InputError(errors[0])
    known = {kept.mac for kept in reservations}
    for given in hosts_of(definition, network):
        if given.mac and given.mac not in known:
            reservations, _ = pool.reserve(
                network, reservations, given.mac, given.uuid, given.name, given.number
            )
    store.save(network.name, reservations)
    return reservations


def network_started(data: bytes) -> None:
    """Bridge and dnsmasq are there: the data plane goes up, or everything comes down again.

    libvirt leaves bridge and dnsmasq behind when this fails (networkShutdownNetwork returns early for
    a network not yet active), so they are taken away here.
    """
    _, network = _read(data)
    store, host = Store(), linux.Linux()
    options = config.load()
    with store.locked():
        try:
            establish(host, survey(host, store, options, starting=network))
            if dnsmasq.drop_static_hosts(network):
                dnsmasq.reload(network.name)
            runstate.note_network(network, data)
        except LoopnetError:
            for error in [*_undo_start(host, store, options, network)]:
                warn(f"network {network.name}, undoing its start: {error}")
            raise


def _undo_start(host: linux.Linux, store: Store, options: Options, network: Network) -> Iterable[str]:
    runstate.forget(network.name)
    errors: list[str] = []
    yield from attempts(
        lambda: errors.extend(force(host, survey(host, store, options, stopping=network))),
        lambda: dnsmasq.stop(network.name),
        lambda: linux.delete_device(network.bridge),
        lambda: dnsmasq.remove(network.name),
        lambda: leases.remove(network.name, network.bridge),
    )
    yield from errors


def _declared(
    network: Network, store: Store, definition: Definition, live: Container[str]
) -> tuple[list[Reservation], list[str]]:
    """The network's reservations as its ``<host>`` entries want them, and what can't be as they want it."""
    static = static_of(definition, network)
    reservations, errors = pool.declare(network, store.load(network.name), static.hosts, live)
    return reservations, [*map(str, static.problems), *errors]


def network_updated(data: bytes) -> None:
    """virsh net-update: reserve what new ``<host>`` entries ask for, and see that all of ours still holds.

    libvirt has changed definition and dnsmasq by now. What can't be followed fails: libvirt tells the user
    if the network is inactive, and else goes on (networkUpdate() in bridge_driver.c), as do we.
    """
    definition, network = _read(data)
    store = Store()
    with store.locked():
        live = {port.mac for port in runstate.live_ports(network.name)}
        before = store.load(network.name)
        reservations, errors = _declared(network, store, definition, live)
        try:
            _update(network, store, reservations)
        except LoopnetError:
            for error in attempts(lambda: _update(network, store, before)):
                warn(f"network {network.name}, undoing its update: {error}")
            raise
    if errors:
        raise InputError("; ".join(errors))


def _update(network: Network, store: Store, reservations: Sequence[Reservation]) -> None:
    store.save(network.name, reservations)
    if runstate.is_active(network.name):
        if dnsmasq.sync_hosts(network, reservations) | dnsmasq.drop_static_hosts(network):
            dnsmasq.reload(network.name)
        host = linux.Linux()
        establish(host, survey(host, store, config.load(), starting=network))
        evict(network, reservations)


def network_stopped(data: bytes) -> None:
    """Bridge and dnsmasq are gone: take away all that was the network's, whatever fails on the way."""
    _, network = _read(data)
    store, host = Store(), linux.Linux()
    with store.locked():
        runstate.forget(network.name)
        errors = force(host, survey(host, store, _options_or_default(), stopping=network))
        errors += attempts(
            lambda: dnsmasq.remove(network.name), lambda: leases.remove(network.name, network.bridge)
        )
    leftover.end()
    if errors:
        raise HostError("; ".join(errors) + "; finish with: loopnet sync")


def _options_or_default() -> Options:
    try:
        return config.load()
    except LoopnetError as error:
        warn(f"{error}; continuing with the defaults")
        return Options()


def _read(data: bytes) -> tuple[Definition, Network]:
    event = parse_hook(data)
    if event.network is None:
        raise InputError("the network's XML has no loopnet metadata; make it with: loopnet define")
    return event.definition, event.network
