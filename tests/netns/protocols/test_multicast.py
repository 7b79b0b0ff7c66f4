"""One to many: multicast and its IGMP, multicast DNS, broadcast."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

import pytest

from tests.netns.lab import eventually
from tests.netns.wire import Capture, datagram_socket
from tests.sandbox import Namespace

from .field import Field
from .table import GUEST_HOST, GUESTS, HOST_GUEST, shows

NOT_TO_HOST = (
    "Guests' multicast and broadcast do not reach the host itself, except DHCP: they announce addresses that mean"
    " something else to the host or its LAN. Guests' answers to the host's multicast do not reach it either: nothing"
    " tells them from connections that guests open."
)
GROUP, GROUP_PORT = "239.1.2.3", 7500
MDNS, MDNS_PORT = "224.0.0.251", 5353
IGMP, QUERY = 2, 0x11


def joined(namespace: Namespace, device: str, group: str, port: int) -> socket.socket:
    """A member of a multicast group, by IGMP."""
    member = datagram_socket(namespace)
    member.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    member.bind((group, port))

    def join() -> None:
        request = struct.pack("=4s4si", socket.inet_aton(group), bytes(4), socket.if_nametoindex(device))
        member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)

    namespace.call(join)
    member.settimeout(1)
    return member


def multicaster(namespace: Namespace, device: str, port: int = 0) -> socket.socket:
    """Sends to groups by way of ``device``."""
    sender = datagram_socket(namespace)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

    def choose() -> None:
        request = struct.pack("=4s4si", bytes(4), bytes(4), socket.if_nametoindex(device))
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request)

    namespace.call(choose)
    if port:
        sender.bind(("0.0.0.0", port))
    sender.settimeout(1)
    return sender


def heard(member: socket.socket, timeout: float = 1.0) -> tuple[bytes, str] | None:
    member.settimeout(timeout)
    try:
        data, peer = member.recvfrom(2000)
    except TimeoutError:
        return None
    return data, str(peer[0])


@shows("multicast", GUESTS)
def test_multicast_between_guests(field: Field) -> bool:
    one, two = field.one, field.two
    with (
        joined(two.namespace, "eth0", GROUP, GROUP_PORT) as member,
        multicaster(one.namespace, "eth0") as sender,
    ):
        sender.sendto(b"all", (GROUP, GROUP_PORT))
        assert heard(member) == (b"all", one.address)
    return True


@shows("multicast", HOST_GUEST)
def test_multicast_from_host(field: Field) -> bool:
    one = field.one
    with (
        joined(one.namespace, "eth0", GROUP, GROUP_PORT) as member,
        multicaster(field.host, field.bridge) as sender,
    ):
        sender.sendto(b"all", (GROUP, GROUP_PORT))
        assert heard(member) == (b"all", field.host_number)
    return True


@shows("answers to multicast", HOST_GUEST, mapped=False, native=False, why=NOT_TO_HOST)
def test_answer_to_multicast(field: Field) -> bool:
    """As SSDP and one-shot multicast DNS have it: asked in a group, answered by unicast."""
    one = field.one
    with (
        joined(one.namespace, "eth0", GROUP, GROUP_PORT) as member,
        multicaster(field.host, field.bridge) as sender,
    ):
        sender.sendto(b"who?", (GROUP, GROUP_PORT))
        data, peer = member.recvfrom(2000)
        assert data == b"who?"
        with datagram_socket(one.namespace) as answering:
            answering.sendto(b"me", peer)
            return heard(sender, 0.3) is not None


@shows("multicast", GUEST_HOST, mapped=False, native=False, why=NOT_TO_HOST)
def test_multicast_to_host(field: Field) -> bool:
    one = field.one
    with (
        joined(field.host, field.bridge, GROUP, GROUP_PORT) as member,
        multicaster(one.namespace, "eth0") as sender,
    ):
        sender.sendto(b"all", (GROUP, GROUP_PORT))
        return heard(member, 0.3) is not None


@pytest.mark.parametrize("what", ["255.255.255.255", "subnet"])
@shows("broadcast", GUESTS)
def test_broadcast_between_guests(field: Field, what: str) -> bool:
    one, two = field.one, field.two
    subnet = str(one.network.model.guest_prefix.broadcast_address)
    return (
        broadcast(one.namespace, "eth0", two.namespace, subnet if what == "subnet" else what) == one.address
    )


@pytest.mark.parametrize("what", ["255.255.255.255", "subnet"])
@shows("broadcast", HOST_GUEST)
def test_broadcast_from_host(field: Field, what: str) -> bool:
    subnet = str(field.one.network.model.loop_prefix.broadcast_address)
    address = subnet if what == "subnet" else what
    return broadcast(field.host, field.bridge, field.one.namespace, address) == field.host_number


@pytest.mark.parametrize("what", ["255.255.255.255", "subnet"])
@shows("broadcast", GUEST_HOST, mapped=False, native=False, why=NOT_TO_HOST)
def test_broadcast_to_host(field: Field, what: str) -> bool:
    subnet = str(field.one.network.model.guest_prefix.broadcast_address)
    address = subnet if what == "subnet" else what
    return broadcast(field.one.namespace, "eth0", field.host, address) is not None


def broadcast(begins: Namespace, device: str, answers: Namespace, address: str) -> str | None:
    """Whom the other side saw, if it heard anything."""
    with datagram_socket(begins) as sender, datagram_socket(answers, ("0.0.0.0", 7600)) as server:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        sender.sendto(b"all", (address, 7600))
        got = heard(server, 0.3)
        assert got is None or got[0] == b"all"
        return got[1] if got else None


# --- IGMP ------------------------------------------------------------------------------------------------


@shows("IGMP snooping", GUESTS)
def test_igmp_snooping(field: Field) -> bool:
    """The bridge asks who is in a group, believes the answers, and sends members alone what is sent to it.

    It asks in the name of its own address, which guests see as one of theirs.
    """
    one, two, group = field.one, field.two, "239.9.9.9"
    # The bridge relies on answers once this interval, hundredths of a second, is over.
    on = ("mcast_query_response_interval 10", "mcast_query_use_ifaddr 1", "mcast_querier 1")
    off = ("mcast_querier 0", "mcast_query_use_ifaddr 0", "mcast_query_response_interval 1000")

    def set_up(options: tuple[str, ...]) -> None:
        for option in options:
            field.host.sh(f"ip link set {field.bridge} type bridge {option}")

    with (
        Capture(one.namespace, "eth0") as member_wire,
        Capture(two.namespace, "eth0") as other_wire,
        multicaster(field.host, field.bridge) as sender,
    ):
        set_up(on)
        try:
            query = member_wire.find(lambda frame: packet_of(frame, IGMP)[:1] == bytes((QUERY,)), 5)
            assert query is not None
            assert socket.inet_ntoa(query[26:30]) in {field.host_number, one.gateway}
            with joined(one.namespace, "eth0", group, GROUP_PORT) as member:

                def reaches_members_alone() -> bool:
                    sender.sendto(b"for members", (group, GROUP_PORT))
                    assert heard(member) == (b"for members", field.host_number)
                    # What everybody gets says that nothing else is under way.
                    sender.sendto(b"the end", ("224.0.0.1", GROUP_PORT))
                    first = other_wire.find(
                        lambda frame: frame[42:].startswith((b"for members", b"the end")), 2
                    )
                    assert first is not None
                    if first[42:].startswith(b"the end"):
                        return True
                    assert other_wire.find(lambda frame: frame[42:].startswith(b"the end"), 2)
                    return False  # at first the bridge does not trust its own knowledge

                eventually(reaches_members_alone, 10)
        finally:
            set_up(off)
    return True


def packet_of(frame: bytes, protocol: int) -> bytes:
    """What an IPv4 packet of this protocol carries; nothing when the frame is something else."""
    if frame[12:14] != b"\x08\x00" or frame[23] != protocol:
        return b""
    return frame[14 + (frame[14] & 15) * 4 :]


# --- multicast DNS ---------------------------------------------------------------------------------------

AVAHI = """\
[server]
host-name=printer
use-ipv6=no
enable-dbus=no
allow-interfaces=eth0
[publish]
publish-workstation=no
"""


@pytest.fixture(scope="module")
def avahi(field: Field) -> Iterator[None]:
    """The guest ``two`` calls itself printer.local."""
    field.lab.path("/run/avahi.conf").write_text(AVAHI)
    argv = ["avahi-daemon", "--file=/run/avahi.conf", "--no-drop-root", "--no-chroot", "--no-rlimits"]
    with field.two.namespace.popen(argv) as daemon:
        try:
            yield
        finally:
            daemon.terminate()


def local_name(asker: socket.socket, name: str, listener: socket.socket, seconds: float = 20.0) -> str | None:
    """The address that multicast DNS has for ``name``, asked and answered by these sockets."""
    label = name.encode()
    question = bytes((len(label),)) + label + b"\5local\0" + struct.pack("!HH", 1, 1)
    query = struct.pack("!HHHHHH", 0, 0, 1, 0, 0, 0) + question
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        asker.sendto(query, (MDNS, MDNS_PORT))
        while (got := heard(listener, 0.3)) is not None:
            data = got[0]
            if data[2] & 0x80 and label in data and data[-6:-4] == b"\0\4":
                return socket.inet_ntoa(data[-4:])
    return None


@shows("multicast DNS", GUESTS)
@pytest.mark.usefixtures("avahi")
def test_multicast_dns_between_guests(field: Field) -> bool:
    one = field.one.namespace
    with (
        multicaster(one, "eth0", MDNS_PORT) as asker,
        joined(one, "eth0", MDNS, MDNS_PORT) as listener,
    ):
        assert local_name(asker, "printer", listener) == field.two.address
    return True


@shows("multicast DNS", HOST_GUEST, mapped=False, native=False, why=NOT_TO_HOST)
@pytest.mark.usefixtures("avahi")
def test_multicast_dns_from_host(field: Field) -> bool:
    """Neither the answer to all nor the one to a one-shot question."""
    with (
        multicaster(field.host, field.bridge, MDNS_PORT) as asker,
        joined(field.host, field.bridge, MDNS, MDNS_PORT) as listener,
        multicaster(field.host, field.bridge) as once,
    ):
        ends = ((asker, listener), (once, once))
        return any(local_name(asker, "printer", listener, seconds=1) for asker, listener in ends)
