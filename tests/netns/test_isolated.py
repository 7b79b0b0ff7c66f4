"""Networks with internet='none': guests reach the host and each other, and nothing of theirs leaves."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from tests.sandbox import INTERNET

from . import frames
from .lab import Lab, LabGuest
from .test_publish import loopnet
from .wire import PATIENCE, Capture, Servers, ask_tcp, ask_udp, datagram_socket

PORT = 80
TOKEN = b"@isolated@"
IPV6 = 0x86DD
LAN_IPV6, HOST_IPV6, GUEST_IPV6 = "fd00:1::9", "fd00:2::1", "fd00:2::5"


class Stage:
    """Two guests on an isolated network, one on another that is not."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.closed, self.open = lab.network(1, internet="none"), lab.network(2)
        for network in (self.closed, self.open):
            lab.start(network, dnsmasq=True)
        self.guest, self.neighbour = lab.guest(self.closed), lab.guest(self.closed)
        self.stranger = lab.guest(self.open)
        self.uninvited = lab.guest(self.closed, admit=False)


SHAPES = {"mapped": ("mapped", False), "mapped, br_netfilter": ("mapped", True), "native": ("native", True)}


@pytest.fixture(scope="module", params=[*SHAPES])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    mode, hard = SHAPES[request.param]
    with Lab(mode, lan_prefix="192.168.7.0/24", bridge_nf=hard, ip_rule=hard, rp_filter=False) as lab:
        lab.path("/etc/resolv.conf").write_text(f"nameserver {lab.router_address}\n")
        yield Stage(lab)


def ways_out(stage: Stage, guest: LabGuest, destination: str) -> dict[str, bytes]:
    """Frames to the router that the host is."""
    source, quoted = guest.address, frames.udp_packet((destination, 53), (guest.address, 4000), TOKEN)
    icmp = {
        "echo": struct.pack("!BBHHH", 8, 0, 0, 1, 1) + TOKEN,
        "unreachable": struct.pack("!BBHI", 3, 3, 0, 0) + quoted,
        "time exceeded": struct.pack("!BBHI", 11, 0, 0, 0) + quoted,
    }
    packets = {
        name: frames.ipv4(source, destination, frames.ICMP, checked(data)) for name, data in icmp.items()
    }
    packets["udp"] = frames.udp_packet((source, 4000), (destination, 53), TOKEN)
    packets["gre"] = frames.ipv4(source, destination, frames.GRE, b"\0\0\x08\0" + TOKEN)
    packets["unknown protocol"] = frames.ipv4(source, destination, 253, TOKEN)
    mac = guest.network.model.bridge_mac
    made = {name: frames.ethernet(guest.mac, mac, frames.IP, packet) for name, packet in packets.items()}
    six = struct.pack("!IHBB", 6 << 28, len(TOKEN), 253, 64)
    six += b"".join(socket.inet_pton(socket.AF_INET6, a) for a in (GUEST_IPV6, LAN_IPV6)) + TOKEN
    made["ipv6"] = frames.ethernet(guest.mac, mac, IPV6, six)
    return made


