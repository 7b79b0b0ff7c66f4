"""IPv6 packets and neighbour discovery, byte by byte (RFC 8200, RFC 4861)."""

from __future__ import annotations

import struct
from ipaddress import IPv6Address

from .frames import ICMP6, UDP, checksum, mac

SOLICITATION, ADVERTISEMENT, ECHO_REQUEST = 135, 136, 128
_OVERRIDE_SOLICITED = 0x60000000
_SOURCE_LINK, _TARGET_LINK = 1, 2


def packet(source: str, destination: str, protocol: int, message: bytes, checksum_at: int) -> bytes:
    """A packet with hop limit 255; the checksum of its message is put in."""
    addresses = IPv6Address(source).packed + IPv6Address(destination).packed
    pseudo = addresses + struct.pack("!II", len(message), protocol)
    message = message[:checksum_at] + bytes(2) + message[checksum_at + 2 :]
    total = struct.pack("!H", checksum(pseudo + message) or 0xFFFF)
    message = message[:checksum_at] + total + message[checksum_at + 2 :]
    return struct.pack("!IHBB", 6 << 28, len(message), protocol, 255) + addresses + message


def udp(source: tuple[str, int], destination: tuple[str, int], data: bytes) -> bytes:
    """A datagram; both ends are (address, port)."""
    head = struct.pack("!HHHH", source[1], destination[1], 8 + len(data), 0)
    return packet(source[0], destination[0], UDP, head + data, 6)


def echo(source: str, destination: str, data: bytes) -> bytes:
    return packet(source, destination, ICMP6, struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, 1, 1) + data, 2)


def advertisement(source: str, destination: str, target: str, link: str) -> bytes:
    """``target`` is at the MAC address ``link``, whatever was known before."""
    message = struct.pack("!BBHI", ADVERTISEMENT, 0, 0, _OVERRIDE_SOLICITED) + IPv6Address(target).packed
    return packet(source, destination, ICMP6, message + bytes((_TARGET_LINK, 1)) + mac(link), 2)


def solicitation(
    source: str, target: str, link: str = "", destination: str = "", nonce: bytes = b""
) -> bytes:
    """Who has ``target``? From ``::`` and without ``link``: has anybody, or may I?"""
    message = struct.pack("!BBHI", SOLICITATION, 0, 0, 0) + IPv6Address(target).packed
    option = bytes((_SOURCE_LINK, 1)) + mac(link) if link else b""
    if nonce:  # RFC 3971, 5.3.2
        option += (bytes((14, (len(nonce) + 9) // 8)) + nonce).ljust((len(nonce) + 9) // 8 * 8, b"\0")
    return packet(source, destination or "ff02::1", ICMP6, message + option, 2)


def multicast_mac(address: str) -> str:
    """RFC 2464, 7."""
    return "33:33:" + IPv6Address(address).packed[-4:].hex(":")
