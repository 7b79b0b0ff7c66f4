"""NICs on our bridges that no event has told of: who is let in, and what is said of the others. Pure.

The rule, for it must not be a race that a guest can win:

* A device of the system's libvirt carries what its guest's XML says, and nothing else. Where no port tells of that
  NIC (<interface type='bridge'>), it is treated like one.
* A MAC address that was reserved by hand, for no guest, is let in at the first device on which it is heard that is
  none of libvirt's and carries no other NIC; and there alone, until that device leaves the bridge.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from ..model import Port, Reservation
from ..records import NamedTuple


class Owner(NamedTuple):
    """Whose a device is, by what libvirt has written down."""

    mac: str
    """Of the NIC that it is the host's end of."""
    guest: str
    uuid: str
    is_network: bool
    """libvirt has put it on one of its networks, whose ports tell of it."""


class Scene(NamedTuple):
    """What was seen of one network."""

    network: str
    reservations: Sequence[Reservation]
    live: Sequence[Port]
    """Its live NICs."""
    let_in: Container[str]
    """MAC addresses of all that are let in, also of those behind guests."""
    taps: Mapping[str, str]
    """The MAC address of the NIC that a device carries, of those that carry one."""
    owners: Mapping[str, Owner]
    """Of devices on its bridge that carry none."""
    stations: Sequence[tuple[str, str]]
    """(MAC, device) of what was heard on its bridge."""


class Stranger(NamedTuple):
    """A NIC that was heard, or that libvirt knows of, and is not let in."""

    network: str
    mac: str
    device: str
    why: str
    can_reserve: bool = False
    """It is let in once an address is reserved for it."""
    behind: str = ""
    """The guest that has the device: so it is once that is for what is behind this guest."""


class Verdict(NamedTuple):
    """Of one network."""

    welcome: tuple[Port, ...]
    """They may come in; those with a guest get an address where they have none."""
    strangers: tuple[Stranger, ...]


def judge(scene: Scene) -> Verdict:
    """Who may come in, and who not."""
    welcome: dict[str, Port] = {}
    strangers: list[Stranger] = []
    holders = {port.mac: port for port in scene.live}
    kept = {each.mac: each for each in scene.reservations}

    def refuse(mac: str, device: str, why: str, can_reserve: bool = False, behind: str = "") -> None:
        strangers.append(Stranger(scene.network, mac, device, why, can_reserve, behind))

    for device, owner in sorted(scene.owners.items()):
        if owner.is_network:
            continue
        holder = holders.get(owner.mac) or welcome.get(owner.mac)
        if holder:
            refuse(owner.mac, device, f"{_who(holder)} has this MAC address already")
        else:
            welcome[owner.mac] = Port(scene.network, owner.mac, owner.guest, owner.uuid, tap=device)
    taken = {port.tap: port.mac for port in welcome.values()}
    for mac, device in sorted(scene.stations):
        if mac in holders or mac in welcome or mac in scene.let_in:
            continue
        carried = scene.taps.get(device) or taken.get(device)
        host_end = scene.owners.get(device)
        if host_end and host_end.mac == mac:
            pass  # told of above, or what has lost its network (plugging/)
        elif host_end:
            why = f"{device} is guest {host_end.guest}'s, whose own MAC address is {host_end.mac}"
            refuse(mac, device, why, can_reserve=mac not in kept, behind=host_end.guest)
        elif carried:
            refuse(mac, device, f"{device} is for {carried} alone")
        elif mac not in kept:
            refuse(mac, device, "no address is reserved for it", can_reserve=True)
        elif kept[mac].uuid:
            refuse(mac, device, f"its address is reserved for guest {kept[mac].name or kept[mac].uuid}")
        else:
            welcome[mac] = Port(scene.network, mac, mac, "", tap=device)
            taken[device] = mac
    return Verdict(tuple(welcome.values()), tuple(strangers))


def _who(holder: Port) -> str:
    return f"guest {holder.owner}" if holder.owner_uuid else f"the NIC at {holder.tap}"
