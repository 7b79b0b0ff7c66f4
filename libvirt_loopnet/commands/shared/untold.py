"""NICs on our bridges that are not let in: what is said of them, and the command that lets them in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from shlex import quote
from typing import NamedTuple

from ...addresses import pool
from ...addresses.store import Store
from ...converge import adopt
from ...errors import PoolFullError
from ...host.admitted import refused
from ...model import Network, Port, Reservation
from ...planning.untold import Stranger, few

WAITING = "libvirt has not reported it yet"


class Untold(NamedTuple):
    """One of them."""

    network: str
    mac: str
    device: str
    why: str
    command: str
    """What lets it in, or else shows more."""

    def __str__(self) -> str:
        return f"{self.mac} at {self.device} is not let in on {self.network}: {self.why}"


def untold(store: Store, live: Iterable[Port] | None = None) -> list[Untold]:
    """All that were heard, or that libvirt knows of; root alone sees them. ``live``: all live NICs, if known."""
    found: list[Untold] = []
    for network, verdict in adopt.look(store, refused(), live):
        for nic in verdict.welcome:
            found.append(Untold(network.name, nic.mac, nic.tap, WAITING, "loopnet sync"))
        address = _free_address(network, store.load(network.name)) if verdict.strangers else ""
        for stranger in few(verdict.strangers):
            command = _command(stranger, address)
            found.append(Untold(network.name, stranger.mac, stranger.device, stranger.why, command))
    return found


def _command(stranger: Stranger, address: str) -> str:
    if not stranger.can_reserve:
        return f"loopnet list; ip link show {quote(stranger.device)}"
    behind = f" --behind {quote(stranger.behind)}" if stranger.behind else ""
    return f"loopnet reserve {stranger.mac} {address}{behind}"


def _free_address(network: Network, kept: Sequence[Reservation]) -> str:
    try:
        return str(network.loop_address(pool.allocate(network, kept)))
    except PoolFullError:
        return "ADDRESS"
