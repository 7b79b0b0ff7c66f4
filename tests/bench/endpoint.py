"""A server for all kinds of traffic, and clients that measure it.

A client says what it wants by the first byte of a TCP connection, by the second whether each stays
on a processor. To measure rates both stay on the same: the rate by the processor time of both is
then what it would be on an idle machine, however busy this one is, since the network's part is done
in the time of who sends. To measure latencies each has its own, as a guest has; on one processor
they are a sum of work done, without the time it takes to wake another.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

from tests.sandbox import Namespace

from .datagrams import Datagrams
from .samples import Metrics, percentile

PORT = 7000
CHUNK = 1 << 17
SMALL = 64
"""Bytes of payload of a small datagram."""
_SINK, _SOURCE, _ECHO, _COUNT = b"sgec"
_PR_SET_PDEATHSIG = 1
_SO_RCVBUFFORCE = 33
_BUFFER = 1 << 24
_TIMEOUT = 10.0
_NAP = 0.002
REQUEST, SHARED = "TCP request", "TCP request on one processor"


class Route(NamedTuple):
    """Where a client is, and how it calls the server."""

    client: Namespace
    address: str
    port: int = PORT
    pid: int = 0
    """The server's process."""
    pinned: bool = False
    """Both ends stay on a processor."""


# --- server --------------------------------------------------------------------------------------


@contextmanager
def serving(namespace: Namespace, address: str = "0.0.0.0", port: int = PORT) -> Iterator[int]:
    """A server in a process of its own, which ends with this one; its number."""
    listener = namespace.call(lambda: socket.create_server((address, port), family=_family(address)))
    datagrams = namespace.call(lambda: socket.socket(_family(address), socket.SOCK_DGRAM))
    with listener, datagrams:
        datagrams.bind((address, port))
        datagrams.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        pid = os.fork()
        if pid == 0:
            _serve_forever(listener, datagrams)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _serve_forever(listener: socket.socket, datagrams: socket.socket) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the parent, who ends us
    try:
        while True:
            connection, _ = listener.accept()
            with suppress(OSError), connection:
                _serve(connection, datagrams)
    finally:
        os._exit(1)


def _serve(connection: socket.socket, datagrams: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    wanted, pinned = connection.recv(2, socket.MSG_WAITALL)
    with ExitStack() as stack:
        if pinned:
            stack.enter_context(_pinned(max))
        if wanted == _SINK:
            connection.sendall(struct.pack("!Q", _drain(connection)))
        elif wanted == _SOURCE:
            while True:
                connection.sendall(bytes(CHUNK))
        elif wanted == _ECHO:
            _echo(connection)
        elif wanted == _COUNT:
            connection.sendall(struct.pack("!Q", _count(connection, datagrams)))


def _echo(connection: socket.socket) -> None:
    with _undisturbed():
        while data := connection.recv(1024):
            connection.sendall(data)


def _drain(connection: socket.socket) -> int:
    buffer = bytearray(CHUNK)
    total = 0
    while got := connection.recv_into(buffer):
        total += got
    return total


def _count(connection: socket.socket, datagrams: socket.socket) -> int:
    """Datagrams that arrive between saying that we are ready and the client's end of file.

    Looks from time to time: to be woken by each of them would cost more than all the rest.
    """
    batch = Datagrams(SMALL)
    while batch.receive(datagrams):  # of an earlier run
        pass
    connection.sendall(b"r")
    connection.setblocking(False)
    total, ended = 0, False
    while not ended:
        time.sleep(_NAP)
        with suppress(BlockingIOError):
            ended = not connection.recv(1)
        while got := batch.receive(datagrams):
            total += got
    connection.setblocking(True)
    return total


# --- processors ----------------------------------------------------------------------------------


@contextmanager
def _pinned(choose: Callable[[set[int]], int]) -> Iterator[None]:
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {choose(processors)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, processors)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No other process takes the processor away: it would make the 99th percentile."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


class _Clock:
    """Seconds since it was made: of the world, and of the processor at work on both ends."""

    def __init__(self, route: Route) -> None:
        # CPUCLOCK_SCHED of a process, see linux/posix-timers_types.h
        self._clocks = [time.CLOCK_PROCESS_CPUTIME_ID]
        self._clocks += [~route.pid << 3 | 2] if route.pid else []
        self._started, self._used = time.perf_counter(), self._processor()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._started

    @property
    def processor_seconds(self) -> float:
        return self._processor() - self._used

    def metrics(self, amount: int) -> Metrics:
        return {"rate": amount / self.seconds, "rate by processor": amount / self.processor_seconds}

    def _processor(self) -> float:
        return sum(map(time.clock_gettime, self._clocks))


# --- clients -------------------------------------------------------------------------------------


def send_stream(route: Route, seconds: float) -> Metrics:
    """Bytes a second to the server."""
    chunk = bytes(CHUNK)
    with _connect(route, _SINK) as stream:
        clock = _Clock(route)
        while clock.seconds < seconds:
            stream.sendall(chunk)
        stream.shutdown(socket.SHUT_WR)
        return clock.metrics(_number(stream))


def receive_stream(route: Route, seconds: float) -> Metrics:
    """Bytes a second from the server."""
    buffer = bytearray(CHUNK)
    with _connect(route, _SOURCE) as stream:
        clock = _Clock(route)
        total = 0
        while clock.seconds < seconds:
            total += stream.recv_into(buffer)
        return clock.metrics(total)


def ask(route: Route, seconds: float) -> Metrics:
    """Seconds for one byte there and one back."""
    took = []
    with _connect(route, _ECHO) as stream, _undisturbed():
        end = time.perf_counter() + seconds
        before = time.perf_counter()
        while before < end:
            stream.send(b"x")
            stream.recv(1)
            now = time.perf_counter()
            took.append(now - before)
            before = now
    return {"p50": percentile(took, 50), "p99": percentile(took, 99)}


def flood(route: Route, seconds: float) -> Metrics:
    """Small datagrams a second that arrive."""
    batch = Datagrams(SMALL)
    datagrams = route.client.call(lambda: socket.socket(_family(route.address), socket.SOCK_DGRAM))
    with _connect(route, _COUNT) as control, datagrams:
        datagrams.connect((route.address, route.port))
        control.recv(1)
        clock = _Clock(route)
        while clock.seconds < seconds:
            batch.send(datagrams)
        control.shutdown(socket.SHUT_WR)
        return clock.metrics(_number(control))


KINDS: dict[str, Callable[[Route, float], Metrics]] = {
    "TCP sent": send_stream,
    "TCP received": receive_stream,
    REQUEST: ask,
    SHARED: ask,
    "UDP 64 bytes": flood,
}


def measure_slice(kind: str, route: Route, seconds: float) -> Metrics:
    """One ``kind`` of traffic on ``route``."""
    with ExitStack() as stack:
        if route.pinned:
            stack.enter_context(_pinned(min if kind == REQUEST else max))
        return KINDS[kind](route, seconds)


def _connect(route: Route, wanted: int) -> socket.socket:
    stream = route.client.call(lambda: socket.socket(_family(route.address), socket.SOCK_STREAM))
    stream.settimeout(_TIMEOUT)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.connect((route.address, route.port))
    stream.sendall(bytes((wanted, route.pinned)))
    return stream


def _number(stream: socket.socket) -> int:
    (number,) = struct.unpack("!Q", stream.recv(8, socket.MSG_WAITALL))
    return int(number)
