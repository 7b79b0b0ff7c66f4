"""Plug running guests in again that lost their network's bridge; what counts is what is seen afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from shlex import quote
from typing import NamedTuple, Protocol, TypeVar

from ..daemon.connection import Connection
from ..daemon.domains import LiveNic
from ..errors import LoopnetError
from ..guests.interfaces import Interface, interfaces, is_bridged, on_bridge, on_network
from .bridge_ports import Place, attach, is_dead, spare_bridge, unplugged

PATIENCE = 10.0
"""Seconds in which a restarted daemon has surely found its guests again, and a tap is where it was put."""
_POLL = 0.05

T = TypeVar("T")


class Plugs(Protocol):
    """What this needs of the machine; tests have another one."""

    def unplugged(self, place: Place) -> list[LiveNic]:
        """NICs of running guests that belong to the place and are not there."""

    def is_dead(self, tap: str) -> bool:
        """Has the tap no carrier?"""

    def attach(self, tap: str, bridge: str) -> None:
        """Make the tap a port of the bridge. Raises HostError."""

    def spare_bridge(self, name: str) -> AbstractContextManager[None]:
        """A bridge that is there meanwhile."""


class HostPlugs:
    """The running machine's."""

    def unplugged(self, place: Place) -> list[LiveNic]:
        return [nic for _, nic in unplugged([place])]

    def is_dead(self, tap: str) -> bool:
        return is_dead(tap)

    def attach(self, tap: str, bridge: str) -> None:
        attach(tap, bridge)

    def spare_bridge(self, name: str) -> AbstractContextManager[None]:
        return spare_bridge(name)


class Left(NamedTuple):
    """A NIC that could not be plugged in, and why."""

    nic: LiveNic
    why: str

    def __str__(self) -> str:
        return f"{called(self.nic)}: {self.why}"


class Outcome(NamedTuple):
    """What became of those that were not plugged in."""

    back: tuple[LiveNic, ...] = ()
    """Seen on the bridge."""
    left: tuple[Left, ...] = ()


def replug(connection: Connection, host: Plugs, place: Place) -> Outcome:
    """Plug in what belongs to ``place`` and is not there, by way of a spare bridge (interfaces.py).

    One at a time may do this on a host (Originals.locked()). The spare bridge is gone afterwards, also one
    that somebody killed in the midst of this has left. Raises LoopnetError when there can't be one.
    """
    out = host.unplugged(place)
    with host.spare_bridge(place.spare):
        refusals = {_key(nic): _plug(connection, host, place, nic) for nic in out}
    _until(lambda: not any(not refusals[_key(nic)] for nic in _missing(host, place, out)))
    missing = _missing(host, place, out)
    return Outcome(
        back=tuple(nic for nic in out if nic not in missing),
        left=tuple(
            Left(nic, refusals[_key(nic)] or f"{nic.interface.tap} is still not on {place.bridge}")
            for nic in missing
        ),
    )


def _missing(host: Plugs, place: Place, nics: Iterable[LiveNic]) -> list[LiveNic]:
    out = {_key(nic) for nic in host.unplugged(place)}
    return [nic for nic in nics if _key(nic) in out or host.is_dead(nic.interface.tap)]


def _key(nic: LiveNic) -> tuple[str, str]:
    return nic.uuid, nic.interface.mac


def _plug(connection: Connection, host: Plugs, place: Place, nic: LiveNic) -> str:
    """To the spare bridge and back to the network; '' when libvirt says that it did so, else why not.

    Of one on the bridge itself libvirt thinks that it is there, and an update changes nothing.
    """
    try:
        if is_bridged(nic.interface, place.bridge):
            host.attach(nic.interface.tap, place.bridge)
            return ""
        if nic.driver != connection.driver:
            return f"libvirt's {nic.driver} driver can't plug in a NIC of a running guest"
        interface = _until(lambda: _found(connection, nic))
        if interface is None:
            return "libvirt says that it does not run"
        if not is_bridged(interface, place.spare):
            connection.update_device(nic.uuid, on_bridge(interface, place.spare))
        connection.update_device(nic.uuid, on_network(interface, place.network))
        return ""
    except LoopnetError as error:
        return str(error)


def _found(connection: Connection, nic: LiveNic) -> Interface | None:
    """The NIC as libvirt has it; a daemon just restarted has not found its guests yet."""
    live = connection.live_domain(nic.uuid)
    return next((each for each in interfaces(live) if each.mac == nic.interface.mac), None) if live else None


def called(nic: LiveNic) -> str:
    """What messages call it."""
    return f"guest {nic.guest} ({nic.interface.mac})"


def cure(nics: Iterable[LiveNic]) -> str:
    """What brings guests back that nothing else brings back."""
    guests = sorted({(nic.driver, nic.guest) for nic in nics})
    return "; ".join(
        f"{virsh(driver)} shutdown {quote(name)}, then {virsh(driver)} start {quote(name)}"
        for driver, name in guests
    )


def virsh(driver: str) -> str:
    """How virsh is called for guests of a driver."""
    return "virsh" if driver == "qemu" else f"virsh -c {driver}:///system"


def _until(look: Callable[[], T]) -> T:
    """What ``look`` says once it is something true, or after all patience."""
    end = time.monotonic() + PATIENCE
    while True:
        seen = look()
        if seen or time.monotonic() > end:
            return seen
        time.sleep(_POLL)
