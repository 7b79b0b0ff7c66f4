"""What libvirt's events of guests and their NICs mean for the host; hook.py says which may refuse.

A NIC is live from its first port to its last. What libvirt 9.0 tells of ports, A being the one that was there;
each order is in tests/e2e/test_ports.py::

    start, hot-plug, restore, arrival       created A; of a hot-plugged NIC's tap nothing tells
    end, unplugging                         deleted A, when the tap is gone; net-destroy tells nothing
    domif-setlink, update-device            created B, deleted B; link, or nothing, changes
    update-device that replaces (isolated)  created B, deleted A; the tap stays
    to another network and back             created B there, deleted A; created C, deleted B; the tap stays
    a plug that fails                       created B, deleted B
    restart of the daemon                   created A again, for each port that is left

The hot-plugged tap has no name yet when its port is made: libvirt makes the tap afterwards, and runs no hook any
more (qemuDomainAttachNetDevice in src/qemu/qemu_hotplug.c; of its hooks for domains none is about devices).
Until ``watch`` or ``sync`` has seen it, that NIC is known by its MAC address alone.

A NIC that is plugged into the bridge by itself, <interface type='bridge'>, has no port. Its guest's ``start`` and
``stopped`` tell of it; of a hot-plugged one again nothing does (converge/adopt.py).

They touch only elements of sets, so that the thousandth guest starts as fast as the first, and import
nothing that only plans for the whole host need. Idempotent: a restarted daemon repeats port-created for
every live port.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

from .. import config
from ..addresses import pool
from ..addresses.behind import is_behind
from ..addresses.labels import alias, host_names
from ..addresses.senders import Siblings, binding, guest, siblings
from ..addresses.store import Store
from ..converge.evict import evict
from ..daemon import runstate
from ..errors import ConflictError, HostError, InputError, LoopnetError
from ..guests.domains import Domain, Nic, move_networks, parse_domain
from ..host import dnsmasq, names, seen
from ..host.kernel.nftables import nft
from ..host.kernel.taps import is_plugged, set_alias
from ..log import warn
from ..model import Binding, Guest, Network, Port, Reservation
from ..networks.dhcp import parse_static
from ..networks.parsing import parse_hook
from ..ruleset.elements import add_elements, delete_elements
from ..validation import check_device, check_mac, check_uuid, shown


def port_created(data: bytes) -> None:
    """A NIC is about to be plugged in, or is being updated: it gets its address, for good, and is let in."""
    network, port = _port(data)
    store = Store()
    with store.locked():
        _join(network, port, data, store)


def _join(network: Network, port: Port, data: bytes, store: Store) -> None:
    """``data``: where it has a port, what the hook was given; else the network's XML."""
    was_live = runstate.is_live(port)
    try:
        others = runstate.ports_of(network.name, port.mac)
        present = [each for each in others if (each.uuid, each.tap) != (port.uuid, port.tap)]
        if not was_live:
            _refuse_clone(port, present)
        if port.tap:
            runstate.note_portless(port, network.bridge)
        else:
            runstate.note_port(port, data)  # first: replacing all rules must include it
        try:
            _admit(network, port, data, store, is_new=not (present or was_live))
        except Exception:
            if not was_live:
                runstate.forget_port(port)
            raise
    except LoopnetError as error:
        if not was_live:
            raise
        # A restarted daemon asks again for a NIC that is in use: nobody is helped by a refusal.
        warn(f"port of {port.owner} on {network.name}: {error}")


def _refuse_clone(port: Port, present: Iterable[Port]) -> None:
    """A second domain with a live MAC address would take the first one's address from it."""
    other = next((each for each in present if each.owner_uuid != port.owner_uuid), None)
    if other:
        raise ConflictError(
            f"guest {shown(port.owner)} has the MAC address {port.mac}, and so has guest {shown(other.owner)}, which "
            f"runs on network {port.network}; delete the line with {port.mac} in: virsh edit {_quoted(port.owner)} "
            "(libvirt makes a new one)"
        )


