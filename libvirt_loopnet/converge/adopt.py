"""NICs on our bridges that no event has told of: those that may come in are noted, and the rest is planned as ever.

A hot-plugged <interface type='bridge'>, what qemu-bridge-helper or a container's engine has put there. libvirt's
own devices are known by its status files, root's alone; for what a session's daemon says of its guests, or a
container of itself, nobody vouches, so that a reservation by hand has to (planning/untold.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..addresses import pool
from ..addresses.behind import is_behind
from ..addresses.labels import alias
from ..addresses.store import Store
from ..daemon import runstate
from ..daemon.domains import live_nics
from ..errors import LoopnetError
from ..guests.interfaces import NETWORK
from ..host import linux
from ..host.kernel.stations import stations
from ..host.kernel.taps import set_alias
from ..log import warn
from ..model import Network, Options, Port, Reservation
from ..networks.dhcp import static_in
from ..planning.state import HostState, Tap, desire
from ..planning.untold import Owner, Scene, Verdict, judge
from ..validation import is_quotable
from .evict import evict


def look(
    store: Store, refused: Iterable[tuple[str, str]] = (), live: Iterable[Port] | None = None
) -> list[tuple[Network, Verdict]]:
    """Who waits to be let in, and who is not; nothing is changed.

    ``refused``: (MAC, device) of what our rules drop, and which bridges don't learn: to tell of, not to let in.
    ``live``: all live NICs, of who knows them.
    """
    networks = [each for each in runstate.active_networks() if linux.is_device(each.bridge)]
    known = {network.name: runstate.live_ports(network.name) for network in networks if live is None}
    for port in live or ():
        known.setdefault(port.network, []).append(port)
    return [
        (network, judge(_scene(network, store.load(network.name), known.get(network.name, []), refused)))
        for network in networks
    ]


def is_anybody(desired: HostState) -> bool:
    """Is there anything on our bridges that is not bound, or was anybody heard who is not let in?

    By what was found already, without a look at all that libvirt has written down.
    """
    bound = {binding.tap for binding in desired.bindings}
    macs = {guest.mac for guest in desired.guests}
    taps = (tap.name for tap in linux.Linux().taps(network.bridge for network in desired.networks))
    return any(tap not in bound for tap in taps) or any(
        mac not in macs for network in desired.networks for mac, _ in stations(network.bridge)
    )


def adopt(store: Store) -> list[str]:
    """Let in who may be, within the store's lock; a line for each. The rules follow when they are next made."""
    lines = []
    for network, verdict in look(store):
        for gone in {*runstate.noted_portless(network.name)} - {*runstate.portless(network.name)}:
            runstate.forget_port(gone)
        for nic in verdict.welcome:
            try:
                number = _admit(network, nic, store)
                lines.append(f"{_called(nic)} at {nic.tap} has {network.loop_address(number)}")
            except LoopnetError as error:  # of one NIC; the others are not to suffer
                warn(f"{_called(nic)} at {nic.tap}: {error}")
    return lines


def _scene(
    network: Network, kept: Sequence[Reservation], live: Sequence[Port], refused: Iterable[tuple[str, str]]
) -> Scene:
    taps = [tap for tap in linux.Linux().taps([network.bridge]) if is_quotable(tap.name)]
    state = desire([network], {network.name: kept}, live, taps, Options())
    behind = {each.mac for each in kept if is_behind(each)}
    carried = {binding.tap: binding.mac for binding in state.bindings if binding.mac not in behind}
    here = {tap.name for tap in taps}
    return Scene(
        network=network.name,
        reservations=kept,
        live=live,
        let_in=frozenset(guest.mac for guest in state.guests),
        bound=frozenset((binding.mac, binding.tap) for binding in state.bindings),
        taps=carried,
        owners=_owners(taps, carried),
        stations=[each for each in stations(network.bridge) if each[1] in here],
        refused=[each for each in refused if each[1] in here],
    )


def _owners(taps: Iterable[Tap], carried: Mapping[str, str]) -> dict[str, Owner]:
    free = {tap.name for tap in taps} - carried.keys()
    return {
        nic.interface.tap: Owner(nic.interface.mac, nic.guest, nic.uuid, nic.interface.kind == NETWORK)
        for nic in live_nics(free)
    }


def _admit(network: Network, nic: Port, store: Store) -> int:
    before = store.load(network.name)
    owner = nic.owner if nic.owner_uuid else ""
    known = any(each.mac == nic.mac for each in before)
    number = None if known else static_in(runstate.definition(network.name), network).number(nic.mac)
    after, kept = pool.reserve(network, before, nic.mac, nic.owner_uuid, owner, number)
    if list(before) != after:
        store.save(network.name, after)
        evict(network, after)
    runstate.note_portless(nic, network.bridge)
    if nic.owner_uuid:  # the device of a container is not ours to mark
        set_alias(nic.tap, alias(kept.name, network, kept.number))
    return kept.number


def _called(nic: Port) -> str:
    return f"guest {nic.owner} ({nic.mac})" if nic.owner_uuid else f"the NIC {nic.mac}"
