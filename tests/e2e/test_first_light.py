"""The main job: from the templates by virsh to untouched guests that answer at 127.x."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from typing import Iterator, List, NamedTuple, Tuple

import pytest

from tests.sandbox import INTERNET, Guest
from tests.sandbox.capture import Capture
from tests.sandbox.snapshot import snapshot
from tests.sandbox.world import MAPPED, NATIVE, Kind, World, wait

HARD = {"bridge_nf": True, "ip_rule": True, "rp_filter": True}
SOON = 15.0
"""Seconds within which what is refused must be refused, also on a busy machine; to time out takes twenty."""
CLOSED = 9
"""A port where nobody listens."""
BIG = 3_000_000

# A rebinding client: its server did not answer, so it asks all, by broadcast, with its address.
REBIND = r"""
my ($address, $mac) = @ARGV;
socket(my $s, 2, 2, 0) or die "socket: $!";
setsockopt($s, 1, 2, 1); setsockopt($s, 1, 6, 1);
bind($s, pack("S n N x8", 2, 68, 0)) or die "bind: $!";
my $request = pack("C4 N n n C4 x12 H12 x10 x192 N C3 C", 1, 1, 6, 0, 4711, 0, 0,
    split(/\./, $address), $mac, 0x63825363, 53, 1, 3, 255);
send($s, $request . "\0" x 60, 0, pack("S n C4 x8", 2, 67, (255) x 4)) or die "send: $!";
"""


class Lit(NamedTuple):
    """Two guests on a network, booted."""

    world: World
    kind: Kind
    guests: List[Guest]
    lo: str
    """lo's addresses before."""

    @property
    def loop(self) -> str:
        """Where the host finds the first guest."""
        return f"{self.kind.loop}2"

    @property
    def name(self) -> str:
        return f"vm1.{self.kind.name}"


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((options, kind), id=f"{label}-{mode}")
        for label, options in (("plain", {}), ("hard", HARD))
        for mode, kind in (("mapped", MAPPED), ("native", NATIVE))
    ],
)
def lit(request: pytest.FixtureRequest) -> Iterator[Lit]:
    options, kind = request.param
    with World(**options) as world:
        lo = lo_addresses(world)
        world.start(kind)
        guests = world.boot("vm1", "vm2", kind=kind)
        yield Lit(world, kind, guests, lo)


def lo_addresses(world: World) -> str:
    return world.host.sh("ip -4 -o address show dev lo")


def test_addresses(lit: Lit) -> None:
    assert lit.guests[0].address() == f"{lit.kind.guest}2"
    assert lit.guests[1].address() == f"{lit.kind.guest}3"
    assert f"via {lit.kind.gateway} dev eth0" in lit.guests[0].run("ip route show default")


def test_http(lit: Lit) -> None:
    assert lit.world.page(lit.loop) == "hello from vm1\n"
    assert lit.world.page(f"{lit.kind.loop}3") == "hello from vm2\n"
    assert lit.world.page(lit.loop, "cgi-bin/peer") == f"{lit.kind.host}\n"


def test_large_transfers(lit: Lit) -> None:
    lit.guests[0].run(f"head -c {BIG} /dev/urandom >/www/big")
    there = lit.guests[0].run("md5sum </www/big").split()[0]
    host = lit.world.host
    assert host.sh(f"curl -sS --max-time 60 http://{lit.loop}/big | md5sum").split()[0] == there
    got = lit.guests[1].run(f"wget -qO- http://{lit.kind.guest}2/big | md5sum", timeout=60)
    assert got.split()[0] == there


def test_udp(lit: Lit) -> None:
    answer = lit.world.udp(lit.loop, 7, "hello")
    assert re.fullmatch(re.escape(lit.kind.host) + r":\d+ hello", answer)
    # in fragments
    assert lit.world.udp(lit.loop, 7, "x" * 4000).endswith(" " + "x" * 4000)


