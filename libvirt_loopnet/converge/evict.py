"""A reservation wins over who used the number freely: the host's neighbour table forgets that one.

By then the rules let it send no more; the host itself would go on sending to it, until it finds the entry dead.
"""

from __future__ import annotations

from collections.abc import Sequence

from .. import process
from ..addresses.senders import siblings
from ..errors import HostError
from ..host.kernel.neighbours import neighbours
from ..log import warn
from ..model import Network, Reservation


def evict(network: Network, reservations: Sequence[Reservation]) -> None:
    """Forget the neighbours of an active ``network`` that are not whom their address is reserved for."""
    others = siblings(reservations)
    holders: dict[int, set[str]] = {}
    for kept in reservations:
        for number in kept.numbers:
            holders.setdefault(number, set()).update(
                (kept.mac, *(other.mac for other in others.get(kept.mac, ())))
            )
    for mac, address in neighbours(network.bridge):
        if mac not in holders.get(network.number(address) or 0, {mac}):
            _forget(network.bridge, str(address))


def _forget(bridge: str, address: str) -> None:
    try:
        done = process.run(["ip", "neighbour", "delete", address, "dev", bridge])
    except HostError as error:
        warn(str(error))
        return
    if done.status:  # it is gone already, or the host finds out by itself
        warn(f"neighbour {address} on {bridge} could not be removed: {done.complaint}")
