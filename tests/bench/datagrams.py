"""Many datagrams in one system call: sendmmsg(2) and recvmmsg(2).

With a call for each, Python would take as long as the network.
"""

from __future__ import annotations

import ctypes
import socket
from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_size_t, c_uint, c_uint32, c_void_p

BATCH = 64

_libc = ctypes.CDLL(None, use_errno=True)


class _Vector(Structure):
    _fields_ = (("base", c_void_p), ("length", c_size_t))


class _Header(Structure):
    _fields_ = (
        ("name", c_char_p), ("name_length", c_uint32), ("vectors", POINTER(_Vector)),
        ("vector_count", c_size_t), ("control", c_void_p), ("control_length", c_size_t),
        ("flags", c_int),
    )  # fmt: skip


class _Message(Structure):
    _fields_ = (("header", _Header), ("length", c_uint))


class Datagrams:
    """BATCH datagrams of ``size`` bytes each, to be sent or received together."""

    def __init__(self, size: int) -> None:
        self._buffers = [ctypes.create_string_buffer(size) for _ in range(BATCH)]
        self._vectors = [_Vector(ctypes.addressof(each), size) for each in self._buffers]
        self._messages = (_Message * BATCH)()
        for message, vector in zip(self._messages, self._vectors):
            message.header.vectors = ctypes.pointer(vector)
            message.header.vector_count = 1

    def send(self, to: socket.socket) -> int:
        """How many were sent, by a connected socket."""
        return max(0, int(_libc.sendmmsg(to.fileno(), byref(self._messages), BATCH, 0)))

    def receive(self, by: socket.socket) -> int:
        """How many were there."""
        flags = socket.MSG_DONTWAIT
        return max(0, int(_libc.recvmmsg(by.fileno(), byref(self._messages), BATCH, flags, None)))
