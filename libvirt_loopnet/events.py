"""What each of libvirt's events means for the host; hook.py says which may refuse.

Guests' events touch only elements of sets, so that the thousandth guest starts as fast as the first.
Networks' events plan the whole host. Everything is idempotent: a restarted daemon repeats port-created
for every live port.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Iterable

from . import config, pool, ruleset
from .apply import converge, force, survey
from .checks import check_device
from .dhcphosts import parse_static
from .domainxml import Nic, move_networks, parse_domain
from .errors import ConflictError, HostError, InputError, LoopnetError
from .host import dnsmasq, iproute, linux, names, process, runstate
from .log import warn
from .model import Binding, Guest, Network, Options, Port, Reservation
from .netxml import missing_options, parse_hook, parse_hosts
from .prefixes import LOOPBACK, check_overlap
from .reservations import Store
from .state import alias, host_names

# --- networks ------------------------------------------------------------------------------------


def network_start(data: bytes) -> None:
    """Before libvirt makes the bridge: refuse what can't work, and lay out what dnsmasq reads."""
    network, store = _network(data), Store()
    config.load()  # network_started will need it
    process.find("nft")  # and this
    missing = missing_options(data, network)
    if missing:
        raise InputError(
            f"network {network.name} lacks the dnsmasq option {missing[0]!r}; put it right: "
            f"virsh net-dumpxml --inactive {network.name} | loopnet rewrite > new.xml; virsh net-define new.xml"
        )
    with store.locked():
        others = [other for other in runstate.active_networks() if other.name != network.name]
        check_overlap(network.name, network.loop_prefix, [(o.name, o.loop_prefix) for o in others])
        _check_addresses(network, {network.bridge, *(other.bridge for other in others)})
        dnsmasq.sync_hosts(network, _with_own_hosts(store, network, data))


def _check_addresses(network: Network, bridges: set[str]) -> None:
    seen = iproute.look()
    taken = [("lo", entry.address) for entry in seen.lo]
    taken += [(a.dev, a.address) for a in seen.addresses if a.dev != network.bridge]
    for dev, address in taken:
        if address in network.loop_prefix or address in network.transit_prefix:
            raise ConflictError(
                f"network {network.name}: {address} on {dev} is inside {network.loop_prefix}; "
                f"take it away (ip address del {address} dev {dev}) or choose another loop prefix"
            )
        if dev != "lo" and address in LOOPBACK and dev not in bridges and linux.routes_loopback(dev):
            # A guest of a native network: no rule of ours could tell what it gets there from an attack.
            raise ConflictError(
                f"network {network.name}: this host itself is at {address} on {dev}, and loopnet's rules would "
                "cut it off; give it a NIC on a network that is not in 127.0.0.0/8 (loopnet's mode mapped, say)"
            )


def _with_own_hosts(store: Store, network: Network, data: bytes) -> Iterable[Reservation]:
    """The network's reservations, joined by those that its definition brings along.

    What ``<host>`` says goes first, being what libvirt itself would do; ours is for new NICs.
    """
    reservations, errors = _declared(network, store, data, live=())
    if errors:
        raise InputError(errors[0])
    known = {kept.mac for kept in reservations}
    for given in parse_hosts(data):
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
    network, store, host = _network(data), Store(), linux.Linux()
    options = config.load()
    with store.locked():
        try:
            converge(host, survey(host, store, options, starting=network))
            if dnsmasq.drop_static_hosts(network):
                dnsmasq.reload(network.name)
            runstate.note_network(network, data)
        except LoopnetError:
            for error in [*_undo_start(host, store, options, network)]:
                warn(f"network {network.name}, undoing its start: {error}")
            raise


def _undo_start(host: linux.Linux, store: Store, options: Options, network: Network) -> Iterable[str]:
    runstate.forget(network.name)
    yield from force(host, survey(host, store, options, stopping=network))
    yield from _attempts(
        lambda: dnsmasq.stop(network.name),
        lambda: linux.delete_device(network.bridge),
        lambda: dnsmasq.remove(network.name),
    )


def _declared(
    network: Network, store: Store, data: bytes, live: Container[str]
) -> tuple[list[Reservation], list[str]]:
    """The network's reservations as its ``<host>`` entries want them, and what can't be as they want it."""
    static = parse_static(data, network)
    reservations, errors = pool.declare(network, store.load(network.name), static.hosts, live)
    return reservations, [*map(str, static.problems), *errors]


