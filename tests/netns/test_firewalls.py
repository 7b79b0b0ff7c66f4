"""Beside other firewalls, the real ones: guests keep DHCP, DNS and internet, the host its guests.

Each test first sees what the other firewall breaks, then that nothing is broken once it has been told
of the networks, and in the end that not a trace is left in it.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
import socket
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest

from tests.sandbox import CHECKOUT, INTERNET, Namespace
from tests.sandbox.apt import apt
from tests.sandbox.cache import cache_directory

from . import frames
from .lab import Lab, LabGuest, LabNetwork, eventually
from .wire import PATIENCE, Capture, LeakWatch, Servers, ask_tcp, ask_udp, datagram_socket

ECHO = (INTERNET, 7)
SERVICE, GUEST_SERVICE = 7000, 7001
SOON = 0.25
"""Seconds in which an answer comes, if one comes at all."""

DHCP, DNS, PING, OUT, IN, HOST_OUT, SERVED, AMONG = (
    "DHCP", "DNS", "ping of the gateway", "guest to internet", "host to guest", "host to internet",
    "guest to a service of the host", "guest to guest",
)  # fmt: skip
NEEDED = {DHCP, DNS, PING, OUT, IN, AMONG}
"""What the networks are for; the rest is up to the user's firewall."""


class World(NamedTuple):
    lab: Lab
    network: LabNetwork
    one: LabGuest
    two: LabGuest