def _quoted(name: str) -> str:
    from shlex import quote  # for a refusal only

    return quote(name)


def _admit(network: Network, port: Port, data: bytes, store: Store, *, is_new: bool) -> None:
    """Let the NIC in; nothing has changed when that fails."""
    number = parse_static(data, network).number(port.mac) if is_new else None  # one in use keeps what it has
    before = store.load(network.name)
    after, kept = pool.reserve(
        network,
        before,
        port.mac,
        port.owner_uuid,
        port.owner,
        number,
        lambda: seen.in_use(network, before, port.mac),
    )
    old = next((each for each in before if each.mac == kept.mac), None)
    nic = guest(network.name, kept, siblings(after))
    try:
        store.save(network.name, after)
        _tell_dnsmasq(network, before, after, kept)
        if old and (old.number, old.uuid or kept.uuid) != (kept.number, kept.uuid):
            _replace_all(store)  # what it had goes, from its siblings too; its ports lead elsewhere now
        elif not old and any(each.published for each in after):
            _replace_all(store)  # one more who may ask for the ports of others
        elif is_new and _has_behind(after, kept.uuid):
            _replace_all(store)
        else:
            _change_elements(_admitting(network, kept, after, is_new=not (old and old.uuid)), store)
        if not old or old.number != kept.number:
            evict(network, after)
    except Exception:
        _take_back(network, port, before, nic if is_new else None, store)
        raise
    _publish(lambda: _names_with(network, after, nic) if config.load().names == "hosts" else None)


def _tell_dnsmasq(
    network: Network, before: Iterable[Reservation], after: Iterable[Reservation], kept: Reservation
) -> None:
    others = [reservation for reservation in after if reservation.mac != kept.mac]
    if others == [reservation for reservation in before if reservation.mac != kept.mac]:
        changed = dnsmasq.add_host(network, kept)
    else:  # a name went from one guest to another
        changed = dnsmasq.sync_hosts(network, after)
    if dnsmasq.drop_static_hosts(network) or changed:
        dnsmasq.reload(network.name)


def _admitting(network: Network, kept: Reservation, all_kept: Sequence[Reservation], is_new: bool) -> str:
    """What nft adds for a NIC; where it is new, its domain's live NICs may send as it from now on."""
    others = siblings(all_kept)
    nics = [kept]
    if is_new and kept.mac in others:
        nics += [other for other in others[kept.mac] if runstate.ports_of(network.name, other.mac)]
    taps = [(nic, tap) for nic in nics[1:] for tap in runstate.noted_taps(network.name, nic.mac)]
    return add_elements(
        [network],
        [guest(network.name, nic, others) for nic in nics],
        [binding(network.name, tap, nic.mac, nic.number, others) for nic, tap in taps],
        [(network.name, number) for number in kept.numbers],
    )


def _take_back(
    network: Network, port: Port, before: Sequence[Reservation], new: Guest | None, store: Store
) -> None:
    """What was done for a NIC that is refused; ``new`` unless it was live before."""

    def forget_in_dnsmasq() -> None:
        if dnsmasq.sync_hosts(network, before):
            dnsmasq.reload(network.name)

    def forget_in_rules() -> None:
        if new and new.also:  # live NICs of its domain were to send as it
            runstate.forget_port(port)
            _replace_all(store)
        elif new:
            spare = [] if new.number in {each.number for each in before} else [(network.name, new.number)]
            nft(delete_elements([network], [new], [], spare))

    def forget_in_store() -> None:
        store.save(network.name, before)

    for undo in (forget_in_store, forget_in_dnsmasq, forget_in_rules):
        try:
            undo()
        except LoopnetError as error:  # the refusal says why
            warn(f"network {network.name}, undoing a port: {error}")


def _publish(entries: Callable[[], list[names.Entry] | None]) -> None:
    """Publish names, None to leave them: no guest is refused for what they are called."""
    try:
        wanted = entries()
        if wanted is not None:
            names.publish(wanted)
    except LoopnetError as error:
        warn(str(error))


