"""Host, guests and internet talk to each other, whatever the host's settings and its LAN are."""

from __future__ import annotations

import array
import fcntl
import re
import socket
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from tests.sandbox import INTERNET, Namespace

from . import frames
from .lab import FAR, FAR_MTU, Lab, LabGuest, eventually
from .wire import (
    ALWAYS_DONT_FRAGMENT,
    MTU_DISCOVER,
    PATIENCE,
    Capture,
    LeakWatch,
    Servers,
    ask_tcp,
    ask_udp,
    check_refusal,
    datagram_socket,
    probe_path,
    stream_socket,
)

PORT, PRIVATE_PORT, CLOSED = 7000, 7001, 9
Ask = Callable[..., "tuple[str, str]"]
"""ask_tcp or ask_udp."""
ECHO = (INTERNET, 7)

SETTINGS = {
    "plain": (False, False, False),
    "bridge-nf": (True, False, False),
    "ip-rule": (False, True, False),
    "rp-filter": (False, False, True),
    "all": (True, True, True),
}
"""bridge-nf-call-iptables, a custom routing rule, strict reverse path filter."""


class World(NamedTuple):
    """The first network with guests ``one`` and ``two``; on the second is ``twin``, who has the MAC
    address, the number and in mapped mode also the address of ``one``; on the third is ``other``. The
    LAN has the prefix and the gateway's address of the first network's guests as well."""

    lab: Lab
    one: LabGuest
    two: LabGuest
    twin: LabGuest
    other: LabGuest
    far: Namespace
    leaks: LeakWatch

    @property
    def host(self) -> Namespace:
        return self.lab.host


@pytest.fixture(
    scope="module",
    params=[(mode, name) for mode in ("mapped", "native") for name in SETTINGS],
    ids=lambda param: f"{param[0]}-{param[1]}",
)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    mode, name = request.param
    bridge_nf, ip_rule, rp_filter = SETTINGS[name]
    lab = Lab(mode, bridge_nf=bridge_nf, ip_rule=ip_rule, rp_filter=rp_filter)
    with lab, Servers() as servers, LeakWatch(lab.lan, "lan0") as leaks:
        far = lab.add_far()
        first, second = lab.network(1), lab.network(2, guest_prefix="10.127.1.0/24")
        lab.start(first, dnsmasq=True)
        lab.start(second)
        third = lab.network(3)
        lab.start(third)
        one, two = lab.guest(first), lab.guest(first)
        twin, other = lab.guest(second, mac=one.mac), lab.guest(third)
        for namespace in (lab.host, far, *(guest.namespace for guest in (one, two, twin, other))):
            servers.both(namespace, ("0.0.0.0", PORT))
        servers.both(lab.host, ("127.0.0.1", PRIVATE_PORT))
        yield World(lab, one, two, twin, other, far, leaks)


@pytest.fixture(autouse=True)
def nothing_leaks(world: World) -> Iterator[None]:
    yield
    assert world.leaks.take(settle=0) == []  # what comes late is found in the next test


def test_lan_is_watched(world: World) -> None:
    """Silence above is not deafness."""
    before = world.leaks.frames
    world.host.run(["ping", "-n", "-c1", INTERNET])
    world.lab.lan.run(["ip", "address", "add", "247.9.9.9/32", "dev", "lan0"])
    try:
        eventually(lambda: world.leaks.frames > before)
        answers = world.host.run(["ping", "-n", "-c1", "-W1", "247.9.9.9"], check=False)
        assert answers.returncode == 1
    finally:
        world.lab.lan.run(["ip", "address", "delete", "247.9.9.9/32", "dev", "lan0"])


# --- host to guest -------------------------------------------------------------------------------


def host_as_seen(guest: LabGuest) -> str:
    return str(guest.network.model.guest_address(guest.network.model.host))


@pytest.mark.parametrize("ask", [ask_tcp, ask_udp])
def test_host_to_guest(world: World, ask: Ask) -> None:
    for guest, own in (
        (world.one, "127.1.0.254"), (world.twin, "127.2.0.254"), (world.other, "127.3.0.254"),
    ):  # fmt: skip
        assert ask(world.host, (guest.loop, PORT)) == (own, host_as_seen(guest))
    assert world.one.loop == "127.1.0.2"
    assert world.twin.loop == "127.2.0.2"