@pytest.fixture(scope="module", params=["mapped", "native"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """With br_netfilter, as Docker has it: iptables sees what goes from guest to guest too."""
    with Lab(request.param, bridge_nf=True) as lab, LeakWatch(lab.lan, "lan0") as leaks:
        yield from made(lab)
        assert leaks.take() == []


def made(lab: Lab) -> Iterator[World]:
    """Two networks and, on the first, two guests."""
    with Servers() as servers:
        network, other = lab.network(1), lab.network(2)
        lab.start(network, dnsmasq=True)
        lab.start(other)
        one, two = lab.guest(network), lab.guest(network)
        servers.both(lab.host, ("0.0.0.0", SERVICE))
        for guest in (one, two):
            servers.both(guest.namespace, ("0.0.0.0", GUEST_SERVICE))
        yield World(lab, network, one, two)


# --- what works ----------------------------------------------------------------------------------


def broken(world: World, expected: set[str], looked_at: set[str] = NEEDED) -> set[str]:
    """What doesn't work. What isn't expected to fail gets the time that a busy machine may need."""
    return {
        name
        for name, works in CHECKS.items()
        if name in looked_at and not answers(works, world, SOON if name in expected else PATIENCE)
    }


def answers(works: Callable[[World, float], object], world: World, patience: float) -> bool:
    try:
        return works(world, patience) is not False
    except (OSError, AssertionError):
        return False


def leases(world: World, patience: float) -> None:
    """A lease is offered and acknowledged, renewed by unicast and rebound by broadcast."""
    guest = world.one
    with Capture(guest.namespace, "eth0") as wire:

        def ask(kind: int, options: bytes = b"", own: str = "0.0.0.0", server: str = "") -> dict[int, bytes]:
            options = frames.dhcp_option(frames.DHCP_TYPE, bytes((kind,))) + options
            message = frames.dhcp(frames.REQUEST, guest.mac, options, own=own, broadcast=own == "0.0.0.0")
            packet = frames.udp_packet((own, 68), (server or "255.255.255.255", 67), message)
            target = world.network.model.bridge_mac if server else frames.BROADCAST
            wire.send(frames.ethernet(guest.mac, target, frames.IP, packet))
            answer = wire.find(lambda frame: frames.udp_data(frame, 68) is not None, patience)
            assert answer is not None
            address, found = frames.dhcp_answer(frames.udp_data(answer, 68) or b"")
            assert address == guest.address
            return found

        server = ask(frames.DHCP_DISCOVER)[frames.DHCP_SERVER]
        wanted = frames.dhcp_option(frames.DHCP_WANTED, frames.address(guest.address))
        chosen = frames.dhcp_option(frames.DHCP_SERVER, server) + wanted
        assert ask(frames.DHCP_REQUEST, chosen)[frames.DHCP_TYPE][0] == frames.DHCP_ACK
        for target in (socket.inet_ntoa(server), ""):
            renewed = ask(frames.DHCP_REQUEST, own=guest.address, server=target)
            assert renewed[frames.DHCP_TYPE][0] == frames.DHCP_ACK


def resolves(world: World, patience: float) -> None:
    """DNS by UDP, and TCP gets through to the server."""
    native = world.network.model.mode == "native"
    server = ("247.1.0.254" if native else world.one.gateway, 53)
    name = world.network.model.name.encode()
    query = struct.pack("!HHHHHHB", 1, 0x100, 1, 0, 0, 0, len(name)) + name + b"\0\0\1\0\1"
    with datagram_socket(world.one.namespace) as client:
        client.settimeout(patience)
        client.connect(server)
        client.send(query)
        assert client.recv(512)[:2] == query[:2]
    with world.one.namespace.call(lambda: socket.create_connection(server, patience)):
        pass


def pings(world: World, patience: float) -> bool:
    return ping(world.one.namespace, world.one.gateway, patience)


def ping(namespace: Namespace, address: str, patience: float) -> bool:
    argv = ["ping", "-n", "-c1", f"-W{patience}", address]
    return namespace.run(argv, check=False).returncode == 0


def reaches_internet(world: World, patience: float) -> None:
    guest = world.one.namespace
    ask_udp(guest, ECHO, timeout=patience)
    with guest.call(lambda: socket.create_connection((INTERNET, 80), patience)) as page:
        page.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert page.recv(100)


def host_reaches_guest(world: World, patience: float) -> bool:
    for ask in (ask_udp, ask_tcp):
        ask(world.lab.host, (world.one.loop, GUEST_SERVICE), timeout=patience)
    return ping(world.lab.host, world.one.loop, patience)


def is_served(world: World, patience: float) -> None:
    ask_tcp(world.one.namespace, (world.one.gateway, SERVICE), timeout=patience)


def host_reaches_internet(world: World, patience: float) -> None:
    ask_udp(world.lab.host, ECHO, timeout=patience)


def guests_talk(world: World, patience: float) -> None:
    ask_udp(world.one.namespace, (world.two.address, GUEST_SERVICE), timeout=patience)


CHECKS: dict[str, Callable[[World, float], object]] = {
    DHCP: leases,
    DNS: resolves,
    PING: pings,
    OUT: reaches_internet,
    IN: host_reaches_guest,
    HOST_OUT: host_reaches_internet,
    SERVED: is_served,
    AMONG: guests_talk,
}


def assert_broken(world: World, *expected: str) -> None:
    """Of what is needed, this doesn't work and all else does."""
    assert broken(world, {*expected}) == {*expected}


def assert_mended(world: World, *expected: str) -> None:
    """Nothing of what is needed is broken; ``expected`` is, being what the user's firewall is for."""
    assert broken(world, {*expected}, {*CHECKS}) == {*expected}


# --- telling the other firewall ------------------------------------------------------------------


def tell(lab: Lab, *, off: bool = False, devices: str = "") -> list[str]:
    """Have other firewalls told of the networks that are up, or with ``off`` that none is."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from libvirt_loopnet.daemon import runstate\n"
        "from libvirt_loopnet.host import other_firewalls\n"
        "networks = [] if sys.argv[2] else runstate.active_networks()\n"
        "for order in other_firewalls.apply(networks, sys.argv[3].split()):\n"
        "    print(order.tool, order.text.replace('\\n', '|'))"
    )
    return lab.host.python(code, str(CHECKOUT), "off" if off else "", devices).splitlines()


def rules(lab: Lab) -> str:
    """All rules of others, without counters."""
    foreign = r"^table (bridge|ip) loopnet \{\n.*?^\}\n"
    listed = re.sub(foreign, "", lab.rules(), flags=re.MULTILINE | re.DOTALL)
    saved = lab.host.run(["iptables-legacy-save"]).stdout if legacy_in_use(lab) else ""
    return listed + re.sub(r"^#.*\n|\[.*\]", "", saved, flags=re.MULTILINE)


def legacy_in_use(lab: Lab) -> bool:
    return "filter" in lab.host.sh("cat /proc/net/ip_tables_names 2>/dev/null || :")


# --- iptables ------------------------------------------------------------------------------------

DOCKER = """\
-P FORWARD DROP
-N DOCKER-USER
-N DOCKER
-N DOCKER-ISOLATION-STAGE-1
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-USER -j RETURN
"""
INPUT_DROP = """\
-P INPUT DROP
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p tcp --dport 22 -j ACCEPT
"""
CIS_LOOPBACK = """\
-A INPUT -i lo -j ACCEPT
-A OUTPUT -o lo -j ACCEPT
-A INPUT -s 127.0.0.0/8 ! -i lo -j DROP
"""
# CIS Benchmark for Debian, "Configure IPv4 iptables"
CIS = """\
-P INPUT DROP
-P OUTPUT DROP
-P FORWARD DROP
-A INPUT -i lo -j ACCEPT
-A OUTPUT -o lo -j ACCEPT
-A INPUT -s 127.0.0.0/8 -j DROP
-A OUTPUT -p tcp -m state --state NEW,ESTABLISHED -j ACCEPT
-A OUTPUT -p icmp -m state --state NEW,ESTABLISHED -j ACCEPT
-A INPUT -p tcp -m state --state ESTABLISHED -j ACCEPT
-A INPUT -p icmp -m state --state ESTABLISHED -j ACCEPT
"""
KILL_SWITCH = """\
-P OUTPUT DROP
-A OUTPUT -o lo -j ACCEPT
-A OUTPUT -d 10.0.0.0/8 -j ACCEPT
-A OUTPUT -d 172.16.0.0/12 -j ACCEPT
-A OUTPUT -d 192.168.0.0/16 -j ACCEPT
-A OUTPUT -o wg0 -j ACCEPT
"""
# wg-quick(8), PostUp of a kill switch
WIREGUARD_KILL_SWITCH = """\
-I OUTPUT ! -o wg0 -m mark ! --mark 51820 -m addrtype ! --dst-type LOCAL -j REJECT
"""
# tailscale's util/linuxfw/iptables_runner.go
TAILSCALE = """\
-N ts-input
-N ts-forward
-A ts-input -s 100.101.102.103/32 -i lo -j ACCEPT
-A ts-input -s 100.115.92.0/23 ! -i tailscale0 -j RETURN
-A ts-input -s 100.64.0.0/10 ! -i tailscale0 -j DROP
-A ts-forward -i tailscale0 -j MARK --set-xmark 0x40000/0xff0000
-A ts-forward -m mark --mark 0x40000/0xff0000 -j ACCEPT
-A ts-forward -s 100.64.0.0/10 -o tailscale0 -j DROP
-A ts-forward -o tailscale0 -j ACCEPT
-I INPUT -j ts-input
-I FORWARD -j ts-forward
"""


class Case(NamedTuple):
    rules: str
    breaks: set[str]
    leaves_broken: set[str] = set()  # noqa: RUF012
    """What the user's firewall is there for."""
    breaks_native: set[str] = set()  # noqa: RUF012
    """In native mode as well: there renewing guests ask from 127.x."""


CASES = {
    "docker": Case(DOCKER, {OUT, AMONG}),
    "input-drop": Case(INPUT_DROP, {DHCP, DNS, PING}, {SERVED}),
    "cis-loopback": Case(CIS_LOOPBACK, {IN}, breaks_native={DHCP}),
    "cis": Case(CIS, NEEDED, {SERVED, HOST_OUT}),
    "kill-switch": Case(KILL_SWITCH, {DHCP, DNS, PING, IN}, {HOST_OUT}),
    "wireguard-kill-switch": Case(WIREGUARD_KILL_SWITCH, {DHCP, DNS, PING, IN}, {HOST_OUT}),
    "tailscale": Case(TAILSCALE, set()),
}


@pytest.fixture
def clean(world: World) -> Iterator[None]:
    """No firewall before, none after."""
    yield
    for variant in ("nft", "legacy"):
        if variant == "nft" or legacy_in_use(world.lab):
            world.lab.host.run(
                [f"iptables-{variant}-restore"],
                input="*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\nCOMMIT\n",
            )
    world.lab.host.sh("nft delete table ip filter")


def add(lab: Lab, variant: str, text: str) -> None:
    lines = [f"iptables-{variant} {line}" for line in text.splitlines()]
    lab.host.sh("\n".join(lines))


@pytest.mark.parametrize("variant", ["nft", "legacy"])
@pytest.mark.parametrize("name", CASES)
def test_iptables(world: World, clean: None, variant: str, name: str) -> None:
    case, lab = CASES[name], world.lab
    add(lab, variant, case.rules)
    before = rules(lab)
    native = world.network.model.mode == "native"
    assert_broken(world, *case.breaks, *(case.breaks_native if native else ()))
    assert tell(lab)
    assert_mended(world, *case.leaves_broken)
    assert tell(lab) == []
    others = [line for line in rules(lab).splitlines() if "LOOPNET" not in line]
    assert is_subsequence(before.splitlines(), others)
    assert tell(lab, off=True)
    assert rules(lab) == before
    assert tell(lab, off=True) == []


def is_subsequence(wanted: list[str], lines: list[str]) -> bool:
    rest = iter(lines)
    return all(line in rest for line in wanted)


def test_both_variants_at_once(world: World, clean: None) -> None:
    lab = world.lab
    add(lab, "nft", DOCKER)
    add(lab, "legacy", INPUT_DROP)
    before = rules(lab)
    assert_broken(world, DHCP, DNS, PING, OUT, AMONG)
    assert len(tell(lab)) == 2
    assert_broken(world)
    tell(lab, off=True)
    assert rules(lab) == before


def test_containers_stay_protected(world: World, clean: None) -> None:
    """Docker lets nobody else in to its containers, and a guest is somebody else."""
    lab = world.lab
    lab.host.sh(
        "ip netns add container; ip link add docker0 type bridge; ip link set docker0 up\n"
        "ip address add 172.17.0.1/16 dev docker0\n"
        "ip link add veth0 type veth peer name eth0 netns container; ip link set veth0 master docker0 up\n"
        "ip -n container address add 172.17.0.2/16 dev eth0; ip -n container link set eth0 up\n"
        "ip -n container route add default via 172.17.0.1"
    )
    container = ("172.17.0.2", GUEST_SERVICE)
    try:
        with Servers() as servers:
            servers.tcp(lab.namespace("container"), container)
            ask_tcp(world.one.namespace, container)
            add(lab, "nft", DOCKER)
            tell(lab)
            assert_mended(world)
            ask_tcp(lab.host, container)
            with pytest.raises(TimeoutError):
                ask_tcp(world.one.namespace, container, timeout=SOON)
    finally:
        lab.host.sh("ip link delete docker0; ip link delete veth0; ip netns delete container")


def test_what_drops_nothing_is_left_alone(world: World, clean: None) -> None:
    """Empty chains, and those libvirt makes for its own networks."""
    lab = world.lab
    add(lab, "nft", "-P FORWARD ACCEPT\n-A FORWARD -m limit --limit 1/min -j LOG\n-N seen\n-A INPUT -j seen")
    add(lab, "nft", "-N LIBVIRT_FWO\n-A FORWARD -j LIBVIRT_FWO\n-A LIBVIRT_FWO -i virbr9 -j REJECT")
    add(lab, "legacy", "-P INPUT ACCEPT")
    assert_broken(world)
    assert tell(lab) == []


def test_only_the_chain_that_drops_is_touched(world: World, clean: None) -> None:
    add(world.lab, "nft", DOCKER + "-P INPUT ACCEPT")
    tell(world.lab)
    assert "LOOPNET_INPUT" not in rules(world.lab)


def test_ours_comes_first_again(world: World, clean: None) -> None:
    """A VPN's kill switch is put in above, later; libvirt's own chains may stay above."""
    lab = world.lab
    add(lab, "nft", INPUT_DROP)
    tell(lab)
    add(lab, "nft", "-N LIBVIRT_INP\n-I INPUT -j LIBVIRT_INP")
    assert tell(lab) == []
    add(lab, "nft", "-I INPUT -p udp --dport 53 -j DROP")
    assert_broken(world, DNS)
    assert tell(lab)
    assert_broken(world)
    lab.host.sh("iptables-nft -D INPUT -j LOOPNET_INPUT")
    assert_broken(world, DHCP, DNS, PING)
    assert tell(lab)
    assert_broken(world)
    lab.host.sh("iptables-nft -F LOOPNET_INPUT; iptables-nft -A LOOPNET_INPUT -j ACCEPT")
    assert tell(lab)
    assert_mended(world, SERVED)


def test_goes_when_the_other_firewall_goes(world: World, clean: None) -> None:
    lab = world.lab
    add(lab, "nft", INPUT_DROP)
    tell(lab)
    lab.host.sh("iptables-nft -P INPUT ACCEPT; iptables-nft -F INPUT")
    assert tell(lab)
    assert "LOOPNET" not in rules(lab)


def test_table_that_only_nft_can_read(world: World, clean: None) -> None:
    """It is told, not guessed at, and nothing of it is touched."""
    lab = world.lab
    lab.host.run(["nft", "-f", "-"], input=NFT_ONLY)
    before = rules(lab)
    assert tell(lab) == []
    code = "from libvirt_loopnet.host import other_firewalls; print(other_firewalls.observe().problems)"
    problems = lab.host.python(f"import sys; sys.path.insert(0, sys.argv[1])\n{code}", str(CHECKOUT))
    assert "nft list table ip filter" in problems
    assert rules(lab) == before


NFT_ONLY = """\
table ip filter {
	chain INPUT { type filter hook input priority 0; ct state vmap { invalid : drop }; }
}
"""


def test_looking_costs_little(world: World) -> None:
    """Without another firewall, and without a module that takes time to import."""
    code = (
        "import resource, sys; sys.path.insert(0, sys.argv[1])\n"
        "from libvirt_loopnet.host import other_firewalls\n"
        "def used():\n"
        "    both = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))\n"
        "    return sum(each.ru_utime + each.ru_stime for each in both)\n"
        "def look():\n"
        "    begin = used(); other_firewalls.observe(); return used() - begin\n"
        "print(min(look() for _ in range(20)), *({'json', 'subprocess', 'libvirt_loopnet.firewalls.obstacles'}"
        " & set(sys.modules)))"
    )
    seconds, *imported = world.lab.host.run(
        ["/usr/bin/python3", "-I", "-S", "-c", code, str(CHECKOUT)]
    ).stdout.split()
    assert imported == []
    assert float(seconds) < 0.2  # of processor time; 2 ms are usual


# --- tables of others ----------------------------------------------------------------------------

# nftables' examples/workstation.nft, with a forward chain
WORKSTATION = """\
table inet filter {
	chain input {
		type filter hook input priority 0; policy drop;
		iif lo accept
		ct state vmap { established : accept, related : accept, invalid : drop }
		tcp dport 22 accept
	}
	chain forward { type filter hook forward priority 0; policy drop; }
	chain output { type filter hook output priority 0; }
}
"""
# A VPN's client that is connected, by wg0, and lets the LAN be
VPN_CLIENT = """\
table inet vpn {
	set lan {
		type ipv4_addr; flags interval
		elements = { 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 }
	}
	chain output {
		type filter hook output priority 0; policy drop;
		oif lo accept
		ct mark 0xf41 accept
		udp sport 68 udp dport 67 accept
		ip daddr @lan accept
		jump through_vpn
		reject
	}
	chain through_vpn {
		oifname "wg*" accept
	}
	chain input {
		type filter hook input priority 0; policy drop;
		iif lo accept
		ct state established accept
		ip saddr @lan accept
	}
	chain forward {
		type filter hook forward priority 0; policy drop;
		oifname "wg*" accept
	}
}
"""
ANTI_SPOOFING = """\
table ip raw {
	chain PREROUTING {
		type filter hook prerouting priority -300;
		iifname != "lo" ip saddr 127.0.0.0/8 counter drop
	}
}
"""
TABLES = {
    "workstation": (WORKSTATION, [DHCP, DNS, PING, OUT, AMONG], 2, []),
    "vpn-client": (VPN_CLIENT, [*NEEDED], 3, [OUT]),
    "anti-spoofing": (ANTI_SPOOFING, [IN], 1, []),
}
"""What each breaks, in how many places, and what stays so, since the host itself gets out by the VPN only."""


@pytest.mark.parametrize("name", TABLES)
def test_the_doctor_names_what_is_in_the_way(world: World, name: str) -> None:
    """Nothing is put into tables of others by us; but the commands that it names do it."""
    table, breaks, count, left = TABLES[name]
    lab = world.lab
    if world.network.model.mode == "native" and name == "anti-spoofing":
        breaks = [*breaks, DHCP, AMONG]
    assert findings(lab) == []
    lab.host.run(["nft", "-f", "-"], input=table)
    try:
        assert tell(lab) == []
        assert_broken(world, *breaks)
        found = findings(lab)
        assert len(found) == count
        for finding in found:
            assert finding["rule"] in table
        lab.host.sh("\n".join(command for finding in found for command in finding["mend"]))
        assert findings(lab) == []
        assert_broken(world, *left)
    finally:
        lab.host.run(["nft", "delete", *table.split()[:3]])


def findings(lab: Lab) -> list[dict[str, Any]]:
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1])\n"
        "from libvirt_loopnet.daemon import runstate\n"
        "from libvirt_loopnet.host import blocking_rules\n"
        "found = blocking_rules.find(runstate.active_networks()).obstacles\n"
        "print(json.dumps([finding._asdict() for finding in found]))"
    )
    return cast("list[dict[str, Any]]", json.loads(lab.host.python(code, str(CHECKOUT))))


