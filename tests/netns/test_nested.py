"""A guest that is itself a host with loopnet, whose guest is one too, all with the same prefixes.

::

    internet -- outer -- middle -- inner -- leaf

``outer``, ``middle`` and ``inner`` run the same hooks for the same network; each calls its guest 127.1.0.2.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.sandbox import INTERNET, Namespace
from tests.sandbox.snapshot import Snapshot

from . import frames
from .arena import HOSTILE
from .lab import Lab, LabGuest, eventually
from .looking import assert_same, look
from .wire import (
    PATIENCE,
    SETTLE,
    Capture,
    LeakWatch,
    Servers,
    ask_tcp,
    ask_udp,
    check_refusal,
    datagram_socket,
)

PORT, PRIVATE_PORT, CLOSED = 7000, 7001, 9

HARD = {"bridge_nf": True, "ip_rule": True, "rp_filter": True}


class Nest(NamedTuple):
    """Hosts from the outermost on, and the guest of each: the next host, or at last the leaf."""

    hosts: list[Lab]
    guests: list[LabGuest]
    leaks: list[LeakWatch]
    before: list[Snapshot]
    """Each host before its network was started."""

    @property
    def levels(self) -> list[tuple[Lab, LabGuest]]:
        return list(zip(self.hosts, self.guests))

    @property
    def leaf(self) -> LabGuest:
        return self.guests[-1]


@pytest.fixture(
    scope="module",
    params=[("mapped", {}), ("mapped", HARD), ("native", {})],
    ids=["mapped", "mapped-hard", "native-leaf"],
)
def nest(request: pytest.FixtureRequest) -> Iterator[Nest]:
    """``native-leaf``: the innermost network is a native one."""
    mode, options = request.param
    with contextlib.ExitStack() as stack:
        hosts = [stack.enter_context(Lab(kind, **options)) for kind in ("mapped", "mapped", mode)]
        servers = stack.enter_context(Servers())
        leaks = [stack.enter_context(LeakWatch(hosts[0].lan, "lan0"))]
        guests: list[LabGuest] = []
        before: list[Snapshot] = []
        for host, inner in zip(hosts, [*hosts[1:], None]):
            host.host.sh(HOSTILE)
            # once, for what stays for good: directories of reservations, and of libvirt's run state
            host.start(host.network(9), dnsmasq=True)
            host.stop(host.network(9))
            servers.both(host.host, ("0.0.0.0", PORT))
            servers.both(host.host, ("127.0.0.1", PRIVATE_PORT))
            before.append(look(host))
            network = host.network(1)
            host.start(network, dnsmasq=True)
            if inner is None:
                guests.append(host.guest(network, name="vm"))
            else:
                guests.append(host.adopt(network, inner, "vm"))
                # what leaves the inner host, and what comes to it
                leaks.append(stack.enter_context(LeakWatch(host.host, guests[-1].tap)))
                leaks.append(stack.enter_context(LeakWatch(inner.host, "uplink0")))
        servers.both(guests[-1].namespace, ("0.0.0.0", PORT))
        yield Nest(hosts, guests, leaks, before)


@pytest.fixture(autouse=True)
def nothing_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Neither the LAN nor any wire between hosts ever carries an address of 127/8 or 247/8."""
    yield
    if "nest" not in request.fixturenames:
        return
    nest = request.getfixturevalue("nest")
    assert [leak for watch in nest.leaks for leak in watch.take(settle=0)] == []


def test_each_host_has_its_guest_at_the_same_address(nest: Nest) -> None:
    for host, guest in nest.levels:
        assert guest.loop == "127.1.0.2"
        assert guest.address == ("10.127.1.2" if host.mode == "mapped" else "127.1.0.2")
        for ask in (ask_tcp, ask_udp):
            here, there = ask(host.host, (guest.loop, PORT))
            assert here == "127.1.0.254"
            assert there == str(guest.network.model.guest_address(254))
        ping = host.host.run(["ping", "-n", "-c2", "-i0.01", guest.loop]).stdout
        assert "2 received" in ping
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            check_refusal(host.host, kind, (guest.loop, CLOSED))


