"""Ports of guests that the LAN may reach: with packets from the LAN, and what must stay closed."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from .lab import STATE, Lab, eventually
from .looking import assert_same, look
from .wire import (
    PATIENCE,
    LeakWatch,
    Servers,
    ask_tcp,
    ask_udp,
    check_refusal,
    datagram_socket,
    read_all,
    stream_socket,
)

PORT, OTHER_PORT = 80, 81
HOST_PORT = 8080
COLLIDING, APART = "10.127.1.0/24", "192.168.7.0/24"


class Stage:
    """A network with two guests, echo servers on two ports of each, and a second network with one."""

    def __init__(self, lab: Lab, servers: Servers) -> None:
        self.lab = lab
        self.first, self.second = lab.network(1), lab.network(2)
        lab.start(self.first)
        lab.start(self.second)
        self.guest, self.neighbour = lab.guest(self.first), lab.guest(self.first)
        self.stranger = lab.guest(self.second)
        for guest in (self.guest, self.neighbour, self.stranger):
            for port in (PORT, OTHER_PORT):
                servers.both(guest.namespace, ("0.0.0.0", port))

    @property
    def collides(self) -> bool:
        return self.lab.mode == "mapped" and str(self.lab.lan_prefix) == COLLIDING

    @property
    def lan_source(self) -> str:
        """How the guest sees the router of the LAN."""
        return self.guest.gateway if self.collides else self.lab.router_address

    @property
    def host_source(self) -> str:
        """How the guest sees the host, when it comes by way of its address in the LAN."""
        return self.guest.gateway if self.collides else self.lab.host_address


SHAPES = {
    "colliding": ("mapped", COLLIDING, True),
    "apart": ("mapped", APART, False),
    "native": ("native", APART, True),
}
"""Mode, LAN, and whether br_netfilter, rp_filter and an ip rule make it harder."""


@pytest.fixture(scope="module", params=[*SHAPES])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    mode, lan, on = SHAPES[request.param]
    with Lab(mode, lan_prefix=lan, bridge_nf=on, ip_rule=on, rp_filter=on) as made:
        made.start(made.network(9))
        made.stop(made.network(9))
        yield made


@pytest.fixture
def stage(lab: Lab) -> Iterator[Stage]:
    with Servers() as servers, LeakWatch(lab.lan, "lan0") as leaks:
        yield Stage(lab, servers)
        assert leaks.take() == []
        lab.clean()
        for file in lab.path(STATE).glob("*.reservations"):
            file.unlink()


def loopnet(lab: Lab, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = lab.host.run(["loopnet", *arguments], check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done


def is_open(lab: Lab, port: int, kind: str = "tcp", address: str = "", patience: float = PATIENCE) -> bool:
    """Can the LAN reach the port of the host?"""
    ask = ask_tcp if kind == "tcp" else ask_udp
    with contextlib.suppress(OSError):
        ask(lab.lan, (address or lab.host_address, port), timeout=patience)
        return True
    return False


def is_closed(lab: Lab, port: int, kind: str = "tcp", address: str = "") -> bool:
    return not is_open(lab, port, kind, address, patience=1.0)


def test_the_lan_reaches_what_is_published(stage: Stage) -> None:
    lab, guest = stage.lab, stage.guest
    assert is_closed(lab, HOST_PORT)
    before = lab.rules()
    said = loopnet(lab, "publish", guest.name, f"{HOST_PORT}:{PORT}")
    assert f"port {PORT}/tcp of {guest.name} ({guest.loop}) at port {HOST_PORT} of all" in said.stdout
    assert said.stderr == ""
    _, seen = ask_tcp(lab.lan, (lab.host_address, HOST_PORT), b"x" * 200_000)
    assert seen == stage.lan_source
    _, seen = ask_tcp(lab.host, (lab.host_address, HOST_PORT), b"x" * 200_000)
    assert seen == stage.host_source
    ask_tcp(lab.host, (guest.loop, PORT))
    assert is_closed(lab, HOST_PORT, "udp")

    loopnet(lab, "publish", guest.name, f"{lab.host_address}:{HOST_PORT}:{OTHER_PORT}/udp")
    _, seen = ask_udp(lab.lan, (lab.host_address, HOST_PORT), b"y" * 5000)  # in fragments
    assert seen == stage.lan_source
    _, seen = ask_udp(lab.host, (lab.host_address, HOST_PORT))
    assert seen == stage.host_source
    assert loopnet(lab, "plan").stdout == "nothing to do\n"

    loopnet(lab, "unpublish", guest.name, f"{HOST_PORT}/tcp")
    assert is_closed(lab, HOST_PORT)
    assert is_open(lab, HOST_PORT, "udp")
    loopnet(lab, "unpublish", guest.name, "--all")
    assert is_closed(lab, HOST_PORT, "udp")
    assert lab.rules() == before


def test_nothing_else_is_opened(stage: Stage) -> None:
    lab, guest = stage.lab, stage.guest
    loopnet(lab, "publish", guest.name, f"{HOST_PORT}:{PORT}")
    loopnet(lab, "publish", guest.name, f"{lab.host_address}:53:{PORT}/udp")
    assert is_open(lab, HOST_PORT)
    assert is_open(lab, 53, "udp")
    closed = [(lab.host_address, port, "tcp") for port in (PORT, OTHER_PORT, HOST_PORT + 1, 53)]
    closed += [(lab.host_address, port, "udp") for port in (PORT, OTHER_PORT, HOST_PORT)]
    for other in (guest, stage.neighbour, stage.stranger):
        addresses = {other.transit, other.address} if lab.mode == "mapped" else {other.transit}
        closed += [(a, p, k) for a in addresses for p in (PORT, OTHER_PORT) for k in ("tcp", "udp")]
    with neighbour_routes(stage), ThreadPoolExecutor(len(closed)) as threads:
        found = [*threads.map(lambda it: is_closed(lab, it[1], it[2], it[0]), closed)]
    assert [it for it, as_it_should in zip(closed, found) if not as_it_should] == []
    # Nor for guests: they are refused what the host refuses.
    for inside in (stage.neighbour, stage.stranger):
        for address in (guest.transit, lab.host_address):
            for port in (PORT, OTHER_PORT):
                with pytest.raises(OSError):
                    ask_tcp(inside.namespace, (address, port), timeout=0.5)
    with pytest.raises(OSError):
        ask_tcp(lab.host, ("127.0.0.1", PORT), timeout=0.5)


@contextlib.contextmanager
def neighbour_routes(stage: Stage) -> Iterator[None]:
    """A neighbour that takes the host for its router to all of our prefixes."""
    prefixes = ["247.0.0.0/8", *([] if stage.collides else ["10.127.1.0/24"]), "10.127.2.0/24"]
    for prefix in prefixes:
        stage.lab.lan.sh(f"ip route add {prefix} via {stage.lab.host_address}")
    try:
        yield
    finally:
        for prefix in prefixes:
            stage.lab.lan.sh(f"ip route del {prefix}")


def test_a_client_with_any_address(stage: Stage) -> None:
    """Also one with the address of the guest, of its gateway, or of the host as guests see it."""
    lab, guest = stage.lab, stage.guest
    prefix = str(lab.lan_prefix.network_address)[:-1]
    loopnet(lab, "publish", guest.name, f"{HOST_PORT}:{PORT}")
    loopnet(lab, "publish", guest.name, f"{HOST_PORT}:{PORT}/udp")
    for number in (guest.number, stage.neighbour.number, 254, 99):
        address = f"{prefix}{number}"
        lab.lan.sh(f"ip address add {address}/24 dev lan0")
        try:
            expected = guest.gateway if stage.collides else address
            there = (lab.host_address, HOST_PORT)
            assert ask_tcp(lab.lan, there, source=address) == (address, expected)
            assert ask_udp(lab.lan, there, source=address) == (address, expected)
        finally:
            lab.lan.sh(f"ip address del {address}/24 dev lan0")


def test_a_closed_port_refuses(stage: Stage) -> None:
    lab, guest = stage.lab, stage.guest
    for kind, protocol in ((socket.SOCK_STREAM, "tcp"), (socket.SOCK_DGRAM, "udp")):
        loopnet(lab, "publish", guest.name, f"{HOST_PORT}:9/{protocol}")
        check_refusal(lab.lan, kind, (lab.host_address, HOST_PORT))


def test_unpublishing_ends_what_goes_on(stage: Stage) -> None:
    lab, guest = stage.lab, stage.guest
    loopnet(lab, "publish", guest.name, f"{HOST_PORT}:{PORT}")
    loopnet(lab, "publish", guest.name, f"{HOST_PORT}:{PORT}/udp")
    streams = [stream_socket(lab.lan) for _ in range(2)]
    with streams[0], streams[1], datagram_socket(lab.lan) as datagrams:
        for client in (*streams, datagrams):
            client.settimeout(PATIENCE)
            client.connect((lab.host_address, HOST_PORT))
            client.send(b"one")
        assert datagrams.recv(100).endswith(b"one")
        lab.host.sh("nft flush ruleset")
        loopnet(lab, "sync")  # what goes on goes on
        datagrams.send(b"two")
        assert datagrams.recv(100).endswith(b"two")
        streams[0].shutdown(socket.SHUT_WR)
        assert read_all(streams[0]).endswith(b"one")

        loopnet(lab, "unpublish", guest.name, "--all")
        datagrams.settimeout(0.5)
        datagrams.send(b"three")
        with pytest.raises(socket.timeout):
            datagrams.recv(100)
        streams[1].settimeout(0.5)
        streams[1].shutdown(socket.SHUT_WR)  # the guest would answer now
        with pytest.raises(socket.timeout):
            streams[1].recv(100)


def test_it_lasts(stage: Stage, lab: Lab) -> None:
    """Across restarts of the guest and of its network, and what others do to the rules."""
    guest = stage.guest
    loopnet(lab, "publish", guest.name, f"{HOST_PORT}:{PORT}")
    lab.destroy(guest)
    again = lab.guest(stage.first, guest.mac, name=guest.name)
    assert again.number == guest.number
    with Servers() as servers:
        servers.both(again.namespace, ("0.0.0.0", PORT))
        assert is_open(lab, HOST_PORT)
        lab.host.sh("nft flush ruleset")
        assert is_closed(lab, HOST_PORT)
        assert "published" in loopnet(lab, "plan", status=1).stdout
        loopnet(lab, "sync")
        assert is_open(lab, HOST_PORT)
        lab.host.sh("nft flush map ip loopnet published-anywhere")
        assert is_closed(lab, HOST_PORT)
        loopnet(lab, "plan", status=1)
        loopnet(lab, "sync")
        assert is_open(lab, HOST_PORT)
    lab.stop(stage.first)
    assert is_closed(lab, HOST_PORT)
    assert "dnat ip to" not in lab.rules()
    lab.host.sh(f"ip link delete {again.tap}; ip link delete {stage.neighbour.tap}")
    lab.start(stage.first)
    anew = lab.guest(stage.first, guest.mac, name=guest.name)
    with Servers() as servers:
        servers.both(anew.namespace, ("0.0.0.0", PORT))
        eventually(lambda: is_open(lab, HOST_PORT, patience=2))  # its first answer by ARP may come late
    assert json.loads(loopnet(lab, "list", "--json").stdout)[0]["published"] == [
        {
            "protocol": "tcp",
            "host_address": None,
            "host_port": HOST_PORT,
            "guest_port": PORT,
            "ports": 1,
            "from": None,
        }
    ]


@pytest.mark.parametrize("verb", ["stop", "cleanup"])
def test_nothing_stays_behind(lab: Lab, verb: str) -> None:
    before = look(lab)
    network = lab.network(1)
    lab.start(network)
    guest = lab.guest(network)
    loopnet(lab, "publish", guest.name, f"{HOST_PORT}:{PORT}")
    loopnet(lab, "publish", guest.name, f"{lab.host_address}:1:1/udp")
    lab.host.sh(f"ip link delete {guest.tap}")
    if verb == "cleanup":
        loopnet(lab, "cleanup")
        assert "loopnet" not in lab.rules()
    lab.stop(network)
    lab.path(f"{STATE}/{network.model.name}.reservations").unlink()
    assert_same(before, look(lab))


@pytest.mark.parametrize("verb", ["stop", "cleanup"])
def test_connections_end_with_the_last_network(lab: Lab, verb: str) -> None:
    """Where NAT rules of others keep the kernel's translation alive, and what comes late for a guest that is
    gone would else be routed to the guest's transit address, by the default route."""
    network = lab.network(1)
    theirs = "chain c { type nat hook prerouting priority dstnat; };"
    theirs += "chain d { type nat hook postrouting priority srcnat; oifname nowhere masquerade; };"
    lab.host.run(["nft", "-f", "-"], input=f"table ip theirs {{ {theirs} }}")
    lab.start(network)
    guest = lab.guest(network)
    loopnet(lab, "publish", guest.name, f"{HOST_PORT}:{PORT}/udp")
    lab.lan.sh("ip address add 198.51.100.77/32 dev lo")
    with (
        LeakWatch(lab.lan, "lan0") as leaks,
        datagram_socket(guest.namespace, ("0.0.0.0", PORT)) as inside,
        datagram_socket(lab.lan, (lab.router_address, 0)) as asks,
        datagram_socket(lab.lan, ("198.51.100.77", 0)) as asked,
    ):
        for one in (inside, asks, asked):
            one.settimeout(PATIENCE)
        asks.sendto(b"in", (lab.host_address, HOST_PORT))
        _, client = inside.recvfrom(100)
        inside.sendto(b"answer", client)
        assert asks.recv(100) == b"answer"
        inside.sendto(b"out", asked.getsockname())
        _, masqueraded = asked.recvfrom(100)
        assert masqueraded[0] == lab.host_address
        assert "247.1.0." in (tracked := lab.host.sh("cat /proc/net/nf_conntrack")), tracked
        if verb == "cleanup":
            loopnet(lab, "cleanup")
        lab.destroy(guest)
        lab.stop(network)
        for _ in range(3):
            asks.sendto(b"late", (lab.host_address, HOST_PORT))
            asked.sendto(b"late", masqueraded)
        assert leaks.take() == []
        assert leaks.frames
    assert "247." not in lab.host.sh("cat /proc/net/nf_conntrack")
    lab.host.sh("nft delete table ip theirs")
    lab.lan.sh("ip address del 198.51.100.77/32 dev lo")
    lab.path(f"{STATE}/{network.model.name}.reservations").unlink()