# --- beside VPNs ---------------------------------------------------------------------------------

# wg-quick(8) and tailscale's wgengine/router/router_linux.go
VPN_RULES = """
ip link add wg0 type veth peer name wg1; ip address add 10.66.0.2/32 dev wg0; ip link set wg0 up
ip link add tailscale0 type veth peer name tailscale1; ip address add 100.101.102.103/32 dev tailscale0
ip link set tailscale0 up
ip route add default dev uplink0 via $(ip route show default | cut -d' ' -f3) table 51820
ip rule add not fwmark 51820 table 51820
ip rule add table main suppress_prefixlength 0
ip rule add pref 5210 fwmark 0x80000/0xff0000 table main
ip rule add pref 5230 fwmark 0x80000/0xff0000 table default
ip rule add pref 5250 fwmark 0x80000/0xff0000 type unreachable
ip rule add pref 5270 table 52
ip route add 100.64.0.0/10 dev tailscale0 table 52
ip route add 100.100.100.100 dev tailscale0 table 52
ip route add throw 127.0.0.0/8 table 52
"""


@pytest.mark.parametrize("mode", ["mapped", "native"])
def test_vpns(mode: str) -> None:
    """Policy routing and the rules of both, before the first network and after."""
    for late in (False, True):
        with Lab(mode, bridge_nf=True, rp_filter=True) as lab, LeakWatch(lab.lan, "lan0") as leaks:
            if not late:
                lab.host.sh(VPN_RULES)
            for world in made(lab):
                if late:
                    lab.host.sh(VPN_RULES)
                add(lab, "nft", TAILSCALE + WIREGUARD_KILL_SWITCH)
                assert_broken(world, DHCP, DNS, PING, IN)
                tell(lab)
                assert_broken(world)
                tell(lab, off=True)
                assert "LOOPNET" not in rules(lab)
            assert leaks.take() == []


