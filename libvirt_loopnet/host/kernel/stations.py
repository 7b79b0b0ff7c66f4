"""Who has been heard at which port of a bridge: the MAC addresses that the kernel's bridge has learned.

It forgets one that was silent for five minutes (ageing_time), and learns nothing of frames that our rules drop.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress

SYSFS_NET = "/sys/class/net"
_ENTRY = struct.Struct("=6sBBIBBH")
"""struct __fdb_entry in linux/if_bridge.h: MAC address, port number, is it the bridge's own, age, the port number's
high byte, padding."""


def stations(bridge: str) -> list[tuple[str, str]]:
    """(MAC, device) of all that was heard; empty where there is no such bridge."""
    data = b""
    with suppress(OSError), open(f"{SYSFS_NET}/{bridge}/brforward", "rb") as file:
        data = file.read()
    devices = _devices(bridge)
    found = set()
    whole = len(data) // _ENTRY.size * _ENTRY.size
    for mac, low, is_local, _, high, _, _ in _ENTRY.iter_unpack(data[:whole]):
        device = devices.get(high << 8 | low, "")
        if device and not is_local:
            found.add((mac.hex(":"), device))
    return sorted(found)


def _devices(bridge: str) -> dict[int, str]:
    """The bridge's ports by their numbers."""
    found = {}
    with suppress(OSError):
        for device in os.listdir(f"{SYSFS_NET}/{bridge}/brif"):
            with suppress(OSError, ValueError), open(f"{SYSFS_NET}/{device}/brport/port_no") as file:
                found[int(file.read(), 16)] = device
    return found