def test_host_pings_guest(world: World) -> None:
    ping = world.host.run(["ping", "-n", "-c2", "-i0.01", world.two.loop]).stdout
    assert f"from {world.two.loop}: icmp_seq=2" in ping
    assert "2 received" in ping


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_guest_refuses_at_once(world: World, kind: int) -> None:
    for guest in (world.one, world.twin):
        check_refusal(world.host, kind, (guest.loop, CLOSED))


def test_host_uses_its_loop_address_or_none(world: World) -> None:
    """A guest could not answer 127.0.0.1: an error at once is better than silence."""
    for source in ("127.0.0.1", "127.200.0.1", world.lab.host_address):
        with pytest.raises(OSError, match="not permitted"):
            ask_udp(world.host, (world.one.loop, PORT), source=source)


# --- guest to internet ---------------------------------------------------------------------------


def test_guest_to_internet(world: World) -> None:
    for guest in (world.one, world.two, world.twin, world.other):
        seen = ask_udp(guest.namespace, ECHO)
        assert seen == (guest.address, world.lab.host_address)
        assert ask_tcp(guest.namespace, (FAR, PORT)) == seen
    page = world.one.namespace.run(["curl", "-sS", f"http://{INTERNET}/"]).stdout
    assert page == f"hello from the internet; you are {world.lab.host_address}\n"


def test_guest_pings_internet(world: World) -> None:
    ping = world.one.namespace.run(["ping", "-n", "-c2", "-i0.01", INTERNET]).stdout
    assert "2 received" in ping


def test_internet_refuses_guest_at_once(world: World) -> None:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        check_refusal(world.twin.namespace, kind, (INTERNET, CLOSED))


def test_guest_traces_the_way(world: World) -> None:
    for guest in (world.one, world.twin):
        hops = [probe_path(guest.namespace, (FAR, 33434), ttl=ttl) for ttl in (1, 2, 3)]
        assert hops == [
            (guest.gateway, frames.TIME_EXCEEDED, 0, 0),
            (world.lab.router_address, frames.TIME_EXCEEDED, 0, 0),
            (FAR, frames.UNREACHABLE, 3, 0),
        ]


def test_guest_hears_that_a_packet_is_too_large(world: World) -> None:
    for guest in (world.two, world.twin):
        error = probe_path(guest.namespace, (FAR, PORT), size=1400)
        assert error == (world.lab.router_address, frames.UNREACHABLE, 4, FAR_MTU)
        guest.namespace.run(["ip", "route", "flush", "cache"])


def test_tcp_finds_the_path_mtu(world: World) -> None:
    data = bytes(range(256)) * 4096
    assert ask_tcp(world.one.namespace, (FAR, PORT), data)[1] == world.lab.host_address


# --- guest to host -------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", [ask_tcp, ask_udp])
def test_guest_to_service_on_all_addresses(world: World, ask: Ask) -> None:
    """It is not taken for a local client: 247.x, never 127.x."""
    for guest in (world.one, world.twin):
        assert ask(guest.namespace, (guest.gateway, PORT)) == (guest.address, guest.transit)
    assert (world.one.transit, world.twin.transit) == ("247.1.0.2", "247.2.0.2")


def test_gateway_answers_ping_and_refuses_at_once(world: World) -> None:
    for guest in (world.one, world.twin):
        ping = guest.namespace.run(["ping", "-n", "-c1", guest.gateway]).stdout
        assert f"from {guest.gateway}: icmp_seq=1" in ping
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            check_refusal(guest.namespace, kind, (guest.gateway, CLOSED))


def test_guest_cannot_reach_a_service_on_127_0_0_1(world: World) -> None:
    """By any address that it can route; by any frame: see test_security.py."""
    one = world.one
    for address in (one.gateway, "247.1.0.1", world.lab.host_address):
        for ask in (ask_tcp, ask_udp):
            with pytest.raises(OSError, match=r"refused|timed out|unreachable|No route"):
                ask(one.namespace, (address, PRIVATE_PORT), timeout=0.06)


