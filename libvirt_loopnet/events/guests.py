"""What libvirt's events of guests and their NICs mean for the host; hook.py says which may refuse.

They touch only elements of sets, so that the thousandth guest starts as fast as the first, and import
nothing that only plans for the whole host need. Idempotent: a restarted daemon repeats port-created for
every live port.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress

from .. import config
from ..addresses import pool
from ..addresses.labels import alias, host_names
from ..addresses.store import Store
from ..daemon import runstate
from ..errors import ConflictError, HostError, InputError, LoopnetError
from ..guests.domains import Nic, move_networks, parse_domain
from ..host import dnsmasq, names
from ..host.kernel.nftables import nft
from ..host.kernel.taps import set_alias
from ..log import warn
from ..model import Binding, Guest, Network, Port, Reservation
from ..networks.dhcp import parse_static
from ..networks.parsing import parse_hook
from ..ruleset.elements import add_elements, delete_elements
from ..validation import check_device


def port_created(data: bytes) -> None:
    """A NIC is about to be plugged in: it gets its address, for good, and is let in."""
    network, port = _port(data)
    note, store = runstate.port_note(port), Store()
    try:
        with store.locked():
            runstate.note_port(port, data)  # first: replacing all rules must include it
            number = parse_static(data, network).number(port.mac)
            if number is not None and runstate.was_live(port, note):
                number = None  # one in use keeps what it has
            _admit(network, port, store, number)
    except LoopnetError as error:
        if not runstate.was_live(port, note):
            with suppress(LoopnetError):
                runstate.note_deleted(port)
            raise
        # A restarted daemon asks again for a NIC that is in use: nobody is helped by a refusal.
        warn(f"port of {port.owner} on {network.name}: {error}")


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
    _change_elements(add_elements([network], [guest], []), store)
    if kept.published and kept.number not in {old.number for old in before if old.mac == kept.mac}:
        _replace_all(store)  # its ports lead elsewhere now
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
    bindings = [Binding(network.name, tap, guest.mac, guest.number)] if tap else []
    if _has_clone(network, guest.mac, store):  # some elements are its as well
        _replace_all(store)
    else:
        _change_elements(delete_elements([network], [guest], bindings), store)
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
        nft(script)
    except HostError as error:
        warn(f"{error}; replacing all rules")
        _replace_all(store)


def _replace_all(store: Store) -> None:
    from ..converge.apply import converge, survey  # with all that plans need, which takes as long as the rest
    from ..host import linux

    host = linux.Linux()
    converge(host, survey(host, store, config.load()))


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
                set_alias(nic.tap, alias(domain.name, network, number))
                runstate.note_tap(network.name, nic.mac, nic.tap)
                bindings.append(Binding(network.name, nic.tap, nic.mac, number))
                if dnsmasq.drop_static_hosts(network):
                    dnsmasq.reload(network.name)
        if bindings:
            _change_elements(add_elements(networks.values(), [], bindings), store)


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
