"""Payloads of IP protocols that this kernel may not have, with what their receivers verify."""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import NamedTuple

from tests.netns import frames

ESP, AH, GRE, SCTP, DCCP, UDPLITE = 50, 51, 47, 132, 33, 136
UDPLITE_SEND_COVERAGE = 10
"""A socket option: how many bytes, the header's 8 among them, the checksum covers (linux/udp.h)."""
KEY = b"an integrity key that both ends have"
ICV = 16


def payload(packet: bytes) -> bytes:
    """What stands behind the IP header."""
    return packet[(packet[0] & 15) * 4 :]


def ends(packet: bytes) -> bytes:
    """Source and destination, eight bytes."""
    return packet[12:20]


# --- IPsec, RFC 4302 and 4303, with HMAC-SHA-256-128 (RFC 4868) and no encryption ----------------------


def _icv(covered: bytes) -> bytes:
    return hmac.new(KEY, covered, hashlib.sha256).digest()[:ICV]


def esp(index: int, data: bytes) -> bytes:
    """What ESP's integrity covers is ESP alone, not the IP header before it."""
    padding = bytes(range(1, -(len(data) + 2) % 4 + 1))
    body = struct.pack("!II", index, 1) + data + padding + struct.pack("!BB", len(padding), frames.UDP)
    return body + _icv(body)


def esp_data(packet: bytes) -> bytes | None:
    """What ``packet`` carries; None when it was touched on its way."""
    body, icv = payload(packet)[:-ICV], payload(packet)[-ICV:]
    if icv != _icv(body):
        return None
    return body[8 : len(body) - 2 - body[-2]]


def ah(addresses: bytes, index: int, data: bytes) -> bytes:
    """What AH's integrity covers: source and destination above all."""
    head = struct.pack("!BBHII", frames.UDP, (12 + ICV) // 4 - 2, 0, index, 1)
    return head + _icv(addresses + head + data) + data


def ah_data(packet: bytes) -> bytes | None:
    body = payload(packet)
    head, icv, data = body[:12], body[12 : 12 + ICV], body[12 + ICV :]
    return data if icv == _icv(ends(packet) + head + data) else None


# --- checksums with the IP addresses in them ---------------------------------------------------------


def pseudo_checksum(addresses: bytes, protocol: int, data: bytes) -> int:
    """Over a pseudo header and ``data``; 0 if the one in there is right."""
    return frames.checksum(addresses + struct.pack("!HH", protocol, len(data)) + data)


def dccp(addresses: bytes, data: bytes) -> bytes:
    """RFC 4340: a Request from port 4000 to 4001, with long sequence numbers."""
    head = struct.pack("!HHBBHBBHII", 4000, 4001, 5, 0, 0, 1, 0, 0, 1, 0x1234) + data
    return head[:6] + struct.pack("!H", pseudo_checksum(addresses, DCCP, head)) + head[8:]


def dccp_data(packet: bytes) -> bytes | None:
    body = payload(packet)
    return None if pseudo_checksum(ends(packet), DCCP, body) else body[20:]


# --- GRE, RFC 2784 and 2890 -----------------------------------------------------------------------------


def gre(key: int, inner: bytes) -> bytes:
    """An IPv4 packet in a tunnel, with checksum and key."""
    head = struct.pack("!HHHHI", 0xA000, frames.IP, 0, 0, key)
    return head[:4] + struct.pack("!H", frames.checksum(head + inner)) + head[6:] + inner


def gre_data(packet: bytes) -> bytes | None:
    body = payload(packet)
    return None if frames.checksum(body) else body[12:]


# --- SCTP, RFC 9260 ---------------------------------------------------------------------------------------

INIT, INIT_ACK, SACK, COOKIE_ECHO, COOKIE_ACK, DATA = 1, 2, 3, 10, 11, 0
_POLYNOMIAL = 0x82F63B78


def crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def sctp(ports: tuple[int, int], tag: int, kind: int, flags: int, body: bytes) -> bytes:
    """A packet of one chunk."""
    length = 4 + len(body)
    chunk = struct.pack("!BBH", kind, flags, length) + body.ljust(-(-len(body) // 4) * 4, b"\0")
    head = struct.pack("!HHI", *ports, tag)
    return head + struct.pack("<I", crc32c(head + bytes(4) + chunk)) + chunk


class Chunk(NamedTuple):
    """A chunk, and of the packet's header what matters."""

    source: int
    destination: int
    tag: int
    kind: int
    body: bytes


def sctp_chunk(packet: bytes) -> Chunk | None:
    """The packet's one chunk; None when the checksum is wrong."""
    body = payload(packet)
    source, destination, tag = struct.unpack_from("!HHI", body)
    if struct.unpack_from("<I", body, 8)[0] != crc32c(body[:8] + bytes(4) + body[12:]):
        return None
    kind, _, length = struct.unpack_from("!BBH", body, 12)
    return Chunk(source, destination, tag, kind, body[16 : 12 + length])