def test_guest_begins_nothing_to_the_host_number(world: World) -> None:
    for address in (host_as_seen(world.one), "127.1.0.254"):
        with pytest.raises(OSError, match=r"timed out|unreachable|No route|Invalid"):
            ask_udp(world.one.namespace, (address, PORT), timeout=0.06)


# --- guest to guest ------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", [ask_tcp, ask_udp])
def test_guest_to_guest(world: World, ask: Ask) -> None:
    one, two = world.one, world.two
    assert ask(one.namespace, (two.address, PORT)) == (one.address, one.address)
    assert ask(two.namespace, (one.address, PORT)) == (two.address, two.address)


def test_networks_are_apart(world: World) -> None:
    """Whatever address ``twin`` uses for ``two``, or for the host there, nobody answers."""
    targets = [world.two.transit, world.other.transit, "247.1.0.1", "247.1.0.254"]
    if world.lab.mode == "native":  # elsewhere the guest's lo has all of 127/8
        targets += [world.two.loop, "127.1.0.254", "127.1.0.1"]
    for address in targets:
        for ask in (ask_tcp, ask_udp):
            with pytest.raises(OSError, match=r"timed out|unreachable|No route|Invalid"):
                ask(world.twin.namespace, (address, PORT), timeout=0.06)


def test_what_is_broadcast_for_the_host_is_for_the_host_alone(world: World) -> None:
    """In it are addresses by then that no guest knows."""
    one, two = world.one, world.two
    # each has the mark at its end: the guest's own kernel may still be asking on behalf of an earlier test
    mark = b"of this test"
    renewal = frames.udp_packet((one.address, 68), ("255.255.255.255", 67), mark)
    with Capture(two.namespace, "eth0") as ears, Capture(one.namespace, "eth0") as mouth:
        for neighbour in (one.gateway, host_as_seen(one), two.address):
            asker = (one.mac, one.address)
            request = frames.arp(frames.REQUEST, asker, (frames.NOBODY, neighbour))
            mouth.send(frames.ethernet(one.mac, frames.BROADCAST, frames.ARP, request + mark))
            answer = frames.address(neighbour) + frames.mac(one.mac)
            assert mouth.find(lambda frame, answer=answer: answer in frame, PATIENCE)  # type: ignore[misc]
        mouth.send(frames.ethernet(one.mac, frames.BROADCAST, frames.IP, renewal))
        mouth.send(frames.ethernet(one.mac, frames.BROADCAST, frames.EXPERIMENT, b"the end"))
        heard = []
        while (frame := ears.next(PATIENCE)) is not None and b"the end" not in frame:
            if mark in frame:
                heard.append(frame)
    assert frame is not None
    assert [frames.address(two.address) in each for each in heard] == [True], heard


def test_it_works_without_the_faster_rules(world: World) -> None:
    """Which the kernel gets a moment later, in a transaction of their own."""
    rules = world.host.run(["nft", "--handle", "list", "table", "bridge", "loopnet"]).stdout
    chains = re.findall(r"chain (both-to-\S+-127\.1\.0\.0) .*\n\t\t@nh,.* # handle (\d+)", rules)
    assert len(chains) == (2 if world.lab.mode == "native" else 3)
    for chain, handle in chains:
        world.host.run(["nft", "delete", "rule", "bridge", "loopnet", chain, "handle", handle])
    try:
        for ask in (ask_tcp, ask_udp):
            test_host_to_guest(world, ask)
            test_guest_to_service_on_all_addresses(world, ask)
    finally:
        done = world.host.run(["loopnet", "sync"]).stdout
    assert "replaced" in done
    again = world.host.run(["nft", "list", "table", "bridge", "loopnet"]).stdout
    assert again.count("@nh,") == rules.count("@nh,")


