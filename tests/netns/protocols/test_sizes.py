"""Packets of all sizes: fragments, path MTU, offloads of NICs, and what loss makes of a stream."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from collections.abc import Iterator

import pytest

from tests.netns import frames
from tests.netns.lab import FAR, FAR_MTU
from tests.netns.wire import (
    RECEIVE_BUFFER_FORCE,
    Capture,
    ask_tcp,
    datagram_socket,
    probe_path,
    read_all,
    stream_socket,
)
from tests.sandbox import Namespace

from .devices import OFFLOADS, without
from .field import PORT, Field
from .table import GUEST_HOST, GUESTS, HOST_GUEST, OUT, shows

LARGEST = 65507
"""Of a UDP datagram: 64 KB less the headers; some 45 fragments."""
INNER = "172.30.0.2"
"""Somebody behind a guest, or behind the host, over a link that takes 1000 bytes."""
INNER_MTU = 1000


# --- fragments -------------------------------------------------------------------------------------------


def exchange_datagrams(
    begins: Namespace, answers: Namespace, address: str, data: bytes, back: int = LARGEST
) -> str:
    """Send ``data`` there, and that many bytes of it back; whom the other side saw."""
    with datagram_socket(begins) as client, datagram_socket(answers, ("0.0.0.0", 7300)) as server:
        for end in (client, server):
            end.setsockopt(socket.SOL_SOCKET, RECEIVE_BUFFER_FORCE, 1 << 20)
            end.settimeout(5)
        client.sendto(data, (address, 7300))
        received, peer = server.recvfrom(1 << 16)
        assert received == data
        server.sendto(data[:back], peer)
        assert client.recv(1 << 16) == data[:back]
        return str(peer[0])


@shows("UDP of 64 KB, in fragments", HOST_GUEST, GUEST_HOST, GUESTS, OUT)
def test_largest_datagrams(field: Field) -> bool:
    data = random.Random(7).randbytes(LARGEST)
    for begins, answers, address, seen in field.ways.values():
        assert exchange_datagrams(begins, answers, address, data) == seen
    return True


def test_largest_datagrams_of_a_guest_with_a_small_mtu(field: Field) -> None:
    """A hundred and twenty fragments. What comes in must fit, as veth drops what a real NIC takes."""
    data = random.Random(8).randbytes(LARGEST)
    with mtu(field.one.namespace, "eth0", 576):
        for way in (GUEST_HOST, GUESTS, OUT):
            begins, answers, address, seen = field.ways[way]
            assert exchange_datagrams(begins, answers, address, data, back=500) == seen


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_fragments_in_any_order(field: Field, order: tuple[int, ...]) -> None:
    """The checksum is in the first fragment, whenever that comes."""
    one, data = field.one, random.Random(9).randbytes(2392)
    datagram = frames.udp((one.address, 7301), (one.gateway, 7302), data)
    parts = [datagram[:800], datagram[800:1600], datagram[1600:]]
    packets = [
        frames.ipv4(
            one.address, one.gateway, frames.UDP, part, identifier=77 + sum(order[:2]) * 5,
            fragment=100 * number + (frames.MORE if number < 2 else 0),
        )
        for number, part in enumerate(parts)
    ]  # fmt: skip
    bridge_mac = one.network.model.bridge_mac
    with datagram_socket(field.host, ("0.0.0.0", 7302)) as server, Capture(one.namespace, "eth0") as wire:
        server.settimeout(2)
        for number in order:
            wire.send(frames.ethernet(one.mac, bridge_mac, frames.IP, packets[number]))
        assert server.recvfrom(4000) == (data, (one.transit, 7301))


# --- path MTU --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def mtu(namespace: Namespace, device: str, size: int) -> Iterator[None]:
    namespace.run(["ip", "link", "set", device, "mtu", str(size)])
    try:
        yield
    finally:
        namespace.run(["ip", "link", "set", device, "mtu", "1500"])


@contextlib.contextmanager
def something_behind(namespace: Namespace, lab_host: Namespace) -> Iterator[None]:
    """A container in ``namespace``, which forwards UDP 7400 to it: docker run --publish 7400."""
    inside = "inner"
    lab_host.sh(f"ip netns add {inside}")
    try:
        namespace.sh(
            f"ip link add inner0 mtu {INNER_MTU} type veth peer name eth0 mtu {INNER_MTU} netns {inside}\n"
            "ip address add 172.30.0.1/24 dev inner0; ip link set inner0 up\n"
            "echo 1 >/proc/sys/net/ipv4/ip_forward\n"
            "nft add table ip publish\n"
            "nft 'add chain ip publish incoming { type nat hook prerouting priority -100; }'\n"
            f"nft add rule ip publish incoming udp dport 7400 dnat to {INNER}"
        )
        lab_host.sh(
            f"ip -n {inside} address add {INNER}/24 dev eth0; ip -n {inside} link set eth0 up\n"
            f"ip -n {inside} route add default via 172.30.0.1"
        )
        yield
    finally:
        namespace.sh("nft delete table ip publish; ip link delete inner0")
        lab_host.sh(f"ip netns delete {inside}")


def path_mtu(namespace: Namespace, address: str) -> str:
    return namespace.run(["ip", "route", "get", address]).stdout


@shows("path MTU discovery", HOST_GUEST)
def test_guest_tells_the_host_that_a_packet_is_too_large(field: Field) -> bool:
    """Both the error's sender and the packet it quotes are the host's words, or its kernel would not listen."""
    one = field.one
    with something_behind(one.namespace, field.host):
        error = probe_path(field.host, (one.loop, 7400), size=1400)
        assert error == (one.loop, frames.UNREACHABLE, 4, INNER_MTU)
        assert f" mtu {INNER_MTU}" in path_mtu(field.host, one.loop)
    field.host.run(["ip", "route", "flush", "cache"])
    return True


@shows("path MTU discovery", GUEST_HOST)
def test_host_tells_the_guest_that_a_packet_is_too_large(field: Field) -> bool:
    one = field.one
    with something_behind(field.host, field.host):
        error = probe_path(one.namespace, (one.gateway, 7400), size=1400)
        assert error == (one.gateway, frames.UNREACHABLE, 4, INNER_MTU)
        assert f" mtu {INNER_MTU}" in path_mtu(one.namespace, one.gateway)
    one.namespace.run(["ip", "route", "flush", "cache"])
    return True


@shows("path MTU discovery", OUT)
def test_internet_tells_the_guest_that_a_packet_is_too_large(field: Field) -> bool:
    two = field.two
    error = probe_path(two.namespace, (FAR, PORT), size=1400)
    assert error == (field.lab.router_address, frames.UNREACHABLE, 4, FAR_MTU)
    assert f" mtu {FAR_MTU}" in path_mtu(two.namespace, FAR)
    two.namespace.run(["ip", "route", "flush", "cache"])
    return True


@shows("TCP, small MTU in guest", HOST_GUEST, GUEST_HOST, GUESTS, OUT)
def test_tcp_of_a_guest_with_a_smaller_mtu(field: Field) -> bool:
    data = random.Random(1).randbytes(1 << 20)
    with mtu(field.one.namespace, "eth0", 1280):
        for begins, _, address, seen in field.ways.values():
            assert ask_tcp(begins, (address, PORT), data, timeout=20)[1] == seen
    return True


# --- offloads --------------------------------------------------------------------------------------------


def devices_of(field: Field, where: str) -> list[tuple[Namespace, str]]:
    guests = [(guest.namespace, "eth0") for guest in (field.one, field.two)]
    host = [(field.host, guest.tap) for guest in (field.one, field.two)] + [(field.host, "uplink0")]
    return {"guests": guests, "host": host, "both": guests + host}[where]


@pytest.mark.parametrize("where", ["guests", "host", "both"])
@pytest.mark.parametrize(
    "lacking", [("tso",), ("gro",), ("tso", "gso", "gro"), tuple(OFFLOADS)], ids="-".join
)
def test_transfers_without_offloads(field: Field, where: str, lacking: tuple[str, ...]) -> None:
    data = random.Random(2).randbytes(1 << 20)
    with without(lacking, devices_of(field, where)):
        for begins, _, address, seen in field.ways.values():
            assert ask_tcp(begins, (address, PORT), data, timeout=20)[1] == seen


@shows("TCP, offloads on, off", HOST_GUEST, GUEST_HOST, GUESTS, OUT)
def test_large_transfers(field: Field) -> bool:
    """With all offloads, then with none on either side; test_transfers_without_offloads does it singly."""
    data = random.Random(3).randbytes(16 << 20)
    for lacking in ((), tuple(OFFLOADS)):
        with without(lacking, devices_of(field, "both")):
            for begins, _, address, seen in field.ways.values():
                assert ask_tcp(begins, (address, PORT), data, timeout=60)[1] == seen
    return True


# --- loss ------------------------------------------------------------------------------------------------

TIMESTAMPS, SACK = 1, 2
"""TCPI_OPT_… of linux/tcp.h."""


@contextlib.contextmanager
def loss(namespaces: list[Namespace], percent: int) -> Iterator[None]:
    """Of all TCP packets that come in there."""
    for namespace in namespaces:
        namespace.sh(
            "nft add table ip loss\n"
            "nft 'add chain ip loss in { type filter hook prerouting priority -500; }'\n"
            f"nft add rule ip loss in ip protocol tcp numgen random mod 100 lt {percent} drop"
        )
    try:
        yield
    finally:
        for namespace in namespaces:
            namespace.sh("nft delete table ip loss")


def transfer(begins: Namespace, address: str, data: bytes) -> tuple[int, int]:
    """Send ``data`` to an echo server and back; TCP's options, and how many segments had to be sent again."""
    with stream_socket(begins) as client:
        client.settimeout(60)
        client.connect((address, PORT))
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        echoed = read_all(client).partition(b"\n")[2]
        info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        assert echoed == data
        return info[5], struct.unpack_from("=I", info, 100)[0]


@shows("TCP with SACK, under loss", HOST_GUEST, GUEST_HOST, GUESTS, OUT)
def test_tcp_under_loss(field: Field) -> bool:
    """One packet of fifty gets lost on each leg."""
    data = random.Random(4).randbytes(1 << 20)
    everybody = [field.host, field.one.namespace, field.two.namespace, field.far]
    with without(tuple(OFFLOADS), devices_of(field, "both")), loss(everybody, 2):
        for begins, _, address, _ in field.ways.values():
            options, again = transfer(begins, address, data)
            assert options & (TIMESTAMPS | SACK) == TIMESTAMPS | SACK
            assert again
    return True
