"""IP protocols next to TCP and UDP, packet by packet: what arrives must pass its receiver's checks.

An address that is rewritten concerns a protocol in three ways: its checksum may cover it, its data may hold
it, and the masquerade needs something to tell two guests apart by.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address

import pytest

from tests.netns import frames
from tests.netns.lab import FAR
from tests.netns.wire import OURS, ask_tcp, ask_udp
from tests.sandbox import Namespace

from . import raw
from .field import PORT, Field, raw_socket
from .table import GUEST_HOST, GUESTS, HOST_GUEST, OUT, shows

NO_PORTS = (
    "One guest at a time with each peer on the internet: only the two addresses tell connections apart, and after"
    " masquerading those of two guests look the same."
)
UNKNOWN_CHECKSUM = (
    "Its checksum covers the addresses, and the kernel corrects only those of TCP, UDP and UDP-Lite."
)
UDPLITE_TRACKED = (
    "The kernel's connection tracking checks UDP-Lite's checksums as if they were UDP's, and takes the packets for"
    " invalid. They pass with net.netfilter.nf_conntrack_checksum = 0."
)
ADDRESSES_SIGNED = "Its purpose is to detect changed addresses; it passes no address translation of any kind."
INNER_CHECKSUM = (
    "The encrypted TCP or UDP checksum covers addresses that only the sender knows. Tunnel mode does not have this"
    " problem, nor does UDP on port 4500, to which IKE switches by itself."
)
SCTP_ADDRESSES = "Additional addresses that an endpoint lists for multihoming are not translated."

Make = Callable[[bytes, bytes], bytes]
"""(source and destination as the sender knows them, data) to the payload of a packet."""
Check = Callable[[bytes], "bytes | None"]
"""A packet to its data; None when a receiver would drop it."""


def there_and_back(field: Field, way: str, protocol: int, make: Make, check: Check) -> bool:
    """Whether a packet arrives intact, from who should be seen, and the answer to it likewise.

    That both arrive at all is taken for granted: what is at stake is whether they are any good.
    """
    begins, answers, address, seen = field.ways[way]
    with raw_socket(begins, protocol) as client, raw_socket(answers, protocol) as server:
        client.connect((address, 0))
        own = socket.inet_aton(client.getsockname()[0])
        client.send(make(own + socket.inet_aton(address), b"there"))
        asked, peer = server.recvfrom(2000)
        assert peer[0] == seen
        swapped = raw.ends(asked)[4:] + raw.ends(asked)[:4]
        server.sendto(make(swapped, b"back"), peer)
        answer = client.recv(2000)
        found = check(asked), check(answer)
    assert found[0] in (None, b"there")
    assert found[1] in (None, b"back")
    assert (found[0] is None) is (found[1] is None)
    return found[0] is not None


# --- TCP, UDP, ICMP ------------------------------------------------------------------------------------


@shows("TCP, UDP", HOST_GUEST, GUEST_HOST, GUESTS, OUT)
def test_tcp_and_udp(field: Field) -> bool:
    for begins, _, address, seen in field.ways.values():
        assert ask_tcp(begins, (address, PORT), bytes(100_000))[1] == seen
        assert ask_udp(begins, (address, PORT))[1] == seen
    return True


# --- UDP-Lite and DCCP ---------------------------------------------------------------------------------


def udplite_socket(namespace: Namespace) -> socket.socket:
    try:
        made = namespace.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, raw.UDPLITE))
    except OSError as error:  # Linux is about to part with it
        pytest.skip(f"this kernel has no UDP-Lite: {error}")
    made.settimeout(0.5)
    made.setsockopt(raw.UDPLITE, raw.UDPLITE_SEND_COVERAGE, 12)
    return made


def udplite(field: Field, way: str) -> bool:
    """By the kernel's own implementation, which drops what has a wrong checksum."""
    begins, answers, address, seen = field.ways[way]
    with udplite_socket(begins) as client, udplite_socket(answers) as server:
        server.bind(("0.0.0.0", 4001))
        client.connect((address, 4001))
        client.send(bytes(range(200)))
        try:
            data, peer = server.recvfrom(2000)
            assert (data, peer[0]) == (bytes(range(200)), seen)
            server.sendto(data, peer)
            return client.recv(2000) == data
        except TimeoutError:
            return False


@shows("UDP-Lite", GUEST_HOST, GUESTS)
def test_udplite_from_guest(field: Field) -> bool:
    return udplite(field, GUEST_HOST) and udplite(field, GUESTS)


@shows("UDP-Lite", HOST_GUEST, OUT, mapped=False, native=False, why=UDPLITE_TRACKED)
def test_udplite_through_connection_tracking(field: Field) -> bool:
    ways = (HOST_GUEST, OUT)
    field.host.sh("echo 0 >/proc/sys/net/netfilter/nf_conntrack_checksum")
    try:
        assert all(udplite(field, way) for way in ways)
    finally:
        field.host.sh("echo 1 >/proc/sys/net/netfilter/nf_conntrack_checksum")
    return any(udplite(field, way) for way in ways)