# --- ufw and firewalld ---------------------------------------------------------------------------

PROGRAMS = ("ufw", "firewalld")


@functools.cache
def packages() -> list[Path]:
    """Debian packages of both and of what they need beyond this machine; none if it has both.

    They are installed in the sandbox only: who runs these tests has not asked for a firewall.
    """
    if all(shutil.which(program, path="/usr/sbin") for program in PROGRAMS):
        return []
    if not shutil.which("apt-get"):
        pytest.skip("neither are ufw and firewalld installed nor is there apt-get to get them with")
    cache = cache_directory() / "firewalls"
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as empty:  # what apt has in its own cache it doesn't list
        (Path(empty) / "partial").mkdir()
        options = ["-y", "-qq", "--no-install-recommends", "-o", f"Dir::Cache::archives={empty}"]
        listed = apt("apt-get", "install", *options, "--print-uris", *PROGRAMS)
    found = [cache / line.split()[1] for line in listed.splitlines()]
    missing = [file.name.partition("_")[0] for file in found if not file.exists()]
    if missing:  # unlike install --download-only, this takes no lock
        apt("apt-get", "download", "-qq", *missing, directory=str(cache))
    return found


def install(lab: Lab) -> None:
    """/usr is shared with the machine; what is written to it from now on goes to memory."""
    files = packages()
    lab.host.sh(
        "mkdir -p /run/usr/upper /run/usr/work /run/packages\n"
        "mount -t overlay -o lowerdir=/usr,upperdir=/run/usr/upper,workdir=/run/usr/work overlay /usr\n"
        # nothing is started, compiled or indexed
        "printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d\n"
        "for tool in py3compile mandb; do ln -sf true /usr/bin/$tool; done"
    )
    for file in files:
        shutil.copy(file, lab.path("/run/packages"))
    if files:
        argv = ["env", "DEBIAN_FRONTEND=noninteractive", "dpkg", "--force-unsafe-io", "-i"]
        lab.host.run([*argv, *(f"/run/packages/{file.name}" for file in files)], timeout=120)


