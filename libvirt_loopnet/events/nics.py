"""A NIC is let in, tied to its taps, and let in no more: what several events of guests.py come down to.

Elements of sets alone change, so that the thousandth guest starts as fast as the first, and nothing is imported that
only plans for the whole host need. Each refusal leaves the host as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from .. import config
from ..addresses import pool
from ..addresses.behind import is_behind
from ..addresses.labels import host_names
from ..addresses.senders import Siblings, binding, guest, siblings
from ..addresses.store import Store
from ..converge.evict import evict
from ..daemon import runstate
from ..errors import ConflictError, HostError, LoopnetError, attempts
from ..host import dnsmasq, hosts_file
from ..host.kernel.nftables import nft
from ..host.kernel.taps import is_plugged
from ..log import warn
from ..model import Binding, Guest, Network, Port, Reservation
from ..networks.dhcp import Static
from ..ruleset.elements import add_elements, delete_elements
from ..validation import shown


def join(network: Network, port: Port, static: Static, store: Store, data: bytes = b"") -> None:
    """``static``: what the network's definition wants; ``data``: what the hook was given, where it has a port."""
    was_live = runstate.is_live(port)
    undo: list[Callable[[], object]] = []
    try:
        others = runstate.ports_of(network.name, port.mac)
        present = [each for each in others if (each.uuid, each.tap) != (port.uuid, port.tap)]
        if not was_live:
            _refuse_clone(port, present)
        if port.tap:
            runstate.note_portless(port, network.bridge)
        else:
            runstate.note_port(port, data)  # first: replacing all rules must include it
        if not was_live:
            undo.append(lambda: runstate.forget_port(port))
        try:
            _admit(network, port, static, store, undo, is_new=not (present or was_live))
        except Exception:
            for failed in attempts(*undo):
                warn(f"network {network.name}, undoing a port: {failed}")
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


def _admit(
    network: Network,
    port: Port,
    static: Static,
    store: Store,
    undo: list[Callable[[], object]],
    *,
    is_new: bool,
) -> None:
    """Let the NIC in; ``undo`` gets what takes that back, in this order, should it fail."""
    number = static.number(port.mac) if is_new else None  # one in use keeps what it has
    before = store.load(network.name)
    after, kept = pool.reserve(
        network,
        before,
        port.mac,
        port.owner_uuid,
        port.owner,
        number,
        lambda: _in_use(network, before, port.mac),
    )
    old = next((each for each in before if each.mac == kept.mac), None)
    nic = guest(network.name, kept, siblings(after))
    undo.append(lambda: store.save(network.name, before))
    undo.append(lambda: forget_in_dnsmasq(network, before))
    if is_new:
        undo.append(lambda: _forget_in_rules(network, before, nic, store))
    store.save(network.name, after)
    _tell_dnsmasq(network, before, after, kept)
    if old and (old.number, old.uuid or kept.uuid) != (kept.number, kept.uuid):
        replace_all(store)  # what it had goes, from its siblings too; its ports lead elsewhere now
    elif not old and any(each.published for each in after):
        replace_all(store)  # one more who may ask for the ports of others
    elif is_new and has_behind(after, kept.uuid):
        replace_all(store)
    else:
        change_elements(_admitting(network, kept, after, is_new=not (old and old.uuid)), store)
    if not old or old.number != kept.number:
        evict(network, after)
    _publish(lambda: _names_with(network, after, nic) if config.load().names == "hosts" else None)


def _in_use(network: Network, reservations: Sequence[Reservation], mac: str) -> set[int]:
    from ..host import seen  # for a new reservation only: it asks by netlink

    return seen.in_use(network, reservations, mac)


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


def forget_in_dnsmasq(network: Network, before: Sequence[Reservation]) -> None:
    """dnsmasq has these reservations again, and no others."""
    if dnsmasq.sync_hosts(network, before):
        dnsmasq.reload(network.name)


def _forget_in_rules(network: Network, before: Sequence[Reservation], new: Guest, store: Store) -> None:
    if new.also:  # live NICs of its domain were to send as it
        replace_all(store)
    else:
        spare = [] if new.number in {each.number for each in before} else [(network.name, new.number)]
        nft(delete_elements([network], [new], [], spare))


def _publish(entries: Callable[[], list[hosts_file.Entry] | None]) -> None:
    """Publish names, None to leave them: no guest is refused for what they are called."""
    try:
        wanted = entries()
        if wanted is not None:
            hosts_file.publish(wanted)
    except LoopnetError as error:
        warn(str(error))


def leave(network: Network, mac: str, store: Store) -> None:
    """A port of the NIC is gone, or it itself."""
    is_left = bool(runstate.ports_of(network.name, mac))
    reservations = store.load(network.name)
    others = siblings(reservations)
    for kept in reservations:
        if kept.mac == mac:
            nic = guest(network.name, kept, others)
            if is_left:
                change_elements(bind(network, nic, (), others, store), store)
            else:
                _dismiss(network, nic, others, store)


def bind(network: Network, nic: Guest, taps: Iterable[str], others: Siblings, store: Store) -> str:
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
        replace_all(store)
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
    if _has_clone(network, gone.mac, store) or has_behind(kept, uuid):
        replace_all(store)  # some elements are a clone's as well; or more go than its own
    else:
        change_elements(delete_elements([network], [gone], bindings), store)
    runstate.note_taps(network.name, gone.mac, ())
    _publish(lambda: _names_but(network, gone))


def has_behind(reservations: Iterable[Reservation], uuid: str) -> bool:
    """Are there NICs behind this domain's, which come and go with them?"""
    return any(is_behind(kept) and kept.uuid == uuid for kept in reservations)


def _has_clone(network: Network, mac: str, store: Store) -> bool:
    """Does another active network know a NIC with this MAC address?"""
    others = [other for other in runstate.active_networks() if other.name != network.name]
    return any(kept.mac == mac for other in others for kept in store.load(other.name))


def _names_with(network: Network, reservations: Iterable[Reservation], new: Guest) -> list[hosts_file.Entry]:
    """The names published now and those of ``new``; a name may have gone to it from another."""
    present = {entry[0] for entry in hosts_file.published()}
    live = [
        Guest(network.name, kept.mac, kept.number, kept.name)
        for kept in reservations
        if network.loop_address(kept.number) in present or kept.mac == new.mac
    ]
    foreign = [
        entry
        for entry in hosts_file.published()
        if entry[0] not in network.loop_prefix and not (network.ipv6 and entry[0] in network.ipv6)
    ]
    return [*foreign, *host_names([network], live), *_names6(network, live)]


def _names6(network: Network, live: Iterable[Guest]) -> Iterable[hosts_file.Entry]:
    if not network.ipv6:
        return ()
    from ..addresses.labels import host_names6
    from ..host.leases import ipv6_leases

    return host_names6([network], live, ipv6_leases([network]))


def _names_but(network: Network, gone: Guest) -> list[hosts_file.Entry]:
    """The names published now, but for those of ``gone``."""
    addresses = (network.loop_address(gone.number), network.ipv6_address(gone.number))
    return [entry for entry in hosts_file.published() if entry[0] not in addresses]


def change_elements(script: str, store: Store) -> None:
    """Change sets; where they aren't as thought (a MAC on two networks, rules flushed), all is made new."""
    try:
        if script:
            nft(script)
    except HostError as error:
        warn(f"{error}; replacing all rules")
        replace_all(store)


def replace_all(store: Store) -> None:
    # With all that plans need, which takes as long to import as the rest.
    from ..converge.apply import establish, survey
    from ..host import linux

    host = linux.Linux()
    establish(host, survey(host, store, config.load()))
