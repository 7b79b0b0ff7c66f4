"""Which taps are ports of which bridges, as the kernel has it; and a bridge to spare.

What libvirt lists as a network's ports proves nothing: after net-start, or an update of the device on
libvirt 11, a guest may have a port there while its tap is on no bridge at all.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from .. import process
from ..daemon import runstate
from ..daemon.domains import LiveNic, live_nics
from ..errors import HostError
from ..guests.interfaces import is_bridged, is_of, is_spare
from ..host import linux

SYSFS_NET = linux.SYSFS_NET


class Place(NamedTuple):
    """A network, and where its guests' taps belong."""

    network: str
    bridge: str
    spare: str
    """Name of the bridge on which a tap is for a moment while it is plugged in again."""


def unplugged(places: Iterable[Place]) -> list[tuple[Place, LiveNic]]:
    """NICs of running guests that belong to an active network and are not plugged into it.

    Either the tap is not a port of the bridge, or libvirt has no network port for the NIC, so that no hook was
    told and nobody lets it in (who put the tap there by hand?). One that libvirt has plugged into the bridge itself
    needs no port.
    """
    wanted = list(places)
    macs = {place: {port.mac for port in runstate.live_ports(place.network)} for place in wanted}
    found = []
    for nic in live_nics(suspects((place.bridge, macs[place]) for place in wanted)):
        for place in wanted:
            is_here = bridge_of(nic.interface.tap) == place.bridge
            if is_bridged(nic.interface, place.bridge):
                out = not is_here
            else:
                is_inside = is_here and nic.interface.mac in macs[place]
                out = is_of(nic.interface, place.network, place.spare) and not is_inside
            found += [(place, nic)] if out else []
    return found


def suspects(expected: Iterable[tuple[str, Collection[str]]]) -> set[str]:
    """All taps and the like but those ports of bridges that belong to NICs expected there: (bridge, their MACs).

    libvirt gives taps their guests' MAC address but for the first byte (virnetdevtap.c).
    """
    found = {device for device in _devices() if _has_other_end(device)}
    for bridge, macs in expected:
        tails = {mac[2:] for mac in macs}
        found -= {tap for tap in ports(bridge) if _sysfs(tap, "address")[2:] in tails}
    return found


def _has_other_end(device: str) -> bool:
    """A tap, or one that is linked to another device (veth, in a container), as guests have."""
    is_tap = os.path.exists(f"{SYSFS_NET}/{device}/tun_flags")
    return is_tap or _sysfs(device, "iflink") != _sysfs(device, "ifindex")


def is_plugged(tap: str, bridge: str) -> bool:
    """Is ``tap`` a port of ``bridge``, and something at its other end?"""
    return bridge_of(tap) == bridge and _sysfs(tap, "carrier") == "1"


def is_dead(tap: str) -> bool:
    """Has ``tap`` no carrier? A guest that runs holds its other end."""
    return _sysfs(tap, "carrier") == "0"


def bridge_of(tap: str) -> str:
    """The bridge that ``tap`` is a port of, '' for none."""
    with suppress(OSError):
        return os.path.basename(os.readlink(f"{SYSFS_NET}/{tap}/master"))
    return ""


def ports(bridge: str) -> list[str]:
    """The devices that are ports of ``bridge``."""
    with suppress(OSError):
        return sorted(os.listdir(f"{SYSFS_NET}/{bridge}/brif"))
    return []


def attach(tap: str, bridge: str) -> None:
    """Make ``tap`` a port of ``bridge``. Raises HostError."""
    result = process.run(["ip", "link", "set", "dev", tap, "master", bridge])
    if result.status:
        raise HostError(f"{tap} can't be put on {bridge}: {result.complaint}; see: ip link")


@contextmanager
def spare_bridge(name: str) -> Iterator[None]:
    """A bridge ``name``, gone at the end whatever happens; one that is there already was left by a kill.

    It stays down: guests' frames get nowhere on it.
    """
    if not linux.is_device(name):
        result = process.run(["ip", "link", "add", name, "type", "bridge"])
        if result.status:
            raise HostError(f"bridge {name} can't be made: {result.complaint}; see: ip link")
    try:
        yield
    finally:
        linux.delete_device(name)


def spare_bridges() -> list[str]:
    """Those that are there: somebody was killed, or is at work."""
    return sorted(dev for dev in _devices() if is_spare(dev) and os.path.isdir(f"{SYSFS_NET}/{dev}/bridge"))


def _devices() -> list[str]:
    with suppress(OSError):
        return os.listdir(SYSFS_NET)
    return []


def _sysfs(dev: str, attribute: str) -> str:
    with suppress(OSError), open(f"{SYSFS_NET}/{dev}/{attribute}") as file:
        return file.read().strip()
    return ""
