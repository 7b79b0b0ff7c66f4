"""Speaks netlink (linux/netlink.h, linux/netfilter/nfnetlink.h), in the little that hooks need of it: sends ready-made
messages to netfilter, reads what the kernel lists. pyroute2 takes longer to import than a whole event to handle."""

from __future__ import annotations

import _socket  # what socket is made of; socket itself takes as long to import as Python to start
import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from ...errors import HostError

ROUTE, SOCK_DIAG, NETFILTER = 0, 4, 12
"""Of the families of netlink."""
REQUEST, ACK = 0x1, 0x4
_DUMP = 0x300
_ERROR, _DONE = 2, 3
_TYPE_MASK = 0x3FFF
"""NLA_TYPE_MASK; the bits above say that an attribute is nested, or in network order."""
_TIMEOUT = 10.0
_TOLD = {ROUTE: "neighbours", SOCK_DIAG: "sockets", NETFILTER: "netfilter"}


def transact(messages: bytes, acknowledgements: int, *, absent: bool = False) -> None:
    """Send messages to netfilter and read their acknowledgements. Raises HostError with the kernel's first refusal.

    With ``absent`` it is none that what is to be deleted is no more.
    """
    ignored = errno.ENOENT if absent else 0
    with _socket_for(NETFILTER, "refused") as netlink:
        # Room for the answers of a large batch: a few dozen bytes each, plus their overhead
        netlink.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVBUF, 1 << 21)
        netlink.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, 1 << 21)
        netlink.send(messages)
        while acknowledgements > 0:
            for kind, body in _messages(netlink.recv(1 << 16)):
                if kind == _ERROR:  # which says 0 for yes
                    _raise(body, ignored)
                    acknowledgements -= 1


def dump(
    protocol: int, kind: int, head: bytes, wanted: bytes = b"", *, absent: bool = True
) -> Iterator[bytes]:
    """Each thing that the kernel lists in answer to ``kind``, of those ``wanted``, with its protocol's head before it.
    Raises HostError; not, but without ``absent``, where there is no such thing to be listed."""
    with _socket_for(protocol, "can't be read") as netlink:
        netlink.send(message(kind, REQUEST | _DUMP, head, wanted))
        while True:
            for answer, body in _messages(netlink.recv(1 << 17)):
                if answer in (_DONE, _ERROR):
                    # A list that fails on the way ends as others do, with the error in it (netlink_dump_done()).
                    _raise(body, errno.ENOENT if absent else 0)
                    return
                yield body


def message(kind: int, flags: int, head: bytes, body: bytes) -> bytes:
    """One message; ``head`` is its protocol's, ``body`` is attributes."""
    return struct.pack("=IHHII", 16 + len(head) + len(body), kind, flags, 1, 0) + head + body


def nfgenmsg(family: int) -> bytes:
    """The head of netfilter's."""
    return struct.pack("!BBH", family, 0, 0)


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and value of each attribute."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        yield kind & _TYPE_MASK, data[offset + 4 : offset + length]
        offset += max((length + 3) & ~3, 4)


@contextmanager
def _socket_for(protocol: int, failing: str) -> Iterator[_socket.socket]:
    try:
        netlink = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, protocol)
        try:
            netlink.settimeout(_TIMEOUT)
            netlink.bind((0, 0))
            yield netlink
        finally:
            netlink.close()
    except OSError as error:
        raise HostError(f"{_TOLD[protocol]} by netlink {failing}: {error.strerror or error}") from None


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and payload of each message."""
    offset = 0
    while offset + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        yield kind, data[offset + 16 : offset + length]
        offset += max((length + 3) & ~3, 16)


def _raise(body: bytes, ignored: int) -> None:
    error = -struct.unpack_from("=i", body)[0]
    if error not in (0, ignored):
        raise OSError(error, os.strerror(error))