def dccp(field: Field, way: str) -> bool:
    return there_and_back(field, way, raw.DCCP, raw.dccp, raw.dccp_data)


@shows("DCCP", HOST_GUEST, mapped=False, why=UNKNOWN_CHECKSUM)
def test_dccp_host_to_guest(field: Field) -> bool:
    return dccp(field, HOST_GUEST)


@shows("DCCP", GUESTS)
def test_dccp_between_guests(field: Field) -> bool:
    return dccp(field, GUESTS)


# --- SCTP ----------------------------------------------------------------------------------------------


def sctp_association(
    begins: Namespace, answers: Namespace, address: str, port: int = 5000
) -> tuple[str, int]:
    """Set one up and send data over it; who the other end saw. Raises AssertionError for a bad checksum."""
    ports = (port, 5001)
    with raw_socket(begins, raw.SCTP) as client, raw_socket(answers, raw.SCTP) as server:
        client.connect((address, 0))

        def tell(tag: int, kind: int, body: bytes, flags: int = 0) -> tuple[raw.Chunk, tuple[str, int]]:
            client.send(raw.sctp(ports, tag, kind, flags, body))
            packet, peer = server.recvfrom(2000)
            return good(packet), peer

        def answer(tag: int, kind: int, body: bytes) -> raw.Chunk:
            server.sendto(raw.sctp((ports[1], seen.source), tag, kind, 0, body), peer)
            chunk = good(client.recv(2000))
            assert (chunk.source, chunk.destination, chunk.tag, chunk.kind) == (ports[1], port, tag, kind)
            return chunk

        mine, yours = 0x1111, 0x2222
        init = struct.pack("!IIHHI", mine, 65536, 1, 1, 1)
        seen, peer = tell(0, raw.INIT, init)
        assert (seen.kind, seen.body) == (raw.INIT, init)
        accept = struct.pack("!IIHHI", yours, 65536, 1, 1, 1) + struct.pack("!HH", 7, 12) + b"a cookie"
        assert answer(mine, raw.INIT_ACK, accept).body == accept
        seen, _ = tell(yours, raw.COOKIE_ECHO, b"a cookie")
        assert seen.body == b"a cookie"
        answer(mine, raw.COOKIE_ACK, b"")
        data = struct.pack("!IHHI", 1, 0, 0, 0) + bytes(range(250)) * 4
        seen, peer = tell(yours, raw.DATA, data, flags=3)
        assert (seen.kind, seen.body) == (raw.DATA, data)
        answer(mine, raw.SACK, struct.pack("!IIHH", 1, 65536, 0, 0))
        return peer[0], seen.source


def good(packet: bytes) -> raw.Chunk:
    chunk = raw.sctp_chunk(packet)
    assert chunk, "its checksum is wrong"
    return chunk


def sctp(field: Field, way: str) -> bool:
    begins, answers, address, seen = field.ways[way]
    assert sctp_association(begins, answers, address) == (seen, 5000)
    return True


@shows("SCTP", HOST_GUEST, why=SCTP_ADDRESSES)
def test_sctp_host_to_guest(field: Field) -> bool:
    return sctp(field, HOST_GUEST)


@shows("SCTP", GUEST_HOST)
def test_sctp_guest_to_host(field: Field) -> bool:
    return sctp(field, GUEST_HOST)


@shows("SCTP", OUT)
def test_sctp_out(field: Field) -> bool:
    """Two guests from the same port: the masquerade chooses another one and mends the checksum."""
    for guest in (field.one, field.two):
        seen = sctp_association(guest.namespace, field.far, FAR, port=5100)
        assert seen[0] == field.lab.host_address
    return True


# --- IPsec ---------------------------------------------------------------------------------------------


def esp(field: Field, way: str) -> bool:
    return there_and_back(field, way, raw.ESP, lambda _, data: raw.esp(7, data), raw.esp_data)


@shows("IPsec ESP", HOST_GUEST)
def test_esp_host_to_guest(field: Field) -> bool:
    return esp(field, HOST_GUEST)


@shows("IPsec ESP", GUEST_HOST)
def test_esp_guest_to_host(field: Field) -> bool:
    return esp(field, GUEST_HOST)


@shows("IPsec ESP", OUT, why=NO_PORTS)
def test_esp_out(field: Field) -> bool:
    return esp(field, OUT)


@shows("IPsec ESP, two guests", OUT, mapped=False, native=False, why=NO_PORTS)
def test_esp_of_two_guests_to_one_peer(field: Field) -> bool:
    return two_guests(field, raw.ESP, lambda data: raw.esp(7, data))


