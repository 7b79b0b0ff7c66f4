"""TCP sockets that listen (linux/inet_diag.h).

/proc/net/tcp has them as well, but for that the kernel goes through its whole table of connections, whose size comes
with the machine's memory: 4 ms with 24 GiB, and the same for IPv6.
"""

from __future__ import annotations

import _socket  # see netlink.py
import struct
from collections.abc import Iterator

from .netlink import SOCK_DIAG, dump

_GET = 20
"""SOCK_DIAG_BY_FAMILY, in linux/sock_diag.h, of questions and answers."""
_LISTEN = 1 << 10
"""The state TCP_LISTEN, alone: for it the kernel does not look at connections (net/ipv4/inet_diag.c)."""
_REQUEST = struct.Struct("=BBxxI48x")
"""struct inet_diag_req_v2: family, protocol, states, and a socket's identity, which lists don't ask for."""
_ANSWER = struct.Struct("=B3x2s2x16s16x12x16xI")
"""struct inet_diag_msg: family, port, address, inode."""


def listening() -> Iterator[tuple[bytes, int, str]]:
    """Address, of 4 bytes or 16, port and inode of each in this network namespace. Raises HostError, also where the
    kernel has no tcp_diag, which is a module of its own."""
    for family, length in ((_socket.AF_INET, 4), (_socket.AF_INET6, 16)):
        request = _REQUEST.pack(family, _socket.IPPROTO_TCP, _LISTEN)
        for answer in dump(SOCK_DIAG, _GET, request, absent=False):
            of, port, address, inode = _ANSWER.unpack_from(answer)
            if of == family:
                yield address[:length], int.from_bytes(port, "big"), str(inode)
