"""Sockets in namespaces: captures, echo servers, a prober. All run in threads of the test."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from typing import TypeVar

from tests.sandbox import Namespace

from .frames import ipv4_addresses

ALL_PROTOCOLS = 3
OUTGOING = 4
"""AF_PACKET's packet type for what this end sends (linux/if_packet.h)."""
RECEIVE_ERRORS, MTU_DISCOVER, ALWAYS_DONT_FRAGMENT = 11, 10, 2
"""IP_RECVERR, IP_MTU_DISCOVER, IP_PMTUDISC_DO of linux/in.h."""
RECEIVE_BUFFER_FORCE = 33
AT_ONCE = 0.9
"""Seconds; TCP asks again after one."""
PATIENCE = 10.0
"""Seconds in which what must come has come, on a machine that is busy with other tests as well."""
SETTLE = 0.02
"""Seconds after which a frame that was let through has arrived: veth takes microseconds."""
OURS = (IPv4Network("127.0.0.0/8"), IPv4Network("247.0.0.0/8"))
"""What no LAN may ever see."""
_FIRST_BYTES = frozenset(prefix.network_address.packed[0] for prefix in OURS)


class Capture:
    """Every frame on a device, from now on, both ways."""

    def __init__(self, namespace: Namespace, device: str) -> None:
        protocol = socket.htons(ALL_PROTOCOLS)
        self._socket = namespace.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, protocol))
        self._socket.setsockopt(socket.SOL_SOCKET, RECEIVE_BUFFER_FORCE, 1 << 24)
        self._socket.bind((device, ALL_PROTOCOLS))

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def next(self, timeout: float) -> bytes | None:
        """The next frame that came in; None when there is none in time."""
        end = time.monotonic() + timeout
        while True:
            self._socket.settimeout(max(end - time.monotonic(), 0.0001))
            try:
                frame, source = self._socket.recvfrom(1 << 16)
            except (socket.timeout, BlockingIOError):
                return None
            if source[2] != OUTGOING:
                return frame

    def find(self, wanted: Callable[[bytes], bool], timeout: float = SETTLE) -> bytes | None:
        """The first frame to come in that is ``wanted``."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            frame = self.next(end - time.monotonic())
            if frame is not None and wanted(frame):
                return frame
        return None

    def send(self, frame: bytes) -> None:
        self._socket.send(frame)


class Repeating:
    """Does something over and over in a thread, from the beginning of a block to its end."""

    def __init__(self, pause: float = 0.0) -> None:
        self._pause = pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._repeat, daemon=True)

    def __enter__(self: R) -> R:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._end()

    def _repeat(self) -> None:
        while not self._stop.wait(self._pause):
            self._once()

    def _once(self) -> None:
        raise NotImplementedError

    def _end(self) -> None:
        """Closes what it had open."""


R = TypeVar("R", bound=Repeating)


class LeakWatch(Repeating):
    """Watches a LAN for addresses in 127/8 and 247/8; ``leaks`` tells each frame that had one."""

    def __init__(self, namespace: Namespace, device: str) -> None:
        super().__init__()
        self.leaks: list[str] = []
        self.frames = 0
        self._capture = Capture(namespace, device)

    def take(self, settle: float = SETTLE) -> list[str]:
        """The leaks since the last call, after all that is under way has arrived."""
        time.sleep(settle)
        taken, self.leaks = self.leaks, []
        return taken

    def _once(self) -> None:
        frame = self._capture.next(0.05)
        if frame is None:
            return
        self.frames += 1
        if not _FIRST_BYTES.intersection(frame):  # as most, which arrive faster than they are taken apart
            return
        ours = [a for a in ipv4_addresses(frame) if any(a in prefix for prefix in OURS)]
        if ours:
            self.leaks.append(f"{', '.join(map(str, ours))} in {frame[:90].hex(' ', 2)}")

    def _end(self) -> None:
        self._capture.__exit__()


class Prober(Repeating):
    """Asks 127.0.0.1 a thousand times a second whether it is there."""

    def __init__(self, namespace: Namespace, address: str = "127.0.0.1") -> None:
        super().__init__(0.001)
        self.asked, self.failed, self.longest = 0, 0, 0.0
        self.errors: set[str] = set()
        self._server = datagram_socket(namespace, (address, 0))
        self._server.settimeout(1)
        self._client = datagram_socket(namespace)
        self._address = self._server.getsockname()

    def _once(self) -> None:
        number = struct.pack("!Q", self.asked)
        self.asked += 1
        begin = time.monotonic()
        try:
            # Not connected: each datagram looks its route up anew.
            self._client.sendto(number, self._address)
            while self._server.recv(64) != number:
                pass
        except OSError as error:
            self.failed += 1
            self.errors.add(str(error))
        self.longest = max(self.longest, time.monotonic() - begin)

    def _end(self) -> None:
        self._server.close()
        self._client.close()


class Servers:
    """Echo servers in namespaces; all end with the block.

    UDP answers each datagram with ``ADDRESS:PORT`` of its sender, a line break and the datagram; TCP
    reads to the end, then answers likewise.
    """

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._sockets:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)  # wakes its thread up
            server.close()
        for thread in self._threads:  # which has the port until it returns from the kernel
            thread.join(PATIENCE)

    def udp(self, namespace: Namespace, where: tuple[str, int]) -> None:
        server = datagram_socket(namespace, where)
        server.setsockopt(socket.SOL_SOCKET, RECEIVE_BUFFER_FORCE, 1 << 20)
        self._start(server, self._answer_udp)

    def tcp(self, namespace: Namespace, where: tuple[str, int]) -> None:
        server = stream_socket(namespace)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(where)
        server.listen(64)
        self._start(server, self._answer_tcp)

    def both(self, namespace: Namespace, where: tuple[str, int]) -> None:
        self.udp(namespace, where)
        self.tcp(namespace, where)

    def _start(self, server: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        self._sockets.append(server)
        self._threads.append(threading.Thread(target=serve, args=(server,), daemon=True))
        self._threads[-1].start()

    def _answer_udp(self, server: socket.socket) -> None:
        while True:
            try:
                data, peer = server.recvfrom(1 << 16)
            except OSError:  # an ICMP error about an answer, or the end
                if server.fileno() < 0:
                    return
                continue
            if not data and not peer:
                return
            with contextlib.suppress(OSError):
                server.sendto(_header(peer) + data, peer)

    def _answer_tcp(self, server: socket.socket) -> None:
        while True:
            try:
                connection, peer = server.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection, peer), daemon=True).start()

    def _answer(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(20)
            connection.sendall(_header(peer) + read_all(connection))


def _header(peer: tuple[str, int]) -> bytes:
    return f"{peer[0]}:{peer[1]}\n".encode()


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def datagram_socket(
    namespace: Namespace, where: tuple[str, int] | None = None, family: int = socket.AF_INET
) -> socket.socket:
    created = namespace.call(lambda: socket.socket(family, socket.SOCK_DGRAM))
    if where:
        created.bind(where)
    return created


def stream_socket(namespace: Namespace) -> socket.socket:
    return namespace.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))


def ask_tcp(
    namespace: Namespace,
    server: tuple[str, int],
    data: bytes = b"hello",
    *,
    source: str = "",
    timeout: float = PATIENCE,
) -> tuple[str, str]:
    """Send ``data`` to a TCP echo server; (our address here, our address there).

    Raises OSError when there is no connection, AssertionError when other data come back.
    """  # fmt: skip
    with stream_socket(namespace) as connection:
        connection.settimeout(timeout)
        if source:
            connection.bind((source, 0))
        connection.connect(server)
        here = str(connection.getsockname()[0])
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        peer, _, echoed = read_all(connection).partition(b"\n")
        assert echoed == data, f"{len(echoed)} of {len(data)} bytes came back"
        return here, peer.decode().rpartition(":")[0]


def ask_udp(
    namespace: Namespace,
    server: tuple[str, int],
    data: bytes = b"hello",
    *,
    source: str = "",
    timeout: float = PATIENCE,
) -> tuple[str, str]:
    """The same with one datagram on a connected socket, which hears of ICMP errors as well."""  # fmt: skip
    with datagram_socket(namespace) as client:
        client.setsockopt(socket.SOL_SOCKET, RECEIVE_BUFFER_FORCE, 1 << 20)
        client.settimeout(timeout)
        if source:
            client.bind((source, 0))
        client.connect(server)
        client.send(data)
        answer = client.recv(1 << 16)
        peer, echoed = answer[: len(answer) - len(data)], answer[len(answer) - len(data) :]
        assert echoed == data, f"{len(echoed)} of {len(data)} bytes came back"
        return str(client.getsockname()[0]), peer.decode().rpartition(":")[0]


def check_refusal(namespace: Namespace, kind: int, server: tuple[str, int]) -> None:
    """Fails unless ``server``, where nothing listens, refuses at once."""
    with namespace.call(lambda: socket.socket(socket.AF_INET, kind)) as client:
        client.settimeout(PATIENCE)
        begin = time.monotonic()
        with contextlib.suppress(ConnectionRefusedError):
            client.connect(server)
            client.send(b"anybody?")
            client.recv(100)
            raise AssertionError(f"{server} did not refuse")
        assert time.monotonic() - begin < AT_ONCE, f"no refusal by {server} after {AT_ONCE} s"


def icmp_error(client: socket.socket) -> tuple[str, int, int, int]:
    """The next ICMP error that a socket with IP_RECVERR heard of: (its sender, type, code, MTU)."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            _, ancillary, _, _ = client.recvmsg(100, 512, socket.MSG_ERRQUEUE)
        except BlockingIOError:
            time.sleep(0.002)
            continue
        for _, kind, data in ancillary:
            if kind == RECEIVE_ERRORS:
                _, _, icmp_type, code, _, info, _ = struct.unpack_from("=IBBBBII", data)
                return str(IPv4Address(data[20:24])), icmp_type, code, info
    raise AssertionError("no ICMP error was heard of")


def probe_path(
    namespace: Namespace, server: tuple[str, int], *, ttl: int = 64, size: int = 20
) -> tuple[str, int, int, int]:
    """Send a datagram that must not be fragmented; the ICMP error that it brings."""
    with datagram_socket(namespace) as client:
        client.setsockopt(socket.IPPROTO_IP, RECEIVE_ERRORS, 1)
        client.setsockopt(socket.IPPROTO_IP, MTU_DISCOVER, ALWAYS_DONT_FRAGMENT)
        client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        client.setblocking(False)
        client.connect(server)
        client.send(bytes(size))
        return icmp_error(client)


class Flood(Repeating):
    """Does things over and over in a thread; ``rounds`` tells how often."""

    def __init__(self, *deeds: Callable[[], object]) -> None:
        super().__init__(0.0005)
        self.rounds = 0
        self._deeds = deeds

    def _once(self) -> None:
        for deed in self._deeds:
            with contextlib.suppress(OSError):
                deed()
        self.rounds += 1