def two_guests(field: Field, protocol: int, make: Callable[[bytes], bytes]) -> bool:
    """Whether a peer on the internet, which both ask, can answer each of them."""
    one, two = field.one.namespace, field.two.namespace
    heard = []
    with (
        raw_socket(one, protocol) as first,
        raw_socket(two, protocol) as second,
        raw_socket(field.far, protocol) as server,
    ):
        for client in (first, second):
            client.sendto(make(b"there"), (FAR, 0))
        assert server.recvfrom(2000)[1][0] == field.lab.host_address
        server.settimeout(0.1)
        try:
            server.recvfrom(2000)
        except TimeoutError:
            return False
        server.sendto(make(b"back"), (field.lab.host_address, 0))
        for client in (first, second):
            client.settimeout(0.1)
            try:
                heard.append(client.recv(2000))
            except TimeoutError:
                return False
    return True


@shows("IPsec ESP in UDP 4500", OUT)
def test_esp_in_udp_of_two_guests(field: Field) -> bool:
    """IKE moves there (RFC 3948) as soon as it finds the masquerade."""
    with field.far.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as server:
        server.settimeout(2)
        server.bind((FAR, 4500))
        peers = set()
        for guest in (field.one, field.two):
            with guest.namespace.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
                client.settimeout(2)
                client.bind(("0.0.0.0", 4500))
                packet = raw.esp(7, guest.mac.encode())
                client.sendto(packet, (FAR, 4500))
                asked, peer = server.recvfrom(2000)
                assert asked == packet
                server.sendto(asked, peer)
                assert client.recv(2000) == packet
                peers.add(peer)
        assert len(peers) == 2
    return True


def transport_mode(addresses: bytes, data: bytes) -> bytes:
    """ESP around a UDP datagram whose checksum is right for the addresses that its sender knows."""
    source, destination = (str(IPv4Address(part)) for part in (addresses[:4], addresses[4:]))
    return raw.esp(7, frames.udp((source, 4000), (destination, 4001), data))


def transport_mode_data(packet: bytes) -> bytes | None:
    datagram = raw.esp_data(packet)
    assert datagram is not None  # ESP itself is content
    return None if raw.pseudo_checksum(raw.ends(packet), frames.UDP, datagram) else datagram[8:]


@shows("IPsec ESP, transport mode", HOST_GUEST, mapped=False, why=INNER_CHECKSUM)
def test_esp_transport_mode_host_to_guest(field: Field) -> bool:
    return there_and_back(field, HOST_GUEST, raw.ESP, transport_mode, transport_mode_data)


@shows("IPsec ESP, transport mode", OUT, mapped=False, native=False, why=INNER_CHECKSUM)
def test_esp_transport_mode_out(field: Field) -> bool:
    return there_and_back(field, OUT, raw.ESP, transport_mode, transport_mode_data)


def ah(field: Field, way: str) -> bool:
    return there_and_back(field, way, raw.AH, lambda addresses, data: raw.ah(addresses, 7, data), raw.ah_data)


@shows("IPsec AH", HOST_GUEST, mapped=False, why=ADDRESSES_SIGNED)
def test_ah_host_to_guest(field: Field) -> bool:
    return ah(field, HOST_GUEST)


@shows("IPsec AH", OUT, mapped=False, native=False, why=ADDRESSES_SIGNED)
def test_ah_out(field: Field) -> bool:
    return ah(field, OUT)


# --- tunnels ---------------------------------------------------------------------------------------------


def tunnelled(data: bytes) -> bytes:
    """A packet whose addresses, though those of a loopnet, are nobody's business: it is in a tunnel."""
    return frames.udp_packet((str(OURS[0][1]), 1), ("247.1.0.2", 2), data)


def gre(field: Field, way: str) -> bool:
    inner = tunnelled(b"there")
    begins, answers, address, seen = field.ways[way]
    with raw_socket(begins, raw.GRE) as client, raw_socket(answers, raw.GRE) as server:
        client.sendto(raw.gre(9, inner), (address, 0))
        packet, peer = server.recvfrom(2000)
        assert (raw.gre_data(packet), peer[0]) == (inner, seen)
        server.sendto(packet[20:], peer)
        assert raw.gre_data(client.recv(2000)) == inner
    return True


@shows("GRE", HOST_GUEST)
def test_gre_host_to_guest(field: Field) -> bool:
    return gre(field, HOST_GUEST)


@shows("GRE", GUEST_HOST)
def test_gre_guest_to_host(field: Field) -> bool:
    return gre(field, GUEST_HOST)


@shows("GRE", OUT, why=NO_PORTS)
def test_gre_out(field: Field) -> bool:
    return gre(field, OUT)


@shows("GRE, two guests", OUT, mapped=False, native=False, why=NO_PORTS)
def test_gre_of_two_guests_to_one_peer(field: Field) -> bool:
    return two_guests(field, raw.GRE, lambda data: raw.gre(9, tunnelled(data)))


@shows("IPIP", HOST_GUEST)
def test_ipip(field: Field) -> bool:
    inner = tunnelled(b"there")
    begins, answers, address, seen = field.ways[HOST_GUEST]
    with raw_socket(begins, 4) as client, raw_socket(answers, 4) as server:
        client.sendto(inner, (address, 0))
        packet, peer = server.recvfrom(2000)
        assert (packet[20:], peer[0]) == (inner, seen)
    return True
