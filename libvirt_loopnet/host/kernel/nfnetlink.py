"""Sends a ready-made nfnetlink transaction (linux/netfilter/nfnetlink.h)."""

from __future__ import annotations

import _socket  # what socket is made of; socket itself takes as long to import as Python to start
import errno
import os
import struct

from ...errors import HostError

NETLINK_NETFILTER = 12
_TIMEOUT = 10.0


def transact(messages: bytes, acknowledgements: int, *, absent: bool = False) -> None:
    """Send messages and read their acknowledgements. Raises HostError with the kernel's first refusal.

    With ``absent`` it is none that what is to be deleted is no more.
    """
    try:
        netlink = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, NETLINK_NETFILTER)
        try:
            _exchange(netlink, messages, acknowledgements, errno.ENOENT if absent else 0)
        finally:
            netlink.close()
    except OSError as error:
        raise HostError(f"netlink refused: {error.strerror or error}") from None


def _exchange(netlink: _socket.socket, messages: bytes, acknowledgements: int, ignored: int) -> None:
    netlink.settimeout(_TIMEOUT)
    # Room for the answers of a large batch: a few dozen bytes each, plus their overhead
    netlink.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVBUF, 1 << 21)
    netlink.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, 1 << 21)
    netlink.bind((0, 0))
    netlink.send(messages)
    while acknowledgements > 0:
        acknowledgements -= _read(netlink.recv(1 << 16), ignored)


def _read(data: bytes, ignored: int) -> int:
    """How many acknowledgements ``data`` holds; raises OSError for one that says no, but for ``ignored``."""
    count = offset = 0
    while offset + 20 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        if kind == 2:  # NLMSG_ERROR, which says 0 for yes
            error = -struct.unpack_from("=i", data, offset + 16)[0]
            if error not in (0, ignored):
                raise OSError(error, os.strerror(error))
            count += 1
        offset += (length + 3) & ~3
    return count