@pytest.fixture(scope="module")
def equipped() -> Iterator[World]:
    """A host with ufw and firewalld, neither running."""
    with Lab(bridge_nf=True) as lab, LeakWatch(lab.lan, "lan0") as leaks:
        install(lab)
        yield from made(lab)
        assert leaks.take() == []


def test_ufw(equipped: World) -> None:
    lab = equipped.lab
    lab.host.sh("ufw allow 22/tcp; ufw --force enable")
    try:
        before = rules(lab)
        assert_broken(equipped, DHCP, DNS, OUT, AMONG)
        assert tell(lab)
        assert_mended(equipped, SERVED)
        lab.host.sh("ufw reload; ufw deny 23/tcp")
        assert tell(lab) == []
        assert_broken(equipped)
        lab.host.sh("ufw delete deny 23/tcp")
        assert tell(lab, off=True)
        assert rules(lab) == before
        tell(lab)
    finally:
        lab.host.sh("ufw disable")
    tell(lab)
    assert "LOOPNET" not in rules(lab)
    assert_broken(equipped)


@pytest.fixture(params=["nftables", "iptables"])
def firewalld(equipped: World, request: pytest.FixtureRequest) -> Iterator[World]:
    """firewalld with either backend, on a system bus of its own."""
    host = equipped.lab.host
    host.sh(
        "iptables -P INPUT ACCEPT; iptables -F; iptables -X; nft delete table ip filter\n"
        f"sed -i 's/^FirewallBackend=.*/FirewallBackend={request.param}/' /etc/firewalld/firewalld.conf\n"
        "[ -e /run/dbus/pid ] || { mkdir -p /run/dbus; dbus-daemon --system --fork; }"
    )
    start_firewalld(equipped.lab)
    yield equipped
    stop_firewalld(equipped.lab)