def test_it_is_its_own_guest_and_no_other(nest: Nest) -> None:
    """The same question gets another answer from each level: who is asked says its name."""
    names = [f"level {number}".encode() for number in range(1, len(nest.guests) + 1)]
    with contextlib.ExitStack() as stack:
        for name, guest in zip(names, nest.guests):
            stack.enter_context(_teller(guest.namespace, name))
        for name, host in zip(names, nest.hosts):
            with datagram_socket(host.host) as client:
                client.settimeout(PATIENCE)
                client.sendto(b"?", ("127.1.0.2", 7002))
                assert client.recv(100) == name


@contextlib.contextmanager
def _teller(namespace: Namespace, name: bytes) -> Iterator[None]:
    """While it lasts, the namespace answers its first datagram on port 7002 with its name."""
    with datagram_socket(namespace, ("0.0.0.0", 7002)) as server:
        server.settimeout(10)

        def tell() -> None:
            with contextlib.suppress(OSError):
                server.sendto(name, server.recvfrom(100)[1])

        thread = threading.Thread(target=tell, daemon=True)
        thread.start()
        yield
    thread.join()


def test_leaf_reaches_the_internet_through_all_hosts(nest: Nest) -> None:
    seen = nest.hosts[0].host_address
    for namespace in (nest.leaf.namespace, nest.hosts[2].host, nest.hosts[1].host):
        assert ask_udp(namespace, (INTERNET, 7))[1] == seen
        page = namespace.run(["curl", "-sS", f"http://{INTERNET}/"]).stdout
        assert page == f"hello from the internet; you are {seen}\n"
        ping = namespace.run(["ping", "-n", "-c2", "-i0.01", INTERNET]).stdout
        assert "2 received" in ping
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            check_refusal(namespace, kind, (INTERNET, CLOSED))
    eventually(lambda: all(watch.frames for watch in nest.leaks))  # their silence is not deafness


def test_leaf_meets_its_own_host_only(nest: Nest) -> None:
    """Its router is its own host, which sees it in the transit prefix, as every host sees its guest."""
    for _, guest in nest.levels:
        for ask in (ask_tcp, ask_udp):
            assert ask(guest.namespace, (guest.gateway, PORT)) == (guest.address, "247.1.0.2")
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            check_refusal(guest.namespace, kind, (guest.gateway, PRIVATE_PORT))


WIRE = """
table netdev wire {
	counter ours { }
	counter seen { }
	chain in {
		type filter hook ingress device uplink0 priority -500; policy accept;
		meta protocol ip counter name seen
		ip saddr & 255.0.0.0 { 127.0.0.0, 247.0.0.0 } counter name ours
		ip daddr & 255.0.0.0 { 127.0.0.0, 247.0.0.0 } counter name ours
	}
}
"""


def test_large_packets(nest: Nest) -> None:
    data = bytes(range(251)) * 239
    for inner in nest.hosts[1:]:
        inner.host.run(["nft", "-f", "-"], input=WIRE)
    for host, guest in nest.levels:
        ask_udp(host.host, (guest.loop, PORT), data)
        ask_tcp(host.host, (guest.loop, PORT), data * 20)
    ask_udp(nest.leaf.namespace, (INTERNET, 7), data)
    for inner in nest.hosts[1:]:
        counted = inner.host.run(["nft", "list", "counters", "table", "netdev", "wire"]).stdout
        packets = {name: int(n) for name, n in re.findall(r"counter (\w+) {\s+packets (\d+)", counted)}
        assert packets["seen"] > 100
        assert packets["ours"] == 0
        inner.host.run(["nft", "delete", "table", "netdev", "wire"])
    # A host that forwards fragments writes their new headers over the old ones (ip_fraglist_prepare() of
    # Linux), also in the copies that captures have not read yet; so it is counted above instead.
    for watch in nest.leaks[2::2]:
        watch.take()