def port_deleted(data: bytes) -> None:
    """A port of a NIC is gone; with the last one the NIC is let in no more. Its reservation stays."""
    network, port = _port(data)
    store = Store()
    with store.locked():
        if not runstate.is_active(network.name):
            return  # net-destroy came first, and all of its guests' went with it
        runstate.note_deleted(port)
        _leave(network, port.mac, store)


def guest_stopped(data: bytes) -> None:
    """A guest is gone, and with it the NICs that no port tells of."""
    domain, store = parse_domain(data), Store()
    with store.locked():
        for network in runstate.active_networks():
            for nic in runstate.noted_portless(network.name):
                if nic.owner_uuid == domain.uuid:
                    runstate.forget_port(nic)
                    _leave(network, nic.mac, store)


def _leave(network: Network, mac: str, store: Store) -> None:
    """A port of the NIC is gone, or it itself."""
    is_left = bool(runstate.ports_of(network.name, mac))
    reservations = store.load(network.name)
    others = siblings(reservations)
    for kept in reservations:
        if kept.mac == mac:
            nic = guest(network.name, kept, others)
            if is_left:
                _change_elements(_bind(network, nic, (), others, store), store)
            else:
                _dismiss(network, nic, others, store)


def _bind(network: Network, nic: Guest, taps: Iterable[str], others: Siblings, store: Store) -> str:
    """nft commands that tie a NIC to ``taps`` as well, and no more to those that it has lost; '' for no change."""
    known = runstate.noted_taps(network.name, nic.mac)
    kept = [tap for tap in known if tap in taps or is_plugged(tap, nic.mac, network.bridge)]
    here = [*kept, *(tap for tap in taps if tap not in kept)]
    lost = [tap for tap in known if tap not in kept]
    if here != known:
        runstate.note_taps(network.name, nic.mac, here)
    if not lost:
        return add_elements([network], [], _bindings(network, nic, taps, others))
    gone, left = (_bindings(network, nic, which, others) for which in (lost, here))
    if _has_clone(network, nic.mac, store):  # some elements are its as well
        _replace_all(store)
        gone = []
    # What a NIC's taps have in common goes with the lost ones, and comes back with the others.
    return delete_elements([network], [], gone) + add_elements([network], [], left)


def _bindings(network: Network, nic: Guest, taps: Iterable[str], others: Siblings) -> list[Binding]:
    return [binding(network.name, tap, nic.mac, nic.number, others) for tap in taps]


def _dismiss(network: Network, gone: Guest, others: Siblings, store: Store) -> None:
    # libvirt has forgotten the tap by now, and its name may be another guest's next
    bindings = _bindings(network, gone, runstate.noted_taps(network.name, gone.mac), others)
    kept = store.load(network.name)
    uuid = next((each.uuid for each in kept if each.mac == gone.mac), "")
    if _has_clone(network, gone.mac, store) or _has_behind(kept, uuid):
        _replace_all(store)  # some elements are a clone's as well; or more go than its own
    else:
        _change_elements(delete_elements([network], [gone], bindings), store)
    runstate.note_taps(network.name, gone.mac, ())
    _publish(lambda: _names_but(network, gone))


def _has_behind(reservations: Iterable[Reservation], uuid: str) -> bool:
    """Are there NICs behind this domain's, which come and go with them?"""
    return any(is_behind(kept) and kept.uuid == uuid for kept in reservations)


def _has_clone(network: Network, mac: str, store: Store) -> bool:
    """Does another active network know a NIC with this MAC address?"""
    others = [other for other in runstate.active_networks() if other.name != network.name]
    return any(kept.mac == mac for other in others for kept in store.load(other.name))