def start_firewalld(lab: Lab) -> None:
    lab.host.sh("firewalld --nofork >/dev/null 2>&1 &")
    state = ["firewall-cmd", "--state"]
    eventually(lambda: lab.host.run(state, check=False).returncode == 0, 20)


def stop_firewalld(lab: Lab) -> None:
    lab.host.sh("kill $(cat /run/firewalld.pid)")
    eventually(lambda: "firewalld" not in lab.host.sh("ps -e -o args") or not lab.rules(), 20)
    eventually(lambda: not lab.path("/run/firewalld.pid").exists(), 20)


def zones(lab: Lab) -> str:
    command = (
        "firewall-cmd --list-all-zones; firewall-cmd --get-active-zones; cat /etc/firewalld/zones/* || :"
    )
    return lab.host.sh(command)


def test_firewalld(firewalld: World) -> None:
    lab = firewalld.lab
    before = zones(lab)
    assert_broken(firewalld, DHCP, DNS, OUT, AMONG)
    done = tell(lab)
    assert "firewalld --zone=libvirt --change-interface=virbr1" in done
    assert_mended(firewalld, SERVED)
    assert tell(lab) == []
    assert tell(lab, off=True, devices="virbr1 virbr2")
    assert zones(lab) == before
    assert "LOOPNET" not in rules(lab)
    assert tell(lab, off=True, devices="virbr1 virbr2") == []
    assert_broken(firewalld, DHCP, DNS, OUT, AMONG)


