"""lo, the host's addresses and its ways out, for ``loopnet`` graph, publish and reserve; anybody may look.

By pyroute2, whose import takes longer than all the rest of a verb: so only what asks imports this.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ...errors import HostError
from ...reports.graph import Uplink


def lo() -> tuple[str, ...]:
    """The IPv4 addresses of lo, with their length. Raises HostError."""
    with _netlink() as netlink:
        return _addresses(netlink).get("lo", ())


def uplinks() -> tuple[Uplink, ...]:
    """The devices of the default routes, the preferred one first. Raises HostError."""
    with _netlink() as netlink:
        addresses, names = _addresses(netlink), _names(netlink)
        routes = netlink.get_default_routes(family=socket.AF_INET)
        found: dict[str, Uplink] = {}
        for index, gateway in (hop for route in sorted(routes, key=_metric) for hop in _hops(route)):
            device = names.get(index, "")
            if device:
                found.setdefault(device, Uplink(device, addresses.get(device, ()), gateway))
        return tuple(found.values())


def own_addresses() -> frozenset[str]:
    """The IPv4 addresses of all devices. Raises HostError."""
    with _netlink() as netlink:
        return frozenset(each.partition("/")[0] for found in _addresses(netlink).values() for each in found)


def devices_with(mac: str) -> list[str]:
    """The host's own devices that have this MAC address, lower case. Raises HostError."""
    with _netlink() as netlink:
        found = netlink.get_links()
        return sorted(link.get_attr("IFLA_IFNAME") for link in found if link.get_attr("IFLA_ADDRESS") == mac)


@contextmanager
def _netlink() -> Iterator[Any]:
    try:
        with IPRoute() as netlink:
            yield netlink
    except (NetlinkError, OSError) as error:
        raise HostError(f"addresses and routes can't be read by netlink: {error}") from None


def _names(netlink: Any) -> dict[int, str]:
    return {link["index"]: link.get_attr("IFLA_IFNAME") for link in netlink.get_links()}


def _addresses(netlink: Any) -> dict[str, tuple[str, ...]]:
    names = _names(netlink)
    found: dict[str, tuple[str, ...]] = {}
    for each in netlink.get_addr(family=socket.AF_INET):
        device = names.get(each["index"], "")
        found[device] = (*found.get(device, ()), f"{each.get_attr('IFA_LOCAL')}/{each['prefixlen']}")
    return found


def _metric(route: Any) -> int:
    return route.get_attr("RTA_PRIORITY") or 0


def _hops(route: Any) -> Iterator[tuple[int, str]]:
    """(index of the device, gateway) of the one next hop, or of each."""
    several = route.get_attr("RTA_MULTIPATH")
    if not several:
        yield route.get_attr("RTA_OIF") or 0, route.get_attr("RTA_GATEWAY") or ""
    for hop in several or ():
        yield hop["oif"], hop.get_attr("RTA_GATEWAY") or ""
