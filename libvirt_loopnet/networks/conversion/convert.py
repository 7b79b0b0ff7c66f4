"""A libvirt network becomes loopnet's; its guests keep running.

The order makes every moment safe: the original is on disk before libvirt is told anything, and
libvirt replaces a definition as a whole. Whoever is killed finds either definition, and can convert
or revert again; a restart that was begun is finished then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network
from typing import NamedTuple

from ...addresses import pool
from ...daemon.connection import Connection, NetworkInfo
from ...errors import InputError, LoopnetError
from ...guests.interfaces import spare_name
from ...host.kernel.neighbours import neighbours
from ...ipv6 import Choice
from ...model import Reservation
from ...xml.schema import check_schema
from ...xml.tree import parse
from ..elements import ipv4_elements, network_element, place, prefixes_of
from ..parsing import definition_of, missing_options
from ..refusals import check_rewritable
from ..rewrite import Rewritten, rewrite_network
from .change import Change, Tools, bridge_name, ours, running, strangers
from .claims import Claim, Nic, claims, nics_on, used_addresses
from .originals import Original
from .restart import plug_in, restart_network
from .revert import revert_network

__all__ = ["Change", "Tools", "Wanted", "convert_network", "revert_network"]


class Wanted(NamedTuple):
    """What is asked of a conversion; None: as rewrite_network chooses."""

    loop_prefix: IPv4Network | None = None
    guest_prefix: IPv4Network | None = None
    mode: str | None = None
    addresses: str | None = None
    ipv6: Choice | None = None
    gateway: int | None = None


DEFAULTS = Wanted()


def convert_network(
    tools: Tools,
    name: str,
    wanted: Wanted = DEFAULTS,
    *,
    restart: bool = False,
    dry_run: bool = False,
) -> Change:
    """Make network ``name`` a loopnet network, or another one than it is.

    An active network runs on as it was until restarted: ``restart`` does it, and plugs running
    guests in again. With ``dry_run`` nothing is changed.

    Raises NotFoundError, InputError and ConflictError as rewrite_network does, HostError when
    libvirt refuses; if the new network can't be started, the old one is put back first.
    """
    if dry_run:
        return _planned(tools, name, wanted)[0]
    with tools.originals.locked():
        change, info, claimed = _planned(tools, name, wanted)
        change = _reserve(tools, change, claimed)
        if ours(info.xml) is None:
            tools.originals.save(name, Original(info.xml, info.autostart, info.active))
        if change.after != change.before:
            tools.connection.define(change.after)
        return _restarted(tools, info, change) if restart else change


def _planned(tools: Tools, name: str, wanted: Wanted) -> tuple[Change, NetworkInfo, list[Claim]]:
    info = _convertible(tools.connection, name)
    known = nics_on(tools.connection.domains(), name, spare_name(info.uuid))
    used = _used(tools.connection, info)
    rewritten = _rewritten(tools, info, wanted, used)
    check_schema(
        rewritten.xml, "network", f"network {name}, rewritten"
    )  # libvirt would, when all else is done
    claimed = claims(rewritten.reservations, used, known)
    guests = running(tools.connection, info, known)
    change = Change(
        name=name,
        before=info.xml,
        after=rewritten.xml,
        network=rewritten.network,
        reserved=(),
        warnings=(*rewritten.warnings, *_unknown(info, known, claimed), *strangers(guests, known)),
        plugged=guests,
        restarted=False,
        pending=_pending(tools, info, rewritten),
    )
    return change, info, claimed


def _convertible(connection: Connection, name: str) -> NetworkInfo:
    info = connection.network(name)
    check_rewritable(parse(info.xml))
    if not info.persistent:
        raise InputError(
            f"network {name} is transient; make it persistent first: virsh net-dumpxml {name} > {name}.xml; "
            f"virsh net-define {name}.xml"
        )
    return info


def _used(connection: Connection, info: NetworkInfo) -> dict[str, int]:
    """Host number by MAC address, as guests of the active network have them now."""
    root = network_element(parse(info.live_xml or info.xml))
    if not info.active or not ipv4_elements(root):
        return {}
    prefixes = prefixes_of(root, ours(info.live_xml))
    uses = used_addresses(connection.leases(info.name), neighbours(bridge_name(info.live_xml)))
    found = ((mac, place(str(address), prefixes)) for mac, address in uses.items())
    return {mac: number for mac, number in found if number is not None}


def _rewritten(tools: Tools, info: NetworkInfo, wanted: Wanted, used: Mapping[str, int]) -> Rewritten:
    kept = [reservation.number for reservation in tools.store.load(info.name)]
    return rewrite_network(
        info.xml,
        loop_prefix=wanted.loop_prefix,
        guest_prefix=wanted.guest_prefix,
        mode=wanted.mode,
        addresses=wanted.addresses,
        ipv6=wanted.ipv6,
        gateway=wanted.gateway,
        taken=[(net.name, net.loop_prefix) for net, _ in tools.connection.loopnet_networks()],
        occupied=[*used.values(), *kept],
    )


def _unknown(info: NetworkInfo, known: Sequence[Nic], claimed: Sequence[Claim]) -> list[str]:
    """Running guests whose address was not seen: they will get one that may not be theirs."""
    if not info.active or ours(info.live_xml):
        return []
    seen = {claim.mac for claim in claimed}
    return [
        f"guest {nic.guest}: no address of {nic.interface.mac} is known; if it was set by hand, ping it "
        f"and convert again, or: loopnet reserve {nic.guest} ADDRESS"
        for nic in known
        if nic.live and nic.interface.mac not in seen
    ]


def _pending(tools: Tools, info: NetworkInfo, rewritten: Rewritten) -> bool:
    """Whether the network runs, or should, as something else than it is defined from now on."""
    if tools.originals.restarting(info.name):
        return True
    live = ours(info.live_xml)
    if live is None:
        return info.active
    same = live._replace(bridge="", bridge_mac="") == rewritten.network._replace(bridge="", bridge_mac="")
    return not same or bool(missing_options(definition_of(info.live_xml), live))


def _reserve(tools: Tools, change: Change, claimed: Sequence[Claim]) -> Change:
    """Keep the addresses that guests have: what they use now goes before what was kept once."""
    assert change.network is not None
    warnings, reserved = list(change.warnings), []
    with tools.store.locked():
        reservations = list(tools.store.load(change.name))
        for claim in claimed:
            if not claim.in_use and any(old.mac == claim.mac for old in reservations):
                continue
            try:
                after, kept = pool.reserve(change.network, reservations, *claim[:4])
            except LoopnetError as error:
                warnings.append(str(error))
                continue
            if kept not in reservations:
                reserved.append(kept)
            reservations = after
        tools.store.save(change.name, reservations)
    new: tuple[Reservation, ...] = tuple(reserved)
    return change._replace(reserved=new, warnings=tuple(warnings))


def _restarted(tools: Tools, info: NetworkInfo, change: Change) -> Change:
    if change.pending:
        restart_network(tools, info)
    elif info.active:
        plug_in(tools, info.name)
    return change._replace(restarted=change.pending, pending=False)