def test_ping(lit: Lit) -> None:
    lit.world.host.sh(f"ping -q -c 2 -i 0.2 {lit.loop}")
    lit.world.host.sh(f"ping -q -c 1 -s 4000 {lit.loop}")


def test_closed_ports_are_refused_at_once(lit: Lit) -> None:
    begin = time.monotonic()
    with pytest.raises(ConnectionRefusedError):
        lit.world.udp(lit.loop, CLOSED, "hello")
    with pytest.raises(ConnectionRefusedError):
        lit.world.host.call(lambda: socket.create_connection((lit.loop, CLOSED), 20))
    assert time.monotonic() - begin < SOON


def test_an_address_without_guest_is_unreachable(lit: Lit) -> None:
    with pytest.raises(OSError, match="No route to host"):
        lit.world.host.call(lambda: socket.create_connection((f"{lit.kind.loop}77", 80), 10))


def test_names_on_the_host(lit: Lit) -> None:
    assert lit.world.resolve(lit.name) == [lit.loop]
    assert lit.world.host.sh(f"getent hosts {lit.name}").split() == [lit.loop, lit.name]
    assert lit.world.host.sh(f"getent hosts {lit.loop}").split() == [lit.loop, lit.name]
    code = "import socket, sys; print(socket.gethostbyname(sys.argv[1]))"
    assert lit.world.host.python(code, lit.name) == f"{lit.loop}\n"
    assert lit.world.page(lit.name) == "hello from vm1\n"


def test_names_in_guests(lit: Lit) -> None:
    check_guests_names(lit)
    assert lit.guests[1].run(f"wget -qO- http://{lit.name}/") == "hello from vm1\n"
    assert lit.guests[0].resolve("internet.example") == [INTERNET]
    assert lit.guests[0].resolve(f"nobody.{lit.kind.name}") == []


def test_names_in_guests_when_dnsmasq_has_read_all_files_again(lit: Lit) -> None:
    """By now /etc/hosts, which dnsmasq reads, has the guests' loop addresses."""
    assert lit.name in lit.world.path("/etc/hosts").read_text()
    seen = len(lit.world.syslog())
    lit.world.host.sh(f"kill -HUP $(cat /run/libvirt/network/{lit.kind.name}.pid)")
    wait(lambda: "dnsmasq" in lit.world.syslog()[seen:], "word from dnsmasq")
    check_guests_names(lit)


def check_guests_names(lit: Lit) -> None:
    for guest in lit.guests:
        for number in (1, 2):
            name = f"vm{number}.{lit.kind.name}"
            assert guest.resolve(name) == [f"{lit.kind.guest}{number + 1}"]
            assert guest.resolve(f"vm{number}") == [f"{lit.kind.guest}{number + 1}"]


def test_guest_to_the_internet(lit: Lit) -> None:
    seen = lit.world.sandbox.host_address
    guest = lit.guests[0]
    page = guest.run(f"wget -qO- http://{INTERNET}/")
    assert page == f"hello from the internet; you are {seen}\n"
    assert guest.run("wget -qO- http://internet.example/") == page
    assert guest.run(f"udp send {INTERNET} 7 hello").startswith(f"{seen}:")
    begin = time.monotonic()
    assert guest.run(f"udp send {INTERNET} {CLOSED} hello; echo $?").endswith("refused\n1\n")
    assert time.monotonic() - begin < SOON
    guest.run(f"ping -q -c 2 {INTERNET}")


def test_guest_to_a_service_of_the_host(lit: Lit) -> None:
    targets = [lit.kind.gateway]
    if lit.kind is NATIVE:  # for a mapped guest that address is on its own wire
        targets.append(lit.world.sandbox.host_address)
    for target in targets:
        with lit.world.listen("0.0.0.0") as server:
            assert knock(lit.guests[0], server, target) == (0, f"{lit.kind.transit}2")


