"""Sockets of other programs that are in dnsmasq's way, or in a guest's.

libvirt says of a dnsmasq that can't have its ports only what dnsmasq says, "failed to create listening socket
for 127.1.0.254: Address already in use", and not by whom. So the same is tried before, in the same manner.
"""

from __future__ import annotations

import _socket  # what socket is made of; see kernel/netlink.py
import os
import sys
from contextlib import closing, suppress
from errno import EADDRINUSE
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from ..errors import HostError
from ..model import ANY_ADDRESS, LOCALHOST
from ..records import NamedTuple
from .kernel.listening import listening

DNS, DHCP = 53, 67
PROC = "/proc"

_KINDS = {"tcp": _socket.SOCK_STREAM, "udp": _socket.SOCK_DGRAM}
_LISTEN, _CLOSE = "0A", "07"
"""States in /proc/net/tcp and udp (include/net/tcp_states.h); UDP has the second until it is connected."""
_ALL = IPv6Address("::")


class Socket(NamedTuple):
    """A socket that waits for others."""

    protocol: str
    address: IPv4Address | IPv6Address
    port: int
    inode: str

    def __str__(self) -> str:
        return f"{owner(self.inode)} has {self.address} port {self.port}/{self.protocol}"


def rivals(address: IPv4Address, dns: bool = True) -> list[Socket]:
    """What keeps dnsmasq from serving DHCP, and DNS at ``address``, on a bridge still to be made."""
    taken = [] if _is_free("udp", ANY_ADDRESS, DHCP, shared=True) else [("udp", DHCP)]
    if dns:
        taken += [(kind, DNS) for kind in _KINDS if not _is_free(kind, address, DNS)]
    return [
        socket
        for socket in waiting()
        if (socket.protocol, socket.port) in taken and socket.address in (ANY_ADDRESS, address)
    ]


def inside(prefix: IPv4Network) -> list[Socket]:
    """What waits at an address of ``prefix``."""
    return [socket for socket in waiting() if socket.address in prefix]


def at_localhost() -> dict[tuple[str, int], Socket]:
    """By protocol and port, what waits at 127.0.0.1, all addresses being it too."""
    return {
        (socket.protocol, socket.port): socket
        for socket in waiting()
        if socket.address in (ANY_ADDRESS, LOCALHOST)
    }


def waiting() -> list[Socket]:
    """All TCP and UDP sockets of this network namespace that wait; one at ``::`` stands at 0.0.0.0 as well."""
    try:
        tcp = [*listening()]
    except HostError:
        tcp = _listed("tcp", _LISTEN)
    return [
        Socket(protocol, address, port, inode)
        for protocol, found in (("tcp", tcp), ("udp", _listed("udp", _CLOSE)))
        for packed, port, inode in found
        for address in _addresses(packed)
    ]


def _listed(protocol: str, state: str) -> list[tuple[bytes, int, str]]:
    """Address, port and inode of those in ``state`` that /proc has, which writes addresses as 32-bit numbers of this
    machine's byte order."""
    found = []
    for line in _lines(f"{PROC}/net/{protocol}")[1:] + _lines(f"{PROC}/net/{protocol}6")[1:]:
        fields = line.split()
        if fields[3] == state:
            place, _, port = fields[1].partition(":")
            numbers = [int(place[start : start + 8], 16) for start in range(0, len(place), 8)]
            packed = b"".join(number.to_bytes(4, sys.byteorder) for number in numbers)
            found.append((packed, int(port, 16), fields[9]))
    return found


def _addresses(packed: bytes) -> list[IPv4Address | IPv6Address]:
    if len(packed) == 4:
        return [IPv4Address(packed)]
    address = IPv6Address(packed)
    if address == _ALL:
        return [ANY_ADDRESS, address]
    return [address.ipv4_mapped or address]  # ::ffff:192.0.2.7, as Java has it, is of IPv4


def owner(inode: str) -> str:
    """The program that holds a socket, with its process; what ss -p says, for a message."""
    wanted = f"socket:[{inode}]"
    for pid in filter(str.isdigit, os.listdir(PROC)):
        with suppress(OSError):  # it ended
            descriptors = os.listdir(f"{PROC}/{pid}/fd")
            if any(_link(f"{PROC}/{pid}/fd/{each}") == wanted for each in descriptors):
                name = "".join(_lines(f"{PROC}/{pid}/comm")) or "a program"
                return f"{name} (process {pid})"
    return "a program"


def _link(path: str) -> str:
    with suppress(OSError):
        return os.readlink(path)
    return ""


def _is_free(protocol: str, address: IPv4Address, port: int, shared: bool = False) -> bool:
    """Can dnsmasq have the port? ``shared``: with others that say so (dhcp.c, make_fd())."""
    with closing(_socket.socket(_socket.AF_INET, _KINDS[protocol])) as probe:
        probe.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        if shared:
            probe.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEPORT, 1)
        try:
            probe.bind((str(address), port))
        except OSError as error:
            return error.errno != EADDRINUSE  # what else may be wrong, dnsmasq will tell
    return True


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []
