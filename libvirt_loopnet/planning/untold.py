"""NICs on our bridges that no event has told of: who is let in, and what is said of the others. Pure.

The rule, for it must not be a race that a guest can win:

* A device of the system's libvirt carries what its guest's XML says, and nothing else. Where no port tells of that
  NIC (<interface type='bridge'>), it is treated like one.
* A MAC address that was reserved by hand, for no guest, is let in at the first device on which it is heard that is
  none of libvirt's and carries no other NIC; and there alone, until that device leaves the bridge.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

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
    bound: Container[tuple[str, str]]
    """(MAC, device) of all that are bound."""
    taps: Mapping[str, str]
    """The MAC address of the NIC that a device carries, of those that carry one."""
    owners: Mapping[str, Owner]
    """Of devices on its bridge that carry none."""
    stations: Sequence[tuple[str, str]]
    """(MAC, device) of what was heard on its bridge."""
    refused: Sequence[tuple[str, str]] = ()
    """Those of what was dropped there."""


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
    judgement = _Judgement(scene)
    judgement.libvirts_own()
    judgement.heard()
    return Verdict(tuple(judgement.welcome.values()), tuple(judgement.strangers))


FEW = 8
"""A guest may send with as many MAC addresses as it likes, and is not to fill people's screens."""


def few(strangers: Iterable[Stranger]) -> list[Stranger]:
    """At most FEW of each device; the last says how many more there are."""
    by_device: dict[str, list[Stranger]] = {}
    for each in strangers:
        by_device.setdefault(each.device, []).append(each)
    found = []
    for here in by_device.values():
        found += here[:FEW]
        if here[FEW:]:
            more = f"{found[-1].why}; {len(here) - FEW} more MAC addresses were heard there"
            found[-1] = found[-1]._replace(why=more)
    return found


class _Judgement:
    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.welcome: dict[str, Port] = {}
        self.strangers: list[Stranger] = []
        self._holders = {port.mac: port for port in scene.live}
        self._kept = {each.mac: each for each in scene.reservations}

    def _refuse(self, mac: str, device: str, why: str, can_reserve: bool = False, behind: str = "") -> None:
        self.strangers.append(Stranger(self.scene.network, mac, device, why, can_reserve, behind))

    def _holder(self, mac: str) -> Port | None:
        return self._holders.get(mac) or self.welcome.get(mac)

    def libvirts_own(self) -> None:
        """NICs of its guests that no port tells of."""
        for device, owner in sorted(self.scene.owners.items()):
            holder = self._holder(owner.mac)
            if owner.is_network:
                pass  # it has a port, or lost its network (plugging/)
            elif holder:
                self._refuse(owner.mac, device, f"{_who(holder)} has this MAC address already")
            else:
                port = Port(self.scene.network, owner.mac, owner.guest, owner.uuid, tap=device)
                self.welcome[owner.mac] = port

    def heard(self) -> None:
        """What was heard on the bridge, or dropped there."""
        told = {(each.mac, each.device) for each in self.strangers}
        for mac, device in sorted({*self.scene.stations, *self.scene.refused} - told):
            holder, owner = self._holder(mac), self.scene.owners.get(device)
            if holder or mac in self.scene.let_in:
                if holder and (mac, device) in self.scene.refused and (mac, device) not in self.scene.bound:
                    self._refuse(mac, device, f"{_who(holder)} has this MAC address already")
            elif not owner:
                self._nobodys(mac, device)
            elif owner.mac != mac:
                why = f"{device} is guest {owner.guest}'s, whose own MAC address is {owner.mac}"
                self._refuse(mac, device, why, mac not in self._kept, owner.guest)

    def _nobodys(self, mac: str, device: str) -> None:
        """At a device that none of libvirt's guests has, or that carries a NIC."""
        carried = self.scene.taps.get(device)
        carried = carried or next((port.mac for port in self.welcome.values() if port.tap == device), "")
        kept = self._kept.get(mac)
        if carried:
            port = self._holders.get(carried)
            guest = port.owner if port and port.owner_uuid else ""
            self._refuse(mac, device, f"{device} is only for {carried}", bool(guest) and not kept, guest)
        elif not kept:
            self._refuse(mac, device, "no address is reserved for it", can_reserve=True)
        elif kept.uuid:
            self._refuse(mac, device, f"its address is reserved for guest {kept.name or kept.uuid}")
        else:
            self.welcome[mac] = Port(self.scene.network, mac, mac, "", tap=device)


def _who(holder: Port) -> str:
    return f"guest {holder.owner}" if holder.owner_uuid else f"the NIC at {holder.tap}"