@pytest.mark.parametrize("target", ["gateway", "host"])
@pytest.mark.parametrize("own", ["127.0.0.1", "254"])
def test_guest_does_not_reach_what_listens_on_loopback(lit: Lit, target: str, own: str) -> None:
    address = own if "." in own else f"{lit.kind.loop}{own}"
    with lit.world.listen(address) as server:
        status, peer = knock(lit.guests[0], server, getattr(lit.kind, target))
    assert status != 0
    assert not peer


def knock(guest: Guest, server: socket.socket, target: str) -> Tuple[int, str]:
    """Connects from a guest to a server's port at `target`; exit status, and who knocked."""
    peers: List[str] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            connection, (address, _) = server.accept()
            peers.append(address)
            connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    port = server.getsockname()[1]
    printed = guest.run(f"nc -w 2 {target} {port} </dev/null; echo status $?")
    server.shutdown(socket.SHUT_RDWR)  # ends accept()
    thread.join(5)
    return int(printed.split()[-1]), "".join(peers)


def test_guest_that_sends_to_127_0_0_1_is_not_heard(lit: Lit) -> None:
    """A guest with root can put any address on its wire."""
    guest = lit.guests[1]
    mac = lit.world.host.sh(f"cat /sys/class/net/{bridge(lit)}/address").strip()
    tap = tap_of(lit, "vm2")
    target = "127.0.0.1"
    with lit.world.listen(target) as server, Capture(lit.world.host, tap) as capture:
        guest.run(
            "echo 1 >/proc/sys/net/ipv4/conf/eth0/route_localnet; "
            f"ip address del $(ip -4 -o address show dev lo | awk '{{print $4; exit}}') dev lo; "
            f"ip neigh replace {lit.kind.gateway} lladdr {mac} dev eth0; "
            f"ip route add {target} via {lit.kind.gateway} dev eth0 src {lit.kind.guest}3"
        )
        try:
            status, peer = knock(guest, server, target)
        finally:
            guest.run(f"ip route del {target}; ip address add 127.0.0.1/16 dev lo")
    assert status != 0
    assert not peer
    # it was really sent, in vain
    assert ("ip", f"{lit.kind.guest}3", target) in capture.seen
    assert not any(seen.source == target for seen in capture.seen)


def bridge(lit: Lit) -> str:
    info = lit.world.sandbox.virsh("net-info", lit.kind.name)
    found = re.search(r"^Bridge:\s+(\S+)", info, re.MULTILINE)
    assert found
    return found.group(1)


def tap_of(lit: Lit, name: str) -> str:
    found = re.search(r"^\s*(vnet\d+)\s", lit.world.sandbox.virsh("domiflist", name), re.MULTILINE)
    assert found
    return found.group(1)


def test_guest_to_guest(lit: Lit) -> None:
    one, two = lit.guests
    other = f"{lit.kind.guest}2"
    assert two.run(f"wget -qO- http://{other}/") == "hello from vm1\n"
    assert two.run(f"wget -qO- http://{other}/cgi-bin/peer") == f"{lit.kind.guest}3\n"
    assert two.run(f"udp send {other} 7 hello").endswith(" hello\n")
    assert two.run(f"udp send {other} {CLOSED} hello; echo $?").endswith("refused\n1\n")
    one.run(f"ping -q -c 2 {lit.kind.guest}3")


def test_same_prefix_on_the_lan_and_in_the_guest(lit: Lit) -> None:
    """The router 10.127.1.1 is the LAN's to the host and the host itself to a guest."""
    router = lit.world.sandbox.router_address
    assert router == MAPPED.gateway
    lit.world.host.sh(f"ping -q -c 1 {router}")
    neighbour = lit.world.host.sh(f"ip neighbour show {router}")
    assert "dev uplink0" in neighbour
    found = re.search(r"lladdr (\S+)", neighbour)
    assert found
    assert f" {found.group(1)} " in lit.world.sandbox.lan.sh("ip link show lan0")
    guest = lit.guests[0]
    guest.run(f"ping -q -c 1 {lit.kind.gateway}")
    mac = lit.world.host.sh(f"cat /sys/class/net/{bridge(lit)}/address").strip()
    assert mac in guest.run(f"ip neigh show {lit.kind.gateway}")


