"""lo, the host's addresses and its ways out, for ``loopnet`` graph, publish and reserve; anybody may look."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any

from ... import process
from ...errors import HostError
from ...reports.graph import Uplink

_SYSFS = "/sys/class/net"


def lo() -> tuple[str, ...]:
    """The IPv4 addresses of lo, with their length. Raises HostError."""
    return _addresses().get("lo", ())


def uplinks() -> tuple[Uplink, ...]:
    """The devices of the default routes, the preferred one first. Raises HostError."""
    addresses = _addresses()
    found: dict[str, Uplink] = {}
    for route in _ip("route", "show", "default"):
        for hop in [route, *route.get("nexthops", ())]:
            device = hop.get("dev", "")
            if device:
                found.setdefault(device, Uplink(device, addresses.get(device, ()), hop.get("gateway", "")))
    return tuple(found.values())


def own_addresses() -> frozenset[str]:
    """The IPv4 addresses of all devices. Raises HostError."""
    return frozenset(each.partition("/")[0] for found in _addresses().values() for each in found)


def devices_with(mac: str) -> list[str]:
    """The host's own devices that have this MAC address, lower case."""
    found = []
    for device in sorted(os.listdir(_SYSFS)):
        with suppress(OSError), open(f"{_SYSFS}/{device}/address", encoding="ascii") as file:
            if file.read().strip() == mac:
                found.append(device)
    return found


def _addresses() -> dict[str, tuple[str, ...]]:
    return {
        link["ifname"]: tuple(f"{info['local']}/{info['prefixlen']}" for info in link["addr_info"])
        for link in _ip("address")
        if "ifname" in link
    }


def _ip(*arguments: str) -> list[dict[str, Any]]:
    result = process.run(["ip", "-j", "-4", *arguments])
    if result.status:
        said = result.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise HostError(f"ip {' '.join(arguments)} failed: {said[0]}")
    found: list[dict[str, Any]] = json.loads(result.stdout or b"[]")
    return found