def checked(icmp: bytes) -> bytes:
    padded = icmp + bytes(len(icmp) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    total = (total >> 16) + (total & 0xFFFF)
    total += total >> 16
    return icmp[:2] + struct.pack("!H", ~total & 0xFFFF) + icmp[4:]


def leaves(stage: Stage, guest: LabGuest) -> set[str]:
    """Which of them come to the LAN."""
    found = set()
    with Capture(stage.lab.lan, "lan0") as lan, Capture(guest.namespace, "eth0") as wire:
        for name, frame in ways_out(stage, guest, stage.lab.router_address).items():
            wire.send(frame)
            if lan.find(lambda seen: TOKEN in seen, 0.2) is not None:
                found.add(name)
    return found


@pytest.fixture
def ipv6(stage: Stage) -> Iterator[None]:
    """The host is a router of IPv6 from these networks to the LAN, as an administrator may have it."""
    lab = stage.lab
    lab.host.sh(
        "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding\n"
        "for dev in virbr1 virbr2 uplink0; do echo 0 >/proc/sys/net/ipv6/conf/$dev/disable_ipv6; done\n"
        f"ip address add {HOST_IPV6}/64 dev virbr1 nodad; ip address add fd00:1::1/64 dev uplink0 nodad"
    )
    mac = lab.lan.sh("ip -br link show lan0").split()[2]
    lab.host.sh(f"ip neighbour replace {LAN_IPV6} lladdr {mac} dev uplink0 nud permanent")
    yield
    lab.host.sh("echo 0 >/proc/sys/net/ipv6/conf/all/forwarding; ip address del fd00:1::1/64 dev uplink0")


def test_nothing_leaves(stage: Stage, ipv6: None) -> None:
    """And the same frames do leave a network that isn't isolated."""
    assert leaves(stage, stage.guest) == set()
    assert leaves(stage, stage.uninvited) == set()
    assert {"udp", "echo", "gre", "unknown protocol", "ipv6"} <= leaves(stage, stage.stranger)


def test_replies_and_errors_of_what_others_begin_do_not_leave(stage: Stage) -> None:
    """A neighbour on the LAN that routes to guests gets no word of them."""
    lab, guest = stage.lab, stage.guest
    for prefix in ("247.1.0.0/24", *(["10.127.1.0/24"] if lab.mode == "mapped" else [])):
        lab.lan.sh(f"ip route add {prefix} via {lab.host_address}")
    with Servers() as servers:
        servers.both(guest.namespace, ("0.0.0.0", PORT))
        for address in {guest.transit, *([guest.address] if lab.mode == "mapped" else [])}:
            for port in (PORT, 9):
                with pytest.raises(OSError):
                    ask_udp(lab.lan, (address, port), timeout=0.3)


def test_guests_and_host_reach_each_other(stage: Stage) -> None:
    lab, guest, neighbour = stage.lab, stage.guest, stage.neighbour
    with Servers() as servers:
        servers.both(guest.namespace, ("0.0.0.0", PORT))
        servers.both(lab.host, ("0.0.0.0", PORT + 1))
        ask_tcp(neighbour.namespace, (guest.address, PORT))
        ask_tcp(lab.host, (guest.loop, PORT))
        ask_udp(lab.host, (guest.loop, PORT))
        assert ask_tcp(guest.namespace, (guest.gateway, PORT + 1))[1] == guest.transit
        for far in (INTERNET, lab.router_address, stage.stranger.transit):
            with pytest.raises(OSError):
                ask_tcp(guest.namespace, (far, PORT), timeout=0.4)


def test_dns_asks_nobody_else(stage: Stage) -> None:
    """Which would be a way out for what a guest has to say."""
    lab = stage.lab
    question = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + b"\x06secret\x07example\0" + b"\0\1\0\1"
    for guest, others in ((stage.guest, False), (stage.stranger, True)):
        model = guest.network.model
        dns = str(model.own_transit[-1]) if lab.mode == "native" else guest.gateway
        with Capture(lab.lan, "lan0") as lan, datagram_socket(guest.namespace) as client:
            client.sendto(question, (dns, 53))
            patience = PATIENCE if others else 0.7
            assert (lan.find(lambda seen: b"\x06secret" in seen, patience) is not None) is others
            if not others:
                client.settimeout(PATIENCE)
                assert client.recv(500)[:2] == question[:2]  # it says no


def test_published_ports(stage: Stage) -> None:
    """None of an isolated network's, and none of others' for its guests."""
    lab, guest, stranger = stage.lab, stage.guest, stage.stranger
    said = loopnet(lab, "publish", guest.name, f"8080:{PORT}", status=2).stderr
    assert "is isolated" in said
    assert said.count("\n") == 1
    loopnet(lab, "publish", stranger.name, f"8080:{PORT}")
    with Servers() as servers:
        servers.tcp(stranger.namespace, ("0.0.0.0", PORT))
        ask_tcp(lab.lan, (lab.host_address, 8080))
        for address in (lab.host_address, guest.gateway):
            with pytest.raises(OSError):
                ask_tcp(guest.namespace, (address, 8080), timeout=0.5)
    loopnet(lab, "unpublish", stranger.name, "--all")
    assert loopnet(lab, "plan").stdout == "nothing to do\n"