def test_a_release_unpublishes(stage: Stage, lab: Lab) -> None:
    guest = stage.guest
    before = lab.rules()
    loopnet(lab, "publish", guest.name, f"{HOST_PORT}:{PORT}")
    assert lab.rules() != before
    lab.destroy(guest)
    loopnet(lab, "reserve", guest.mac, stage.guest.loop.rpartition(".")[0] + ".77")
    assert f"247.1.0.77 . {PORT}" in lab.rules()
    again = lab.guest(stage.first, guest.mac, name=guest.name)
    with Servers() as servers:
        servers.tcp(again.namespace, ("0.0.0.0", PORT))
        assert is_open(lab, HOST_PORT)
    lab.destroy(again)
    loopnet(lab, "release", guest.mac)
    assert "dnat ip to" not in lab.rules()
    anew = lab.guest(stage.first, guest.mac, name=guest.name)
    with Servers() as servers:
        servers.tcp(anew.namespace, ("0.0.0.0", PORT))
        assert is_closed(lab, HOST_PORT)
    assert loopnet(lab, "plan").stdout == "nothing to do\n"


@pytest.mark.parametrize("tool", ["iptables-nft", "iptables-legacy"])
def test_beside_a_firewall_that_drops(stage: Stage, tool: str) -> None:
    lab, guest = stage.lab, stage.guest
    before = lab.host.sh(f"{tool}-save -t filter")
    # What Docker does, and a host that lets in nothing but answers.
    lab.host.sh(
        f"{tool} -P FORWARD DROP; {tool} -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT\n"
        f"{tool} -A INPUT -p icmp -j ACCEPT; {tool} -P INPUT DROP"
    )
    try:
        loopnet(lab, "sync")
        without = lab.host.sh(f"{tool}-save -t filter")
        loopnet(lab, "publish", guest.name, f"{HOST_PORT}:{PORT}")
        assert is_open(lab, HOST_PORT)
        ask_tcp(lab.host, (lab.host_address, HOST_PORT))
        assert is_closed(lab, HOST_PORT + 1)
        assert loopnet(lab, "plan").stdout == "nothing to do\n"
        loopnet(lab, "unpublish", guest.name, str(HOST_PORT))
        assert is_closed(lab, HOST_PORT)
        assert rules_of(lab.host.sh(f"{tool}-save -t filter")) == rules_of(without)
    finally:
        lab.host.sh(f"{tool} -P FORWARD ACCEPT; {tool} -P INPUT ACCEPT; {tool} -F INPUT")
        loopnet(lab, "sync")
    after = lab.host.sh(f"{tool}-save -t filter")
    assert "LOOPNET" not in after
    assert before.count("DROP") == after.count("DROP")
    lab.host.sh("nft delete table ip filter 2>/dev/null || true")