def test_names(nest: Nest) -> None:
    """All guests have the same name: it is each host's own guest's. Other names are asked for up to the LAN."""
    for host, _ in nest.levels:
        assert host.host.run(["getent", "hosts", "vm.net1"]).stdout.split() == ["127.1.0.2", "vm.net1"]
    native = nest.leaf.network.model.mode == "native"
    for guest in nest.guests:
        server = "247.1.0.254" if native and guest is nest.leaf else guest.gateway
        assert _resolve(guest.namespace, server, "internet.example") == INTERNET


def _resolve(namespace: Namespace, server: str, name: str) -> str:
    """The address that a DNS server tells for a name."""
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    query = struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"
    with datagram_socket(namespace) as client:
        client.settimeout(PATIENCE)
        client.connect((server, 53))
        client.send(query)
        reply = client.recv(512)
    assert struct.unpack("!HHHH", reply[:8]) == (7, 0x8180, 1, 1)
    return socket.inet_ntoa(reply[-4:])


def test_nobody_finds_anything_to_mend(nest: Nest) -> None:
    for host in nest.hosts:
        status = host.host.run(["loopnet", "status"], check=False)
        assert status.returncode == 0, status.stdout
        assert host.host.run(["loopnet", "plan"]).stdout == "nothing to do\n"


# --- guards ---------------------------------------------------------------------------------------

LOCAL_PORT, ANY_PORT, LOOP_PORT = 9001, 9002, 9003


class Ears:
    """Services of all hosts; ``heard`` tells who got a datagram: ``HOST SERVICE from ADDRESS``."""

    def __init__(self, nest: Nest, stack: contextlib.ExitStack) -> None:
        self._listeners: dict[str, socket.socket] = {}
        for name, host in zip(("outer", "middle", "inner"), nest.hosts):
            for kind, where in (
                ("local", ("127.0.0.1", LOCAL_PORT)), ("any", ("0.0.0.0", ANY_PORT)),
                ("loop", ("127.1.0.254", LOOP_PORT)),
            ):  # fmt: skip
                listener = stack.enter_context(datagram_socket(host.host, where))
                listener.setblocking(False)
                self._listeners[f"{name} {kind}"] = listener
        leaf = stack.enter_context(datagram_socket(nest.leaf.namespace, ("0.0.0.0", ANY_PORT)))
        leaf.setblocking(False)
        self._listeners["leaf any"] = leaf

    def heard(self) -> set[str]:
        time.sleep(5 * SETTLE)
        found = set()
        for name, listener in self._listeners.items():
            with contextlib.suppress(BlockingIOError):
                while True:
                    found.add(f"{name} from {listener.recvfrom(100)[1][0]}")
        return found


FORGED = ["127.0.0.1", "127.1.0.2", "127.1.0.254", "247.1.0.1", "247.1.0.2", "247.1.0.254"]
TARGETS = [
    *itertools.product(["127.0.0.1"], [LOCAL_PORT, ANY_PORT]),
    *itertools.product(["127.1.0.254"], [LOOP_PORT, ANY_PORT]),
    *itertools.product(["127.1.0.2", "247.1.0.1", "247.1.0.2"], [ANY_PORT]),
]