def network_updated(data: bytes) -> None:
    """virsh net-update: reserve what new ``<host>`` entries ask for, and see that all of ours still holds.

    libvirt has changed definition and dnsmasq by now. What can't be followed fails: libvirt tells the user
    if the network is inactive, and else goes on (networkUpdate() in bridge_driver.c), as do we.
    """
    network, store = _network(data), Store()
    with store.locked():
        live = {port.mac for port in runstate.live_ports(network.name)}
        reservations, errors = _declared(network, store, data, live)
        store.save(network.name, reservations)
        if runstate.is_active(network.name):
            host = linux.Linux()
            converge(host, survey(host, store, config.load(), starting=network))
            changed = dnsmasq.sync_hosts(network, reservations)
            if dnsmasq.drop_static_hosts(network) or changed:
                dnsmasq.reload(network.name)
    if errors:
        raise InputError("; ".join(errors))


def network_stopped(data: bytes) -> None:
    """Bridge and dnsmasq are gone: take away all that was the network's, whatever fails on the way."""
    network, store, host = _network(data), Store(), linux.Linux()
    with store.locked():
        runstate.forget(network.name)
        errors = force(host, survey(host, store, _options_or_default(), stopping=network))
        errors += _attempts(lambda: dnsmasq.remove(network.name))
    if errors:
        raise HostError("; ".join(errors) + "; finish with: loopnet sync")


def _options_or_default() -> Options:
    try:
        return config.load()
    except LoopnetError as error:
        warn(f"{error}; going on with the defaults")
        return Options()


def _attempts(*deeds: Callable[[], object]) -> list[str]:
    errors = []
    for deed in deeds:
        try:
            deed()
        except LoopnetError as error:
            errors.append(str(error))
    return errors


def _network(data: bytes) -> Network:
    network, _ = parse_hook(data)
    if network is None:
        raise InputError("the network's XML has no loopnet metadata; make it with: loopnet define")
    return network


# --- ports ---------------------------------------------------------------------------------------


def port_created(data: bytes) -> None:
    """A NIC is about to be plugged in: it gets its address, for good, and is let in."""
    network, port = _port(data)
    known, store = _is_known(port), Store()
    try:
        with store.locked():
            runstate.note_port(port, data)  # first: replacing all rules must include it
            # one in use keeps what it has
            number = None if known else parse_static(data, network).number(port.mac)
            _admit(network, port, store, number)
    except LoopnetError as error:
        if not known:
            _attempts(lambda: runstate.note_deleted(port))
            raise
        # A restarted daemon asks again for a NIC that is in use: nobody is helped by a refusal.
        warn(f"port of {port.owner} on {network.name}: {error}")


def _is_known(port: Port) -> bool:
    return any(known.mac == port.mac for known in runstate.live_ports(port.network))


def _admit(network: Network, port: Port, store: Store, number: int | None) -> None:
    before = store.load(network.name)
    after, kept = pool.reserve(network, before, port.mac, port.owner_uuid, port.owner, number)
    store.save(network.name, after)
    others = [reservation for reservation in after if reservation.mac != kept.mac]
    if others == [reservation for reservation in before if reservation.mac != kept.mac]:
        changed = dnsmasq.add_host(network, kept)
    else:  # a name went from one guest to another
        changed = dnsmasq.sync_hosts(network, after)
    if dnsmasq.drop_static_hosts(network) or changed:
        dnsmasq.reload(network.name)
    guest = Guest(network.name, kept.mac, kept.number, kept.name)
    _change_elements(ruleset.add_elements([network], [guest], []), store)
    if kept.published and kept.number not in {old.number for old in before if old.mac == kept.mac}:
        converge(linux.Linux(), survey(linux.Linux(), store, config.load()))  # its ports lead elsewhere now
    if config.load().names == "hosts":
        names.publish(_names_with(network, after, guest))


def port_deleted(data: bytes) -> None:
    """A NIC is unplugged: it is let in no more; its reservation stays."""
    network, port = _port(data)
    store = Store()
    with store.locked():
        if not runstate.is_active(network.name):
            return  # net-destroy came first, and all of its guests' went with it
        runstate.note_deleted(port)
        for kept in store.load(network.name):
            if kept.mac == port.mac:
                _dismiss(network, Guest(network.name, kept.mac, kept.number, kept.name), store)


