"""Which addresses the host has seen in use on a bridge: how guests with static addresses are known.

Not by libvirt's virDomainInterfaceAddresses with source ARP: libvirt 9.0's fails on kernel 6.18 ("wrong nlmsg len").
"""

from __future__ import annotations

import _socket  # see netlink.py
import struct
from ipaddress import IPv4Address, IPv6Address

from ...errors import HostError
from .netlink import ROUTE, attribute, attributes, dump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_GET = 30
"""RTM_GETNEIGH in linux/rtnetlink.h, whose answers are RTM_NEWNEIGH."""
_HEAD = struct.Struct("=BBHiHBB")
"""struct ndmsg in linux/neighbour.h: family, padding, index of the device, state, flags, type."""
_ADDRESS, _MAC, _DEVICE = 1, 2, 8
"""NDA_DST, NDA_LLADDR, NDA_IFINDEX."""
_REACHABLE, _KNOWN = 0x02, 0x02 | 0x04 | 0x08 | 0x10 | 0x80
"""NUD_REACHABLE; it, NUD_STALE, NUD_DELAY, NUD_PROBE and NUD_PERMANENT: those that have a MAC address."""


def neighbours(bridge: str) -> list[tuple[str, IPv4Address]]:
    """(MAC, address) of the IPv4 neighbours on ``bridge``, those first that have answered of late; empty where there
    is no such bridge."""
    return [(mac, IPv4Address(address)) for mac, address in _neighbours(bridge, _socket.AF_INET)]


def neighbours6(bridge: str) -> list[tuple[str, IPv6Address]]:
    """The same of IPv6, fe80 not counted."""
    found = [(mac, IPv6Address(address)) for mac, address in _neighbours(bridge, _socket.AF_INET6)]
    return [(mac, address) for mac, address in found if not address.is_link_local]


def _neighbours(bridge: str, family: int) -> Iterable[tuple[str, bytes]]:
    try:
        index = _socket.if_nametoindex(bridge)
        head, wanted = _HEAD.pack(family, 0, 0, 0, 0, 0, 0), attribute(_DEVICE, struct.pack("=I", index))
        answers = [*dump(ROUTE, _GET, head, wanted)]
    except (HostError, OSError):
        return []
    recent: list[tuple[str, bytes]] = []
    others: list[tuple[str, bytes]] = []
    for answer in answers:
        of, _, _, device, state, _, _ = _HEAD.unpack_from(answer)
        if (of, device) == (family, index) and state & _KNOWN:
            entry = dict(attributes(answer[_HEAD.size :]))
            (recent if state & _REACHABLE else others).append((entry[_MAC].hex(":"), entry[_ADDRESS]))
    return recent + others
