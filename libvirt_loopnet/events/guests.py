"""What libvirt's events of guests and their NICs mean for the host; hook.py says which may refuse.

A NIC is live from its first port to its last. What libvirt 9.0 tells of ports, A being the one that was there;
each order is in tests/e2e/test_ports.py::

    start, hot-plug, restore, arrival       created A; of a hot-plugged NIC's tap nothing tells
    end, unplugging                         deleted A, when the tap is gone; net-destroy tells nothing
    domif-setlink, update-device            created B, deleted B; link, or nothing, changes (11.3: deleted A)
    update-device that replaces (isolated)  created B, deleted A; the tap stays
    to another network and back             created B there, deleted A; created C, deleted B; the tap stays
    a plug that fails                       created B, deleted B
    restart of the daemon                   created A again, for each port that is left

The hot-plugged tap has no name yet when its port is made: libvirt makes the tap afterwards, and runs no hook any
more (qemuDomainAttachNetDevice in src/qemu/qemu_hotplug.c; of its hooks for domains none is about devices).
Until ``watch`` or ``sync`` has seen it, that NIC is known by its MAC address alone.

A NIC that is plugged into the bridge by itself, <interface type='bridge'>, has no port. Its guest's ``start`` and
``stopped`` tell of it; of a hot-plugged one again nothing does (converge/adopt.py).

What that means for a NIC is in nics.py. Idempotent: a restarted daemon repeats port-created for every live port.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from .. import config
from ..addresses.labels import alias
from ..addresses.senders import siblings
from ..addresses.store import Store
from ..daemon import runstate
from ..errors import ConflictError, HostError, InputError, attempts
from ..guests.domains import Domain, Nic, move_networks, parse_domain
from ..host import dnsmasq
from ..host.kernel.taps import set_alias
from ..log import warn
from ..model import Guest, Network, Port, Reservation
from ..networks.dhcp import static_in, static_of
from ..networks.parsing import Definition, parse_hook
from ..validation import check_device, check_mac, check_uuid
from .nics import bind, change_elements, forget_in_dnsmasq, has_behind, join, leave, replace_all


def port_created(data: bytes) -> None:
    """A NIC is about to be plugged in, or is being updated: it gets its address, for good, and is let in."""
    definition, network, port = _read(data)
    store = Store()
    with store.locked():
        join(network, port, static_of(definition, network), store, data)


def port_deleted(data: bytes) -> None:
    """A port of a NIC is gone; with the last one the NIC is let in no more. Its reservation stays."""
    _, network, port = _read(data)
    store = Store()
    with store.locked():
        if not runstate.is_active(network.name):
            return  # net-destroy came first, and all of its guests' went with it
        runstate.note_deleted(port)
        leave(network, port.mac, store)


def _read(data: bytes) -> tuple[Definition, Network, Port]:
    event = parse_hook(data)
    if event.network is None or event.port is None:
        raise InputError("the hook's XML has no network port; libvirt runs the hook, not you")
    return event.definition, event.network, event.port


def guest_start(data: bytes) -> None:
    """The taps are there, the CPUs don't run yet: tie each tap to its NIC's MAC and address.

    Or a restarted daemon has found the guest running; it has written what dnsmasq reads anew by then.
    """
    domain = parse_domain(data)
    store = Store()
    with store.locked():
        networks = runstate.active_networks()
        found = [(network, nic) for nic in domain.nics if nic.tap and (network := _network_of(nic, networks))]
        for _, nic in found:
            check_device(f"guest {domain.name}", nic.tap)
        found = [(n, nic) for n, nic in found if nic.network or runstate.is_port(nic.tap, n.bridge)]
        _join_all(domain, [(network, nic) for network, nic in found if not nic.network], store)
        script, is_in_front = "", False
        for network, nic in found:
            reservations = store.load(network.name)
            number = _number(reservations, nic)
            if number is not None:
                others = siblings(reservations)
                nic_of_guest = Guest(network.name, nic.mac, number, "")
                _name_tap(nic.tap, alias(domain.name, network, number))
                script += bind(network, nic_of_guest, [nic.tap], others, store)
                is_in_front = is_in_front or has_behind(reservations, domain.uuid)
                if dnsmasq.drop_static_hosts(network):
                    dnsmasq.reload(network.name)
        change_elements(script, store)
        if is_in_front:
            replace_all(store)


def _network_of(nic: Nic, networks: Iterable[Network]) -> Network | None:
    """The active network that the NIC is on: by its name, or by its bridge if libvirt has put it there itself.

    The bridge of one on a network counts for nothing: of a guest that arrives it is the other host's.
    """
    key = nic.network or nic.bridge
    return next((each for each in networks if key == (each.name if nic.network else each.bridge)), None)


def _number(reservations: Iterable[Reservation], nic: Nic) -> int | None:
    return next((kept.number for kept in reservations if kept.mac == nic.mac), None)


def _name_tap(tap: str, name: str) -> None:
    try:
        set_alias(tap, name)
    except HostError as error:  # a name, too
        warn(str(error))


def _join_all(domain: Domain, nics: Sequence[tuple[Network, Nic]], store: Store) -> None:
    """Let in the NICs of a guest that no ports tell of: all of them, or none."""
    joined: list[Port] = []
    before = {network: store.load(network.name) for network, _ in nics}
    what = f"guest {domain.name}"
    for network, nic in nics:
        mac, uuid = check_mac(what, nic.mac), check_uuid(what, domain.uuid)
        port = Port(network.name, mac, domain.name, uuid, tap=nic.tap)
        was_live = runstate.is_live(port)
        try:
            join(network, port, static_in(runstate.definition(network.name), network), store)
        except Exception:
            if joined:
                _take_back_all(joined, before, store)
            raise
        joined += [] if was_live else [port]


def _take_back_all(
    joined: Iterable[Port], before: Mapping[Network, Sequence[Reservation]], store: Store
) -> None:
    """The refusal of one NIC says why; what was done for the others goes."""
    undo: list[Callable[[], object]] = [partial(runstate.forget_port, port) for port in joined]
    for network, reservations in before.items():
        undo.append(partial(store.save, network.name, reservations))
        undo.append(partial(forget_in_dnsmasq, network, reservations))
    for failed in attempts(*undo, lambda: replace_all(store)):
        warn(f"undoing what was done for a guest: {failed}")


def guest_stopped(data: bytes) -> None:
    """A guest is gone, and with it the NICs that no port tells of."""
    domain, store = parse_domain(data), Store()
    with store.locked():
        for network in runstate.active_networks():
            for nic in runstate.noted_portless(network.name):
                if nic.owner_uuid == domain.uuid:
                    runstate.forget_port(nic)
                    leave(network, nic.mac, store)


def guest_arrives(data: bytes) -> None:
    """A running guest is about to come from another host: its address must be known here.

    It goes on with the address it has, and no DHCP server is asked. Which one that is, its XML doesn't say,
    and any other number would cut it off.
    """
    moved = {source for source, _ in config.load().move}
    # in another, it asks anew
    networks = [each for each in runstate.active_networks() if each.name not in moved]
    domain, store = parse_domain(data), Store()
    for nic in domain.nics:
        network = _network_of(nic, networks)
        if network and _number(store.load(network.name), nic) is None:
            raise ConflictError(
                f"guest {domain.name} comes with {nic.mac} on network {network.name}, where no address is reserved "
                f"for it; reserve the one it has on the other host: loopnet reserve {nic.mac} ADDRESS"
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
