"""Connections that the kernel tracks (linux/netfilter/nfnetlink_conntrack.h), to be forgotten.

Not by the program ``conntrack``, which is in a package of its own that few hosts have.
"""

from __future__ import annotations

import _socket  # as in nfnetlink.py
import os
import struct
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network

from ...errors import HostError
from .nfnetlink import NETLINK_NETFILTER, transact

_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2
"""NFNL_SUBSYS_CTNETLINK; IPCTNL_MSG_CT_GET and IPCTNL_MSG_CT_DELETE."""
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_ORIGINAL, _REPLY, _ID, _ZONE = 1, 2, 12, 18
"""CTA_TUPLE_ORIG and the other attributes of an entry."""
_TUPLE_IP = 1
_NESTED = 0x8000
_TIMEOUT = 10.0
_BATCH = 500
"""Entries that are deleted by one datagram, to keep its answers within a socket's buffer."""


def forget(prefix: IPv4Network) -> int:
    """Delete each tracked connection with an address in ``prefix``; how many those were. Raises HostError.

    Their address translation goes with them: what still arrives for one is delivered by its own addresses.
    """
    found = [entry for entry in _entries() if _concerns(entry, prefix)]
    for start in range(0, len(found), _BATCH):
        batch = found[start : start + _BATCH]
        transact(b"".join(map(_deletion, batch)), len(batch), absent=True)
    return len(found)


def _entries() -> Iterator[dict[int, bytes]]:
    """The attributes of each IPv4 entry."""
    request = _message(_GET, _REQUEST | _DUMP, b"")
    try:
        netlink = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, NETLINK_NETFILTER)
        try:
            netlink.settimeout(_TIMEOUT)
            netlink.bind((0, 0))
            netlink.send(request)
            while True:
                for kind, body in _messages(netlink.recv(1 << 17)):
                    if kind == _DONE:
                        return
                    if kind == _ERROR:
                        error = -struct.unpack_from("=i", body)[0]
                        raise OSError(error, os.strerror(error))
                    yield dict(_attributes(body[4:]))
        finally:
            netlink.close()
    except OSError as error:
        raise HostError(f"the kernel doesn't list tracked connections: {error.strerror or error}") from None


def _concerns(entry: dict[int, bytes], prefix: IPv4Network) -> bool:
    first, mask = int(prefix.network_address), int(prefix.netmask)
    return any(address & mask == first for address in _addresses(entry))


def _addresses(entry: dict[int, bytes]) -> Iterator[int]:
    for direction in (_ORIGINAL, _REPLY):
        inner = dict(_attributes(entry.get(direction, b""))).get(_TUPLE_IP, b"")
        for _, value in _attributes(inner):
            if len(value) == 4:
                yield int.from_bytes(value, "big")


def _deletion(entry: dict[int, bytes]) -> bytes:
    """By what tells it from any other, one that has taken its place meanwhile among them (CTA_ID)."""
    kept = [(_NESTED | _ORIGINAL, entry[_ORIGINAL])]
    kept += [(kind, entry[kind]) for kind in (_ID, _ZONE) if kind in entry]
    body = b"".join(
        struct.pack("=HH", 4 + len(value), kind) + value + _padding(value) for kind, value in kept
    )
    return _message(_DELETE, _REQUEST | _ACK, body)


def _message(kind: int, flags: int, body: bytes) -> bytes:
    family = struct.pack("=BBH", _socket.AF_INET, 0, 0)
    return struct.pack("=IHHII", 20 + len(body), kind, flags, 1, 0) + family + body


def _messages(data: bytes) -> Iterable[tuple[int, bytes]]:
    offset = 0
    while offset + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        yield kind, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def _attributes(data: bytes) -> Iterable[tuple[int, bytes]]:
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def _padding(value: bytes) -> bytes:
    return bytes(-len(value) % 4)
