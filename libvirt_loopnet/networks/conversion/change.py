"""What convert and revert share: what they work with, and what they report."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from ...addresses.store import Store
from ...daemon.connection import Connection, NetworkInfo
from ...errors import NotFoundError
from ...model import Network, Reservation
from ...plugging.replug import Plugs
from ...xml.tree import parse
from ..elements import bridge_of, describe, network_element, own_element
from .claims import Nic
from .originals import Originals


class Tools(NamedTuple):
    """What convert and revert work with."""

    connection: Connection
    store: Store
    originals: Originals
    plugs: Plugs
    settle: Callable[[], object]
    """Brings the host in line after guests were plugged in again: what loopnet sync does."""


class Change(NamedTuple):
    """What convert or revert did, or with ``dry_run`` would do."""

    name: str
    before: bytes
    """The definition, b'' when there was none."""
    after: bytes
    network: Network | None
    """The loopnet network it is now, None after a revert."""
    reserved: tuple[Reservation, ...]
    """Guests whose addresses are kept from now on."""
    warnings: tuple[str, ...]
    plugged: tuple[str, ...]
    """Running guests on the network: a restart interrupts their link for seconds."""
    restarted: bool
    pending: bool
    """The network runs, or was stopped by us, and is not yet what its definition says."""


def ours(xml: bytes) -> Network | None:
    """The loopnet network in a definition or dump, whatever its <forward>; None if it is none."""
    if not xml:
        return None
    element = network_element(parse(xml))
    own = own_element(element)
    return describe(element, own) if own else None


def bridge_name(xml: bytes) -> str:
    """The bridge in a definition or dump."""
    element = network_element(parse(xml))
    return bridge_of(element.findtext("name"), element)[0]


def find(connection: Connection, name: str) -> NetworkInfo | None:
    """The network, None if there is none."""
    try:
        return connection.network(name)
    except NotFoundError:
        return None


def running(connection: Connection, info: NetworkInfo, known: Iterable[Nic]) -> tuple[str, ...]:
    """Names of the running guests on the network, those of other drivers (LXC) included."""
    names = {nic.guest for nic in known if nic.live}
    if info.active:
        names |= {port.owner for port in connection.ports(info.name)}
    return tuple(sorted(names))


def strangers(guests: Iterable[str], known: Iterable[Nic]) -> tuple[str, ...]:
    """A warning for each running guest that this connection can't plug in again."""
    reachable = {nic.guest for nic in known if nic.live}
    return tuple(
        f"guest {name} is not this libvirt driver's (LXC?): after a restart of the network it must be "
        "restarted too"
        for name in guests
        if name not in reachable
    )