def test_outer_host_is_a_lan_like_any_other_to_its_guest(nest: Nest) -> None:
    """Whatever it puts on the wire, its guest's loopback services and guests get nothing of it."""
    outer, middle = nest.hosts[:2]
    tap, mac = nest.guests[0].tap, nest.guests[0].mac
    with contextlib.ExitStack() as stack:
        ears = Ears(nest, stack)
        wire = stack.enter_context(Capture(outer.host, tap))

        def attack(sources: list[str], targets: list[tuple[str, int]]) -> set[str]:
            for source, target in itertools.product(sources, targets):
                packet = frames.udp_packet((source, 4000), target, b"x")
                wire.send(frames.ethernet(bridge, mac, frames.IP, packet))
            return ears.heard()

        bridge = outer.path("/sys/class/net/virbr1/address").read_text().strip()
        assert attack([*FORGED, "10.127.1.254", INTERNET], TARGETS) == set()
        # It is our rules that keep it out, not luck.
        middle.host.sh("nft delete table ip loopnet; for conf in all uplink0; do\n"
                       "echo 0 >/proc/sys/net/ipv4/conf/$conf/rp_filter; done")  # fmt: skip
        try:
            assert attack(["10.127.1.254"], TARGETS[:1]) == {"middle local from 10.127.1.254"}
        finally:
            middle.host.run(["loopnet", "sync"])
        assert attack(["10.127.1.254"], TARGETS) == set()
    time.sleep(SETTLE)
    assert nest.leaks[2].take()  # the attack itself, on the wire to the middle host


def test_leaf_gets_at_no_host(nest: Nest) -> None:
    leaf = nest.leaf
    mac = leaf.network.model.bridge_mac
    with contextlib.ExitStack() as stack:
        ears = Ears(nest, stack)
        wire = stack.enter_context(Capture(leaf.namespace, "eth0"))
        for source, target in itertools.product([*FORGED, "10.127.1.254", leaf.address], TARGETS):
            packet = frames.udp_packet((source, 4000), target, b"x")
            wire.send(frames.ethernet(leaf.mac, mac, frames.IP, packet))
        heard = ears.heard()
        # of its own host, what listens on all addresses, as on any libvirt network
        assert heard <= {"inner any from 247.1.0.2"}
        packet = frames.udp_packet((leaf.address, 4000), (leaf.gateway, ANY_PORT), b"x")
        wire.send(frames.ethernet(leaf.mac, mac, frames.IP, packet))
        assert ears.heard() == {"inner any from 247.1.0.2"}


# --- hosts with an uplink in 127/8 -------------------------------------------------------------------


def test_a_native_guest_can_be_no_host() -> None:
    """Its uplink has an address that no uplink may have: it is told so, and not cut off."""
    with Lab("native") as outer, Lab() as inner, Servers() as servers:
        network = outer.network(1)
        outer.start(network)
        outer.adopt(network, inner, "vm")
        servers.both(inner.host, ("0.0.0.0", PORT))
        for index, why in ((3, "cut it off"), (1, "is inside 127.1.0.0/24")):
            refused = inner.network_hook(inner.network(index), "start", check=False)
            assert refused.returncode != 0
            assert why in refused.stderr
            assert "127.1.0.2 on uplink0" in refused.stderr
        assert ask_tcp(outer.host, ("127.1.0.2", PORT))[0] == "127.1.0.254"
        assert ask_udp(inner.host, (INTERNET, 7))[1] == outer.host_address


def test_an_address_in_127_that_nobody_routes_is_no_obstacle() -> None:
    with Lab() as lab:
        lab.host.sh("ip link add other0 type veth peer name other1; ip address add 127.200.0.1/32 dev other0")
        lab.start(lab.network(1))
        lab.start(lab.network(2))
        lab.stop(lab.network(1))


# --- the end --------------------------------------------------------------------------------------


def test_each_host_is_left_as_it_was(nest: Nest) -> None:
    """Last: from the inside out, networks stop; what is outside of them goes on."""
    for watch in nest.leaks[1:]:
        watch.__exit__()  # their devices go
    for number in (2, 1, 0):
        host, guest = nest.levels[number]
        host.destroy(guest)
        host.stop(guest.network)
        assert_same(nest.before[number], look(host))
        for outer, next_guest in nest.levels[:number]:
            assert ask_tcp(outer.host, (next_guest.loop, PORT))[0] == "127.1.0.254"
        assert ask_udp(nest.hosts[0].host, (INTERNET, 7))[1] == nest.hosts[0].host_address