def test_ports_are_published_beside_firewalld(firewalld: World) -> None:
    published_ports(firewalld)


def test_ports_are_published_beside_ufw(equipped: World) -> None:
    equipped.lab.host.sh("ufw allow 22/tcp; ufw --force enable")
    try:
        published_ports(equipped)
    finally:
        equipped.lab.host.sh("ufw disable")


def published_ports(world: World) -> None:
    """They are reached from the LAN, and nothing else is."""
    lab, guest = world.lab, world.one.name

    def reached(port: int, patience: float = 2.5) -> bool:
        where = (lab.host_address, port)
        return answers(lambda _, patience: ask_tcp(lab.lan, where, timeout=patience), world, patience)

    assert not reached(8080)
    lab.host.run(["loopnet", "publish", guest, f"8080:{GUEST_SERVICE}"])
    try:
        assert reached(8080, PATIENCE)
        assert not reached(8081)
        assert not reached(GUEST_SERVICE)
    finally:
        lab.host.run(["loopnet", "unpublish", guest, "--all"])
    assert not reached(8080)
    tell(lab, off=True, devices="virbr1 virbr2")


def test_firewalld_reloads_and_restarts(firewalld: World) -> None:
    """It forgets its runtime configuration then, unless FlushAllOnReload=no: what the units are for."""
    lab = firewalld.lab
    tell(lab)
    lab.host.sh("firewall-cmd --reload")
    assert_broken(firewalld, DHCP, DNS, OUT, AMONG)
    assert tell(lab)
    assert_broken(firewalld)
    stop_firewalld(lab)
    assert_broken(firewalld)
    start_firewalld(lab)
    assert tell(lab)
    assert_broken(firewalld)
    tell(lab, off=True, devices="virbr1 virbr2")


def test_firewalld_and_a_choice_of_the_user(firewalld: World) -> None:
    """A zone that a bridge was put into by somebody else is respected, at start and at the end."""
    lab = firewalld.lab
    lab.host.sh(
        "firewall-cmd --zone=trusted --add-interface=virbr2\n"
        "firewall-cmd --permanent --zone=libvirt --add-interface=virbr1\n"
        "firewall-cmd --zone=libvirt --add-interface=virbr1"
    )
    before = zones(lab)
    tell(lab)
    assert zones(lab) == before
    tell(lab, off=True, devices="virbr1 virbr2")
    assert zones(lab) == before
    lab.host.sh(
        "firewall-cmd --zone=trusted --remove-interface=virbr2\n"
        "firewall-cmd --permanent --zone=libvirt --remove-interface=virbr1\n"
        "firewall-cmd --zone=libvirt --remove-interface=virbr1"
    )


def test_firewalld_that_does_not_answer(equipped: World) -> None:
    """Killed, it leaves its rules behind; stopping a network must work all the same."""
    lab = equipped.lab
    lab.host.sh("nft add table inet firewalld; nft add chain inet firewalld x")
    try:
        assert tell(lab) == []
    finally:
        lab.host.sh("nft delete table inet firewalld")