def _names_with(network: Network, reservations: Iterable[Reservation], new: Guest) -> list[names.Entry]:
    """The names published now and those of ``new``; a name may have gone to it from another."""
    present = {entry[0] for entry in names.published()}
    live = [
        Guest(network.name, kept.mac, kept.number, kept.name)
        for kept in reservations
        if network.loop_address(kept.number) in present or kept.mac == new.mac
    ]
    foreign = [
        entry
        for entry in names.published()
        if entry[0] not in network.loop_prefix and not (network.ipv6 and entry[0] in network.ipv6)
    ]
    return [*foreign, *host_names([network], live), *_names6(network, live)]


def _names6(network: Network, live: Iterable[Guest]) -> Iterable[names.Entry]:
    if not network.ipv6:
        return ()
    from ..addresses.labels import host_names6
    from ..host.leases import ipv6_leases

    return host_names6([network], live, ipv6_leases([network]))


def _names_but(network: Network, gone: Guest) -> list[names.Entry]:
    """The names published now, but for those of ``gone``."""
    addresses = (network.loop_address(gone.number), network.ipv6_address(gone.number))
    return [entry for entry in names.published() if entry[0] not in addresses]


def _port(data: bytes) -> tuple[Network, Port]:
    network, port = parse_hook(data)
    if network is None or port is None:
        raise InputError("the hook's XML has no network port; libvirt runs the hook, not you")
    return network, port


def _change_elements(script: str, store: Store) -> None:
    """Change sets; where they aren't as thought (a MAC on two networks, rules flushed), all is made new."""
    try:
        if script:
            nft(script)
    except HostError as error:
        warn(f"{error}; replacing all rules")
        _replace_all(store)


def _replace_all(store: Store) -> None:
    # With all that plans need, which takes as long to import as the rest.
    from ..converge.apply import establish, survey
    from ..host import linux

    host = linux.Linux()
    establish(host, survey(host, store, config.load()))


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
        script, has_behind = "", False
        for network, nic in found:
            reservations = store.load(network.name)
            number = _number(reservations, nic)
            if number is not None:
                others = siblings(reservations)
                nic_of_guest = Guest(network.name, nic.mac, number, "")
                _name_tap(nic.tap, alias(domain.name, network, number))
                script += _bind(network, nic_of_guest, [nic.tap], others, store)
                has_behind = has_behind or _has_behind(reservations, domain.uuid)
                if dnsmasq.drop_static_hosts(network):
                    dnsmasq.reload(network.name)
        _change_elements(script, store)
        if has_behind:
            _replace_all(store)


def _network_of(nic: Nic, networks: Iterable[Network]) -> Network | None:
    """The active network that the NIC is on: by its name, or by its bridge if libvirt has put it there itself.

    The bridge of one on a network counts for nothing: of a guest that arrives it is the other host's.
    """
    key = nic.network or nic.bridge
    return next((each for each in networks if key == (each.name if nic.network else each.bridge)), None)


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
            _join(network, port, runstate.definition(network.name), store)
        except Exception:
            if joined:
                _take_back_all(joined, before, store)
            raise
        joined += [] if was_live else [port]


def _take_back_all(
    joined: Iterable[Port], before: Mapping[Network, Sequence[Reservation]], store: Store
) -> None:
    """The refusal of one NIC says why; what was done for the others goes."""
    for port in joined:
        runstate.forget_port(port)
    try:
        for network, reservations in before.items():
            store.save(network.name, reservations)
            if dnsmasq.sync_hosts(network, reservations):
                dnsmasq.reload(network.name)
        _replace_all(store)
    except LoopnetError as error:
        warn(f"undoing what was done for a guest: {error}")


def _name_tap(tap: str, name: str) -> None:
    try:
        set_alias(tap, name)
    except HostError as error:  # a name, too
        warn(str(error))


def _number(reservations: Iterable[Reservation], nic: Nic) -> int | None:
    return next((kept.number for kept in reservations if kept.mac == nic.mac), None)


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
                f"guest {domain.name} brings {nic.mac} to network {network.name}, where no address is reserved "
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