def _dismiss(network: Network, guest: Guest, store: Store) -> None:
    # libvirt has forgotten the tap by now, and its name may be another guest's next
    tap = runstate.noted_tap(network.name, guest.mac)
    bindings = [Binding(network.name, tap, guest.mac)] if tap else []
    if _has_clone(network, guest.mac, store):  # some elements are its as well
        host = linux.Linux()
        converge(host, survey(host, store, config.load()))
    else:
        _change_elements(ruleset.delete_elements([network], [guest], bindings), store)
    runstate.forget_tap(network.name, guest.mac)
    names.publish(_names_but(network, guest))


def _has_clone(network: Network, mac: str, store: Store) -> bool:
    """Does another active network know a NIC with this MAC address?"""
    others = [other for other in runstate.active_networks() if other.name != network.name]
    return any(kept.mac == mac for other in others for kept in store.load(other.name))


def _names_with(network: Network, reservations: Iterable[Reservation], guest: Guest) -> list[names.Entry]:
    """The names published now and those of ``guest``; a name may have gone to it from another."""
    present = {entry[0] for entry in names.published()}
    live = [
        Guest(network.name, kept.mac, kept.number, kept.name)
        for kept in reservations
        if network.loop_address(kept.number) in present or kept.mac == guest.mac
    ]
    foreign = [entry for entry in names.published() if entry[0] not in network.loop_prefix]
    return [*foreign, *host_names([network], live)]


def _names_but(network: Network, guest: Guest) -> list[names.Entry]:
    """The names published now, but for that of ``guest``."""
    address = network.loop_address(guest.number)
    return [entry for entry in names.published() if entry[0] != address]


def _port(data: bytes) -> tuple[Network, Port]:
    network, port = parse_hook(data)
    if network is None or port is None:
        raise InputError("the hook's XML has no network port; libvirt runs the hook, not you")
    return network, port


def _change_elements(script: str, store: Store) -> None:
    """Change sets; where they aren't as thought (a MAC on two networks, rules flushed), all is made new."""
    try:
        linux.nft(script)
    except HostError as error:
        warn(f"{error}; replacing all rules")
        host = linux.Linux()
        converge(host, survey(host, store, config.load()))


# --- guests --------------------------------------------------------------------------------------


def guest_start(data: bytes) -> None:
    """The taps are there, the CPUs don't run yet: tie each tap to its NIC's MAC and address.

    Or a restarted daemon has found the guest running; it has written what dnsmasq reads anew by then.
    """
    domain = parse_domain(data)
    store = Store()
    with store.locked():
        networks = {network.name: network for network in runstate.active_networks()}
        bindings = []
        for nic in domain.nics:
            network = networks.get(nic.network)
            number = _number(store, nic) if network else None
            if network and number is not None and nic.tap:
                check_device(f"guest {domain.name}", nic.tap)
                linux.set_alias(nic.tap, alias(domain.name, network, number))
                runstate.note_tap(network.name, nic.mac, nic.tap)
                bindings.append(Binding(network.name, nic.tap, nic.mac))
                if dnsmasq.drop_static_hosts(network):
                    dnsmasq.reload(network.name)
        if bindings:
            _change_elements(ruleset.add_elements(networks.values(), [], bindings), store)


def _number(store: Store, nic: Nic) -> int | None:
    return next((kept.number for kept in store.load(nic.network) if kept.mac == nic.mac), None)


def guest_arrives(data: bytes) -> None:
    """A running guest is about to come from another host: its address must be known here.

    It goes on with the address it has, and no DHCP server is asked. Which one that is, its XML doesn't say,
    and any other number would cut it off.
    """
    moved = {source for source, _ in config.load().move}
    networks = {network.name for network in runstate.active_networks()} - moved  # in another, it asks anew
    domain, store = parse_domain(data), Store()
    for nic in domain.nics:
        if nic.network in networks and _number(store, nic) is None:
            raise ConflictError(
                f"guest {domain.name} brings {nic.mac} to network {nic.network}, where no address is reserved "
                f"for it; reserve here the one it has there: loopnet reserve {nic.mac} ADDRESS"
            )
    guest_move(data)


def guest_move(data: bytes) -> None:
    """A guest comes back from a file or another host: put its NICs where the configuration says.

    Empty output means to libvirt that nothing changed.
    """
    moved = move_networks(data, dict(config.load().move))
    if moved is not data:
        sys.stdout.buffer.write(moved)
        sys.stdout.buffer.flush()