# --- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [9000, 60000])
def test_large_datagrams(world: World, size: int) -> None:
    data = bytes(range(251)) * (size // 251)
    one, two, twin = world.one, world.two, world.twin
    for namespace, server in (
        (world.host, (one.loop, PORT)),
        (world.host, (twin.loop, PORT)),
        (one.namespace, (one.gateway, PORT)),
        (one.namespace, (two.address, PORT)),
        (one.namespace, ECHO),
    ):
        ask_udp(namespace, server, data)


def test_guest_with_a_small_mtu(world: World) -> None:
    """TCP tells the other side; the internet and the bridge both have 1500."""
    data = bytes(range(256)) * 4096
    two = world.two
    two.namespace.run(["ip", "link", "set", "eth0", "mtu", "1280"])
    try:
        assert ask_tcp(world.host, (two.loop, PORT), data)[0] == "127.1.0.254"
        assert ask_tcp(two.namespace, (two.gateway, PORT), data)[1] == two.transit
        assert ask_tcp(two.namespace, (FAR, PORT), data)[1] == world.lab.host_address
    finally:
        two.namespace.run(["ip", "link", "set", "eth0", "mtu", "1500"])


def test_bridge_with_a_small_mtu(world: World) -> None:
    """The host tells the internet that its packets are too large, without a word of 247.x."""
    one = world.one
    with datagram_socket(world.far, (FAR, 7100)) as server:
        server.setsockopt(socket.IPPROTO_IP, MTU_DISCOVER, ALWAYS_DONT_FRAGMENT)
        server.settimeout(PATIENCE)
        world.host.run(["ip", "link", "set", one.network.model.bridge, "mtu", "1000"])
        try:
            with datagram_socket(one.namespace) as client:
                client.sendto(b"send much", (FAR, 7100))
                peer = server.recvfrom(100)[1]
                server.sendto(bytes(1200), peer)

            def is_told() -> bool:
                route = world.far.run(["ip", "route", "get", peer[0]]).stdout
                return " mtu 1000" in route

            eventually(is_told)
        finally:
            world.host.run(["ip", "link", "set", one.network.model.bridge, "mtu", "1500"])
            world.far.run(["ip", "route", "flush", "cache"])


# --- checksum offload ----------------------------------------------------------------------------

SIOCETHTOOL, ETHTOOL_STXCSUM = 0x8946, 0x17


def set_offload(namespace: Namespace, device: str, on: bool) -> None:
    """Let the device (pretend to) compute checksums, or the kernel do it for each packet."""
    with datagram_socket(namespace) as control:
        value = array.array("B", struct.pack("=II", ETHTOOL_STXCSUM, int(on)))
        request = struct.pack("16sP", device.encode(), value.buffer_info()[0])
        fcntl.ioctl(control.fileno(), SIOCETHTOOL, request)


@pytest.mark.parametrize("where", ["guests", "host", "both"])
def test_without_checksum_offload(world: World, where: str) -> None:
    """With it checksums are left half done on their way; without, they are there to be mended."""
    one, two, twin = world.one, world.two, world.twin
    guests = (one, two, twin)
    devices = [(guest.namespace, "eth0") for guest in guests if where != "host"]
    if where != "guests":
        devices += [(world.host, guest.tap) for guest in guests] + [(world.host, "uplink0")]
    data = bytes(range(256)) * 512
    for device in devices:
        set_offload(*device, on=False)
    try:
        for guest in (one, twin):
            for ask, size in ((ask_tcp, len(data)), (ask_udp, 1001), (ask_udp, 5000)):
                ask(world.host, (guest.loop, PORT), data[:size])
                ask(guest.namespace, (guest.gateway, PORT), data[:size])
                ask(guest.namespace, (FAR, PORT), data[:size])
            check_refusal(world.host, socket.SOCK_DGRAM, (guest.loop, CLOSED))
        ask_tcp(one.namespace, (two.address, PORT), data)
    finally:
        for device in devices:
            set_offload(*device, on=True)


# --- 127/8 on the host ---------------------------------------------------------------------------


def test_what_no_network_claims_stays_local(world: World) -> None:
    """lo has a /16 only, and yet: 127.200.0.1 answers, and refuses, here and not on the LAN."""
    addresses = world.host.run(["ip", "-4", "-o", "address", "show", "lo"]).stdout
    assert "127.0.0.1/16" in addresses
    for address in ("127.0.0.1", "127.0.0.53", "127.0.255.254", "127.200.0.1", "127.4.0.5"):
        assert ask_tcp(world.host, (address, PORT))[1].startswith("127.")
        check_refusal(world.host, socket.SOCK_DGRAM, (address, CLOSED))
    with stream_socket(world.host) as listener:
        listener.bind(("127.200.0.1", 0))


def test_an_absent_guest_is_not_looked_for_on_the_lan(world: World) -> None:
    with datagram_socket(world.host) as client, Capture(world.one.namespace, "eth0") as wire:
        client.sendto(b"x", ("127.1.0.99", PORT))
        request = wire.find(lambda frame: frame[12:14] == b"\x08\x06", PATIENCE)
        assert request is not None
        client.sendto(b"x", ("127.9.0.99", PORT))


# --- DHCP ----------------------------------------------------------------------------------------


def test_dhcp_and_dns(world: World) -> None:
    """The first DISCOVER is answered; a lease is renewed by unicast and rebound by broadcast."""
    two = world.two
    kind = {name: frames.dhcp_option(frames.DHCP_TYPE, bytes((number,))) for name, number in (
        ("discover", frames.DHCP_DISCOVER), ("request", frames.DHCP_REQUEST),
    )}  # fmt: skip
    with Capture(two.namespace, "eth0") as wire:

        def ask(options: bytes) -> tuple[str, dict[int, bytes]]:
            message = frames.dhcp(frames.REQUEST, two.mac, options)
            packet = frames.udp_packet(("0.0.0.0", 68), ("255.255.255.255", 67), message)
            wire.send(frames.ethernet(two.mac, frames.BROADCAST, frames.IP, packet))
            answer = wire.find(lambda frame: frames.udp_data(frame, 68) is not None, PATIENCE)
            assert answer is not None
            return frames.dhcp_answer(frames.udp_data(answer, 68) or b"")

        address, offer = ask(kind["discover"])
        assert (address, offer[frames.DHCP_TYPE][0]) == (two.address, frames.DHCP_OFFER)
        server = offer[frames.DHCP_SERVER]
        wanted = frames.dhcp_option(frames.DHCP_WANTED, frames.address(address))
        address, lease = ask(kind["request"] + frames.dhcp_option(frames.DHCP_SERVER, server) + wanted)
        assert (address, lease[frames.DHCP_TYPE][0]) == (two.address, frames.DHCP_ACK)
        assert socket.inet_ntoa(lease[frames.DHCP_ROUTER]) == two.gateway
        native = two.network.model.mode == "native"
        dns = socket.inet_ntoa(lease[frames.DHCP_DNS])
        assert dns == ("247.1.0.254" if native else two.gateway)

    with datagram_socket(two.namespace) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        client.bind(("0.0.0.0", 68))
        client.settimeout(PATIENCE)
        for target in (socket.inet_ntoa(server), "255.255.255.255"):
            message = frames.dhcp(frames.REQUEST, two.mac, kind["request"], own=two.address, broadcast=False)
            client.sendto(message, (target, 67))
            data, sender = client.recvfrom(1500)
            assert sender == (socket.inet_ntoa(server), 67)
            address, answer = frames.dhcp_answer(data)
            assert (address, answer[frames.DHCP_TYPE][0]) == (two.address, frames.DHCP_ACK)

    # DNS knows it by name from now on, and answers from where it was asked; a native guest may have its default
    # route elsewhere.
    if native:
        two.namespace.run(
            ["ip", "route", "add", "247.1.0.0/24", "dev", "eth0", "scope", "link", "src", two.address]
        )
    label = two.name.encode()
    query = struct.pack("!HHHHHHB", 1, 0x100, 1, 0, 0, 0, len(label)) + label + b"\4net1\0\0\1\0\1"
    with datagram_socket(two.namespace) as client:
        client.settimeout(PATIENCE)
        client.connect(("247.1.0.254" if native else two.gateway, 53))
        client.send(query)
        reply = client.recv(512)
        assert reply[:2] == query[:2]
        assert reply.endswith(socket.inet_aton(two.address))
