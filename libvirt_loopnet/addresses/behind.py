"""NICs behind a guest's own: of guests within it, of its containers, whose frames come by its tap. Pure.

Their addresses are reserved by hand with the guest's UUID, and have no name; a guest's own NIC has one.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..model import Port, Reservation


def is_behind(kept: Reservation) -> bool:
    """Is this reservation one for a NIC behind a guest's?"""
    return bool(kept.uuid) and not kept.name


def live_behind(reservations: Iterable[Reservation], ports: Iterable[Port]) -> list[Reservation]:
    """Those of a network whose guest has a live NIC on it: they are let in as long as it has.

    The guest may send as any of them anyway: what comes by its tap is of its making.
    """
    owners = {port.owner_uuid for port in ports}
    return [kept for kept in reservations if is_behind(kept) and kept.uuid in owners]
