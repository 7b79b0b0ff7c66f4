"""Listens to an interface and keeps which addresses were seen in its frames."""

from __future__ import annotations

import ipaddress
import select
import socket
import struct
import threading
from typing import Iterator, NamedTuple, Set

from .namespaces import Namespace

ETH_P_ALL = 3
SOL_PACKET, PACKET_STATISTICS = 263, 6
OUTGOING = 4
"""AF_PACKET's packet type for what this end sends (linux/if_packet.h)."""
SNAP = 192
"""Bytes of each frame: enough for an ICMP error with the header it quotes."""
ICMP_ERRORS = (3, 4, 5, 11, 12)


class Seen(NamedTuple):
    """Addresses that one frame carried: as IPv4, as ARP, or quoted in an ICMP error."""

    layer: str
    source: str
    destination: str


class Capture:
    """As a context manager: keeps what passes `interface`, in both directions, in `seen`.

    With `incoming`, what comes in only. What goes out by a veth device may be shown as the other end
    has changed it since: the kernel writes new headers for fragments into memory that is ours as well.

    `frames` counts all frames, so that a test can tell silence from deafness.
    """

    def __init__(self, namespace: Namespace, interface: str, *, incoming: bool = False) -> None:
        self.seen: Set[Seen] = set()
        self.frames = 0
        self._namespace = namespace
        self._interface = interface
        self._incoming = incoming
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Capture:
        self._socket = self._namespace.call(self._open)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)
        statistics = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        self._socket.close()
        lost = struct.unpack("II", statistics)[1]
        assert not lost, f"{lost} frames on {self._interface} were not looked at"

    def within(self, *prefixes: str) -> Set[Seen]:
        """Those of `seen` with an address in one of `prefixes`."""
        networks = [ipaddress.IPv4Network(prefix) for prefix in prefixes]
        return {
            seen
            for seen in set(self.seen)
            for address in seen[1:]
            if any(ipaddress.IPv4Address(address) in network for network in networks)
        }

    def _open(self) -> socket.socket:
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        opened.bind((self._interface, ETH_P_ALL))
        return opened

    def _listen(self) -> None:
        while True:
            stopping = self._stop.is_set()
            if select.select([self._socket], [], [], 0 if stopping else 0.05)[0]:
                frame, source = self._socket.recvfrom(SNAP)
                if self._incoming and source[2] == OUTGOING:
                    continue
                self.frames += 1
                self.seen.update(_addresses(frame))
            elif stopping:  # asked to stop before the last look, which found nothing more
                return


def _addresses(frame: bytes) -> Iterator[Seen]:
    kind, packet = frame[12:14], frame[14:]
    if kind == b"\x08\x06" and len(packet) >= 28:
        yield Seen("arp", socket.inet_ntoa(packet[14:18]), socket.inet_ntoa(packet[24:28]))
    elif kind == b"\x08\x00" and len(packet) >= 20:
        yield _ip("ip", packet)
        payload = packet[(packet[0] & 15) * 4 :]
        if packet[9] == socket.IPPROTO_ICMP and len(payload) >= 28 and payload[0] in ICMP_ERRORS:
            yield _ip("quoted", payload[8:])


def _ip(layer: str, packet: bytes) -> Seen:
    return Seen(layer, socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20]))