def test_the_rest_of_127_stays_with_the_host(lit: Lit) -> None:
    assert "127.0.0.1/8 scope host lo" in lit.lo
    assert lo_addresses(lit.world) == lit.lo.replace("127.0.0.1/8", "127.0.0.1/16")
    for address in ("127.0.0.1", "127.0.1.1", "127.200.0.1", "127.1.1.1", "127.255.255.254"):
        lit.world.host.sh(f"ping -q -c 1 {address}")


def test_the_host_shows_whose_tap_it_is(lit: Lit) -> None:
    taps = lit.world.host.sh(f"ip link show master {bridge(lit)}")
    assert re.findall(r"alias (.*)", taps) == [f"vm{n} {lit.kind.loop}{n + 1}" for n in (1, 2)]


def test_route_localnet_is_on_for_our_bridge_alone(lit: Lit) -> None:
    found = lit.world.host.sh("grep -l 1 /proc/sys/net/ipv4/conf/*/route_localnet")
    assert found.split() == [f"/proc/sys/net/ipv4/conf/{bridge(lit)}/route_localnet"]


def test_renewal(lit: Lit) -> None:
    guest = lit.guests[0]
    mac, address = guest.macs[0], f"{lit.kind.guest}2"
    seen = len(lit.world.syslog())
    guest.run("kill -USR1 $(cat /run/interface.eth0/pid)")
    wait(lambda: re.search(rf"lease eth0 {address}/24 renew", guest.console()), "renewal")
    # The log may come later than the answer. udhcpc may miss the first while it opens its socket.
    wait(lambda: dhcp(lit.world.syslog()[seen:], mac)[-2:] == ["DHCPREQUEST", "DHCPACK"], "lines in the log")
    assert set(dhcp(lit.world.syslog()[seen:], mac)) == {"DHCPREQUEST", "DHCPACK"}

    seen = len(lit.world.syslog())
    guest.run(f"cat >/tmp/rebind <<'END'\n{REBIND}END")
    guest.run(f"perl /tmp/rebind {address} {mac.replace(':', '')}")
    wait(lambda: "DHCPACK" in dhcp(lit.world.syslog()[seen:], mac), "answer to rebinding")
    assert guest.address() == address


def dhcp(log: str, mac: str) -> List[str]:
    """The DHCP messages about a NIC in dnsmasq's log."""
    return re.findall(rf"(DHCP[A-Z]+)\(\S+\).* {mac}", log)


def test_the_first_question_is_answered_at_once(lit: Lit) -> None:
    log = lit.world.syslog()
    for guest in lit.guests:
        messages = dhcp(log, guest.macs[0])
        assert messages[:4] == ["DHCPDISCOVER", "DHCPOFFER", "DHCPREQUEST", "DHCPACK"]
        times = re.findall(rf"^([\d.]+) .*DHCP[DO]\S+ .*{guest.macs[0]}", log, re.MULTILINE)
        assert float(times[1]) - float(times[0]) < 2.5  # a ping would take three


def test_nothing_but_our_own_changed_meanwhile(lit: Lit) -> None:
    now = snapshot(lit.world.sandbox)
    for what in ("ip rule",):
        assert now[what] == lit.world.before[what]
    tables = lit.world.host.sh("nft list tables").splitlines()
    ours = {"table bridge loopnet", "table arp loopnet", "table ip loopnet"}
    before = lit.world.before["nft list ruleset"]
    assert set(tables) - {line[:-2] for line in before.splitlines() if line[:6] == "table "} == ours