def test_the_doctor_names_a_table_that_drops(stage: Stage) -> None:
    """And what it says mends it."""
    lab, guest = stage.lab, stage.guest
    loopnet(lab, "publish", guest.name, f"{HOST_PORT}:{PORT}")
    chain = "type filter hook forward priority 5; policy accept;"
    rule = 'iifname "uplink0" ct state new drop'
    lab.host.run(["nft", "-f", "-"], input=f"table inet mine {{ chain f {{ {chain} {rule}; }}; }}")
    try:
        assert is_closed(lab, HOST_PORT)
        (found,) = obstacles(lab)
        assert (found["id"], found["what"]) == ("firewall", f"another firewall, inet mine f: {rule}")
        assert found["consequence"] == "cut off: the LAN doesn't reach published ports"
        line = 'open-firewalls = [ "inet mine" ]'
        assert line in found["command"]
        lab.host.sh(found["command"].partition("recreated: ")[2])
        assert is_open(lab, HOST_PORT)
        assert is_closed(lab, HOST_PORT + 1)
        assert obstacles(lab) == []
    finally:
        lab.host.sh("nft delete table inet mine")


def obstacles(lab: Lab) -> list[dict[str, str]]:
    done = lab.host.run(["loopnet", "doctor", "--json"], check=False)
    found: list[dict[str, str]] = json.loads(done.stdout)
    return [finding for finding in found if finding["id"] == "firewall"]


def rules_of(saved: str) -> list[str]:
    """Without the time, and counters."""
    return [line.partition(" [")[0] for line in saved.splitlines() if not line.startswith("#")]
