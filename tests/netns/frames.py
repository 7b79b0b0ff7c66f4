"""Frames byte by byte: what a guest may put on its wire, whatever its kernel thinks of it."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address

BROADCAST = "ff:ff:ff:ff:ff:ff"
NOBODY = "00:00:00:00:00:00"
IP, ARP, VLAN, IP6 = 0x0800, 0x0806, 0x8100, 0x86DD
EXPERIMENT = 0x88B5
"""An EtherType for private use (IEEE 802)."""
ICMP, TCP, UDP, GRE, ICMP6 = 1, 6, 17, 47, 58
REQUEST, REPLY = 1, 2
UNREACHABLE, REDIRECT, ECHO, TIME_EXCEEDED = 3, 5, 8, 11
MORE = 0x2000
"""The flag of a fragment that is not the last; the offset, in eights of bytes, is added."""

DHCP_ID, DHCP_COOKIE = 0x1234, b"\x63\x82\x53\x63"
DHCP_ROUTER, DHCP_DNS, DHCP_WANTED, DHCP_TYPE, DHCP_SERVER = 3, 6, 50, 53, 54
DHCP_DISCOVER, DHCP_OFFER, DHCP_REQUEST, DHCP_ACK = 1, 2, 3, 5

ALL_NODES = "33:33:00:00:00:01"
_ROUTER_ADVERTISEMENT, _NEIGHBOUR_REDIRECT = 134, 137


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def address(text: str) -> bytes:
    return IPv4Address(text).packed


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1]))
    total += data[-1] << 8 if len(data) & 1 else 0
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def ethernet(source: str, destination: str, kind: int, payload: bytes, tags: Sequence[int] = ()) -> bytes:
    """A frame; each of ``tags`` is a VLAN number, the outermost first."""
    kinds = [*[VLAN] * len(tags), kind]
    header = mac(destination) + mac(source) + struct.pack("!H", kinds[0])
    inner = b"".join(struct.pack("!HH", tag, kinds[i + 1]) for i, tag in enumerate(tags))
    return (header + inner + payload).ljust(60, b"\0")


def arp(operation: int, sender: tuple[str, str], target: tuple[str, str]) -> bytes:
    """``sender`` and ``target`` are (MAC, IPv4 address)."""
    parts = b"".join(mac(m) + address(a) for m, a in (sender, target))
    return struct.pack("!HHBBH", 1, IP, 6, 4, operation) + parts


def ipv4(
    source: str,
    destination: str,
    protocol: int,
    payload: bytes,
    *,
    options: bytes = b"",
    fragment: int = 0,
    identifier: int = 7,
    ttl: int = 64,
    error: int = 0,
) -> bytes:
    """A packet; ``fragment`` is flags and offset, ``error`` is added to the right checksum."""
    options = options.ljust(-(-len(options) // 4) * 4, b"\0")
    length = 20 + len(options)
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x40 | length // 4, 0, length + len(payload), identifier, fragment, ttl,
        protocol, 0, address(source), address(destination),
    )  # fmt: skip
    total = (checksum(head + options) + error) % 0xFFFF
    return head[:10] + struct.pack("!H", total) + head[12:] + options + payload


def udp(source: tuple[str, int], destination: tuple[str, int], data: bytes) -> bytes:
    """A datagram with its checksum, without the IP header; both ends are (address, port)."""
    length = 8 + len(data)
    pseudo = address(source[0]) + address(destination[0]) + struct.pack("!HH", UDP, length)
    head = struct.pack("!HHH", source[1], destination[1], length)
    total = checksum(pseudo + head + b"\0\0" + data) or 0xFFFF
    return head + struct.pack("!H", total) + data


def udp_packet(
    source: tuple[str, int], destination: tuple[str, int], data: bytes, options: bytes = b""
) -> bytes:
    datagram = udp(source, destination, data)
    return ipv4(source[0], destination[0], UDP, datagram, options=options)


def tcp_syn(source: tuple[str, int], destination: tuple[str, int]) -> bytes:
    """The first segment of a connection, without the IP header."""
    head = struct.pack("!HHIIBBH", source[1], destination[1], 1, 0, 0x50, 2, 65535)
    pseudo = address(source[0]) + address(destination[0]) + struct.pack("!HH", TCP, 20)
    return head + struct.pack("!HH", checksum(pseudo + head + bytes(4)), 0)


def icmp(kind: int, code: int, rest: bytes, data: bytes) -> bytes:
    """``rest`` is the second word of the header, ``data`` what follows: the quoted packet, say."""
    body = struct.pack("!BBH", kind, code, 0) + rest + data
    return body[:2] + struct.pack("!H", checksum(body)) + body[4:]


def loose_source_route(*hops: str) -> bytes:
    """The IP option that asks to be sent on to ``hops``."""
    return struct.pack("!BBB", 131, 3 + 4 * len(hops), 4) + b"".join(map(address, hops))


def dhcp(
    operation: int,
    client: str,
    options: bytes,
    *,
    own: str = "0.0.0.0",
    offered: str = "0.0.0.0",
    broadcast: bool = True,
) -> bytes:
    """A DHCP message, REQUEST or REPLY, to or from the MAC address ``client``."""
    flags = 0x8000 if broadcast else 0
    fixed = struct.pack("!BBBBIHH", operation, 1, 6, 0, DHCP_ID, 0, flags)
    addresses = address(own) + address(offered) + bytes(8)
    return fixed + addresses + mac(client) + bytes(10 + 192) + DHCP_COOKIE + options + b"\xff"


def dhcp_option(number: int, value: bytes) -> bytes:
    return bytes((number, len(value))) + value


def dhcp_offer(client: str, server: str, offered: str) -> bytes:
    """What a DHCP server tells the MAC address ``client``: take ``offered``, I am your router."""
    options = dhcp_option(DHCP_TYPE, bytes((DHCP_OFFER,)))
    options += dhcp_option(DHCP_SERVER, address(server)) + dhcp_option(DHCP_ROUTER, address(server))
    return dhcp(REPLY, client, options, offered=offered)


def dhcp_answer(message: bytes) -> tuple[str, dict[int, bytes]]:
    """The address a DHCP server gives, and its options."""
    options, rest = {}, message[240:]
    while rest and rest[0] != 255:
        if rest[0] == 0:
            rest = rest[1:]
            continue
        options[rest[0]] = rest[2 : 2 + rest[1]]
        rest = rest[2 + rest[1] :]
    return str(IPv4Address(message[16:20])), options


def router_advertisement(source_mac: str, more: bytes) -> bytes:
    """An IPv6 packet that says: I am the default router. ``more``, 14 bytes, is in an unknown option."""
    message = struct.pack("!BBHBBHII", _ROUTER_ADVERTISEMENT, 0, 0, 64, 0, 1800, 0, 0)
    return ipv6_to_all(source_mac, ICMP6, message + b"\1\1" + mac(source_mac) + b"\xc8\2" + more, 2)


def neighbour_redirect(source_mac: str, about: IPv6Address, more: bytes) -> bytes:
    """An IPv6 packet that says: the way to ``about`` is through me."""
    addresses = link_local(source_mac).packed + about.packed
    message = struct.pack("!BBHI", _NEIGHBOUR_REDIRECT, 0, 0, 0) + addresses + b"\xc8\2" + more
    return ipv6_to_all(source_mac, ICMP6, message, 2)


def dhcpv6(source_mac: str, message: bytes) -> bytes:
    """From a server to a client."""
    head = struct.pack("!HHHH", 547, 546, 8 + len(message), 0)
    return ipv6_to_all(source_mac, UDP, head + message, 6)


def ipv6_to_all(source_mac: str, protocol: int, message: bytes, checksum_at: int) -> bytes:
    """From the link-local address of ``source_mac``; the checksum is yet to come."""
    addresses = link_local(source_mac).packed + IPv6Address("ff02::1").packed
    pseudo = addresses + struct.pack("!II", len(message), protocol)
    total = struct.pack("!H", checksum(pseudo + message) or 0xFFFF)
    message = message[:checksum_at] + total + message[checksum_at + 2 :]
    return struct.pack("!IHBB", 6 << 28, len(message), protocol, 255) + addresses + message


def link_local(source_mac: str) -> IPv6Address:
    """The address that IPv6 makes of a MAC address (EUI-64)."""
    raw = mac(source_mac)
    return IPv6Address(b"\xfe\x80" + bytes(6) + bytes((raw[0] ^ 2,)) + raw[1:3] + b"\xff\xfe" + raw[3:])


def ipv4_addresses(frame: bytes) -> Iterator[IPv4Address]:
    """The IPv4 addresses in a frame's headers, those in a packet quoted by ICMP among them.

    Not an ARP reply's target: who asks may call himself what he likes.
    """
    start, kind = _network_header(frame)
    body = frame[start:]
    if kind == ARP and len(body) >= 28:
        yield IPv4Address(body[14:18])
        if body[6:8] == b"\0\1":
            yield IPv4Address(body[24:28])
    elif kind == IP:
        yield from _packet_addresses(body)


def _network_header(frame: bytes) -> tuple[int, int]:
    start = 14
    while frame[start - 2 : start] in (b"\x81\x00", b"\x88\xa8"):
        start += 4
    return start, int.from_bytes(frame[start - 2 : start], "big")


def _packet_addresses(packet: bytes) -> Iterator[IPv4Address]:
    if len(packet) < 20:
        return
    yield IPv4Address(packet[12:16])
    yield IPv4Address(packet[16:20])
    message = packet[(packet[0] & 15) * 4 :]
    first = struct.unpack_from("!H", packet, 6)[0] & 0x1FFF == 0
    if packet[9] == ICMP and first and message[:1] in (b"\x03", b"\x04", b"\x05", b"\x0b", b"\x0c"):
        yield from _packet_addresses(message[8:])


def udp_data(frame: bytes, destination_port: int) -> bytes | None:
    """What a datagram to this port carries; None if the frame is something else."""
    start, kind = _network_header(frame)
    packet = frame[start:]
    if kind != IP or packet[9] != UDP:
        return None
    datagram = packet[(packet[0] & 15) * 4 : struct.unpack_from("!H", packet, 2)[0]]
    return datagram[8:] if struct.unpack_from("!H", datagram, 2)[0] == destination_port else None
