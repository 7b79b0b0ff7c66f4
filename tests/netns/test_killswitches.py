"""Beside VPNs with a kill switch: host and guests reach each other, guests get out by the tunnel, and never else."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

import pytest

from tests.sandbox import INTERNET, Namespace

from . import killswitches as switches
from .frames import ipv4_addresses
from .lab import Lab, eventually
from .test_firewalls import AMONG, CHECKS, DHCP, DNS, IN, OUT, PING, World, answers, findings, made
from .vpn import CONFIG, Leaks, VpnHost, leaks_beside, listed, watching
from .wire import PATIENCE, Capture, Flood, Servers, ask_tcp, ask_udp, datagram_socket

PORT = 7009
FAR = "198.18.7.7"
"""Where the floods go; nobody else sends there (RFC 2544)."""
FAR6 = "2001:db8:9::9"
TOKEN = b"@guest@"
SECRET = b"\x06secret\x07example\0"
LOCAL = {DHCP, DNS, PING, IN, AMONG}
SOON = 0.3


class Stage(VpnHost):
    """A host with a guest's world and a VPN."""

    def __init__(self, world: World, vpn: Namespace) -> None:
        super().__init__(world.lab, vpn)
        self.world = world

    def check(self, *expected: str) -> None:
        """Fails unless just this works of all that guests and host need; by the tunnel, for what leaves."""
        assert self.works(expected) == {*expected}

    def works(self, expected: Collection[str] = (), patience: float = 2.5) -> set[str]:
        """What works; what is expected to do so has the time that a busy machine may need."""
        checks = {**{name: CHECKS[name] for name in LOCAL}, OUT: self._out}
        return {
            name
            for name, works in checks.items()
            if answers(works, self.world, PATIENCE if name in expected else patience)
        }

    def _out(self, world: World, patience: float) -> None:
        for ask in (ask_udp, ask_tcp):
            assert ask(world.one.namespace, (INTERNET, PORT), timeout=patience)[1] == switches.HERE

    def doctor(self) -> str:
        return self.lab.host.run(["loopnet", "doctor"], check=False).stdout


@pytest.fixture(scope="module", params=["mapped", "native"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with Lab(request.param, bridge_nf=True, lan_prefix="192.168.7.0/24") as lab, Servers() as servers:
        lab.path("/etc/resolv.conf").write_text(f"nameserver {lab.router_address}\n")
        lab.host.sh("ip netns add vpn")
        vpn = lab.namespace("vpn")
        vpn.sh(f"ip link set lo up; ip address add {INTERNET}/32 dev lo")
        servers.both(vpn, (INTERNET, PORT))
        for world in made(lab):
            yield Stage(world, vpn)


@pytest.fixture
def clean(stage: Stage) -> Iterator[Stage]:
    yield stage
    if stage.up:
        stage.disconnect()
    stage.lab.path(CONFIG).unlink(missing_ok=True)
    for table in ("inet mullvad", "inet nordvpn", "inet killswitch", "ip filter"):
        stage.lab.host.run(["nft", "delete", "table", *table.split()], check=False)
    stage.sync()


# --- opened ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", switches.TABLES)
def test_a_table_that_is_named_is_opened(clean: Stage, name: str) -> None:
    stage, make, device = clean, switches.TABLES[name], switches.DEVICES[name]
    stage.connect(device)
    stage.load(make(device))
    before = listed(stage.lab, switches.NAMES[name])
    assert stage.works(patience=SOON) <= {OUT, AMONG}
    assert f'open-firewalls = [ "{switches.NAMES[name]}" ]' in stage.doctor()
    stage.trust(switches.NAMES[name])
    assert switches.NAMES[name] in stage.sync()
    stage.check(*LOCAL, OUT)
    assert findings(stage.lab) == []
    assert stage.sync() == "nothing to do\n"
    # Without the tunnel guests have no internet, but all else.
    stage.disconnect()
    stage.load(make(""))
    stage.sync()
    stage.check(*LOCAL)
    assert "the host's own traffic gets out by no interface" in stage.doctor()
    # Untouched is what it was, when the setting goes and when the network goes.
    stage.connect(device)
    stage.load(make(device))
    stage.sync()
    assert listed(stage.lab, switches.NAMES[name]) != before
    stage.trust()
    stage.sync()
    assert listed(stage.lab, switches.NAMES[name]) == before


def test_sync_is_what_starts_and_stops_of_networks_do(clean: Stage) -> None:
    stage = clean
    stage.connect("wg0")
    stage.load(switches.hand_written("wg0"))
    before = listed(stage.lab, "inet killswitch")
    stage.trust("inet killswitch")
    lab = stage.lab
    third = lab.network(3)
    lab.start(third)
    assert 'iifname "virbr3"' in listed(lab, "inet killswitch")
    lab.stop(third)
    text = listed(lab, "inet killswitch")
    assert "virbr3" not in text
    assert 'iifname "virbr1"' in text
    lab.host.run(["loopnet", "cleanup"])
    assert listed(lab, "inet killswitch") == before


# --- watched -----------------------------------------------------------------------------------------


def opened(lab: Lab, table: str) -> bool:
    return "jump loopnet-input" in listed(lab, table)


def test_watch_opens_it_each_time_it_is_made_anew(clean: Stage) -> None:
    stage, lab = clean, clean.lab
    stage.trust("inet mullvad")
    stage.connect(switches.TUNNEL)
    took = []
    with watching(lab):
        time.sleep(1)
        for _ in range(10):
            stage.load(switches.mullvad(switches.TUNNEL))
            begin = time.monotonic()
            eventually(lambda: opened(lab, "inet mullvad"), 10)
            took.append(time.monotonic() - begin)
        stage.check(*LOCAL, OUT)
    # The longest is up to who else is busy on this machine.
    assert sorted(took)[5] < 1, f"no open table after 1 s, most times: {took}"


# --- leaks -------------------------------------------------------------------------------------------


def kind_of(frame: bytes) -> str:
    """What a guest's frame is, '' for others'."""
    if SECRET in frame:
        return "DNS"
    if frame[12:14] == b"\x86\xdd":
        return "IPv6" if TOKEN in frame else ""
    if IPv4Address(FAR) in ipv4_addresses(frame):
        return {1: "ICMP", 6: "TCP", 17: "UDP"}.get(frame[23], "other")
    return ""


ALL_KINDS = {"DNS", "ICMP", "TCP", "UDP", "IPv6"}


@contextmanager
def flood(stage: Stage, gate: threading.Event | None = None) -> Iterator[Flood]:
    """A guest sends all it can to the outside, over and over; while ``gate`` is set, if there is one."""
    guest = stage.world.one
    native = guest.network.model.mode == "native"
    dns = (str(guest.network.model.own_transit[-1]) if native else guest.gateway, 53)
    question = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + SECRET + b"\0\1\0\1"
    six = struct.pack("!IHBB", 6 << 28, len(TOKEN), 253, 64)
    six += b"".join(socket.inet_pton(socket.AF_INET6, each) for each in ("fd00:2::5", FAR6)) + TOKEN
    mac = bytes.fromhex(guest.network.model.bridge_mac.replace(":", ""))
    frame = mac + bytes.fromhex(guest.mac.replace(":", "")) + b"\x86\xdd" + six
    with datagram_socket(guest.namespace) as client, Capture(guest.namespace, "eth0") as wire:
        client.setblocking(False)
        ping = guest.namespace.call(
            lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        )
        ping.setblocking(False)

        def tcp() -> None:
            with guest.namespace.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as stream:
                stream.setblocking(False)
                stream.connect_ex((FAR, 443))

        echo = bytes.fromhex("0800f7fd00010001")
        with ping, Flood(
            lambda: gate.wait(5) if gate else None,
            lambda: client.sendto(TOKEN, (FAR, 9)),
            lambda: client.sendto(question, dns),
            lambda: client.sendto(question, (FAR, 53)),
            lambda: client.sendto(question, (stage.lab.router_address, 53)),
            lambda: ping.sendto(echo, (FAR, 0)),
            tcp,
            lambda: wire.send(frame),
        ) as flooding:  # fmt: skip
            yield flooding


@pytest.fixture
def ipv6(stage: Stage) -> Iterator[None]:
    """The host is a router of IPv6 from the guests to the LAN, as an administrator may have it."""
    lab = stage.lab
    mac = lab.lan.sh("ip -br link show lan0").split()[2]
    lab.host.sh(
        "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding\n"
        "for dev in virbr1 uplink0; do echo 0 >/proc/sys/net/ipv6/conf/$dev/disable_ipv6; done\n"
        "ip address add fd00:2::1/64 dev virbr1 nodad; ip address add 2001:db8:9::1/64 dev uplink0 nodad\n"
        f"ip neighbour replace {FAR6} lladdr {mac} dev uplink0 nud permanent"
    )
    yield
    lab.host.sh(
        "echo 0 >/proc/sys/net/ipv6/conf/all/forwarding\n"
        "ip address del fd00:2::1/64 dev virbr1; ip address del 2001:db8:9::1/64 dev uplink0\n"
        "echo 1 >/proc/sys/net/ipv6/conf/virbr1/disable_ipv6"
    )


def test_without_a_kill_switch_all_of_it_is_on_the_lan(clean: Stage, ipv6: None) -> None:
    """Else nothing below would mean anything."""
    with Leaks(clean.lab.lan, "lan0", kind_of) as leaks, flood(clean):
        eventually(lambda: set(leaks.seen) == ALL_KINDS)


@pytest.mark.parametrize("name", switches.TABLES)
def test_not_one_packet_of_guests_leaves_by_the_lan(clean: Stage, ipv6: None, name: str) -> None:
    through = {"TCP", "UDP", "ICMP"}
    assert leaks_beside(clean, name, lambda gate: flood(clean, gate), kind_of, through) == {}


@pytest.mark.parametrize("name", switches.TABLES)
def test_what_the_doctor_advises_does_not_leak(clean: Stage, ipv6: None, name: str) -> None:
    """Its lines as they stand, while the tunnel is up, and while it is not."""
    stage, make, device = clean, switches.TABLES[name], switches.DEVICES[name]
    stage.load(make(""))
    follow(stage)
    stage.check(*LOCAL)
    assert quiet(stage)
    stage.connect(device)
    stage.load(make(device))
    follow(stage)
    stage.check(*LOCAL, OUT)
    assert quiet(stage)
    stage.disconnect()
    assert quiet(stage)


def follow(stage: Stage) -> None:
    found = findings(stage.lab)
    assert found
    for finding in found:
        stage.lab.host.sh("\n".join(finding["mend"]))
    assert findings(stage.lab) == []


def quiet(stage: Stage) -> bool:
    with Leaks(stage.lab.lan, "lan0", kind_of) as leaks, flood(stage):
        time.sleep(0.7)
    return leaks.seen == {}


# --- other kinds -------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["iptables-nft", "iptables-legacy"])
def test_ivpn(clean: Stage, tool: str) -> None:
    """iptables is spoken to unasked, and no further than the host itself gets."""
    stage, lab = clean, clean.lab
    lab.host.sh(switches.iptables(tool, switches.IVPN))
    try:
        assert stage.works(patience=SOON) <= {AMONG}
        stage.sync()
        stage.check(*LOCAL)
        assert quiet(stage)
        stage.connect(switches.IVPN_TUNNEL)
        lab.host.sh(switches.iptables(tool, switches.IVPN_CONNECTED))
        stage.sync()
        stage.check(*LOCAL, OUT)
        stage.disconnect()
        assert quiet(stage)
        lab.host.sh(switches.iptables(tool, switches.IVPN_DISCONNECTED))
        assert quiet(stage)
        stage.sync()
        assert quiet(stage)
    finally:
        lab.host.sh(
            "\n".join(
                f"{tool} -P {chain} ACCEPT; {tool} -F {chain}" for chain in ("INPUT", "OUTPUT", "FORWARD")
            )
        )
        lab.host.sh(f"{tool} -F; {tool} -X; loopnet sync")


def test_wg_quick(clean: Stage) -> None:
    """Its own table needs nothing of ours; its manual's kill switch is iptables', and about the host alone."""
    stage, lab = clean, clean.lab
    stage.connect("wg0")
    lab.host.run(
        ["nft", "-f", "-"],
        input="add table ip wg-quick-wg0\n"
        "add chain ip wg-quick-wg0 preraw { type filter hook prerouting priority -300; }\n"
        "add chain ip wg-quick-wg0 premangle { type filter hook prerouting priority -150; }\n"
        "add chain ip wg-quick-wg0 postmangle { type filter hook postrouting priority -150; }\n"
        f'add rule ip wg-quick-wg0 preraw iifname != "wg0" ip daddr {switches.HERE} fib saddr type != local drop\n'
        "add rule ip wg-quick-wg0 postmangle meta l4proto udp meta mark 51820 ct mark set meta mark\n"
        "add rule ip wg-quick-wg0 premangle meta l4proto udp meta mark set ct mark\n",
    )
    lab.host.sh(
        "iptables-nft -I OUTPUT ! -o wg0 -m mark ! --mark 51820 -m addrtype ! --dst-type LOCAL -j REJECT\n"
        "iptables-nft -P FORWARD DROP"  # as Docker has it
    )
    try:
        stage.sync()
        stage.check(*LOCAL, OUT)
        assert quiet(stage)
        stage.disconnect()
        assert quiet(stage)
        stage.sync()
        assert quiet(stage)
    finally:
        lab.host.sh(
            "nft delete table ip wg-quick-wg0; iptables-nft -P FORWARD ACCEPT; iptables-nft -F OUTPUT"
        )


def test_a_kill_switch_that_forgets_guests(clean: Stage) -> None:
    """wg-quick(8)'s alone, without Docker: guests go round it, and the doctor's command keeps them in."""
    stage, lab = clean, clean.lab
    stage.connect("wg0")
    lab.host.sh(
        "iptables-nft -I OUTPUT ! -o wg0 -m mark ! --mark 51820 -m addrtype ! --dst-type LOCAL -j REJECT"
    )
    try:
        stage.sync()
        found = json.loads(lab.host.run(["loopnet", "doctor", "--json"], check=False).stdout)
        (finding,) = [each for each in found if each["id"] == "firewall-around"]
        stage.disconnect()
        assert not quiet(stage)
        lab.host.sh(finding["command"])
        assert quiet(stage)
        stage.connect("wg0")
        stage.check(*LOCAL, OUT)
        assert "firewall-around" not in lab.host.run(["loopnet", "doctor", "--json"], check=False).stdout
    finally:
        lab.host.sh("nft delete table inet guests || :; iptables-nft -F OUTPUT")


def test_proton(clean: Stage) -> None:
    """A default route to nowhere holds for guests as well."""
    stage, lab = clean, clean.lab
    route = lab.host.sh("ip route show default").strip()
    lab.host.sh(
        "ip link add pvpnksintrf0 type bridge; ip link set pvpnksintrf0 up\n"  # not every kernel has dummies
        f"ip route del default; ip route add {route} metric 100; ip route add default dev pvpnksintrf0 metric 98"
    )
    try:
        assert findings(lab) == []
        with Leaks(lab.lan, "lan0", kind_of) as leaks, flood(stage):
            time.sleep(0.7)
        assert set(leaks.seen) <= {"DNS"}  # to the router itself, which is on the LAN, as the host's own
    finally:
        lab.host.sh(f"ip link delete pvpnksintrf0; ip route del default; ip route add {route}")


# --- what can't be -----------------------------------------------------------------------------------


def test_a_table_that_belongs_to_a_process(clean: Stage) -> None:
    """The kernel lets nobody else change it: networks start all the same, and the doctor says why."""
    stage, lab = clean, clean.lab
    stage.trust("inet owned")
    process = lab.host.popen(["nft", "-i"], stdin=subprocess.PIPE)
    try:
        assert process.stdin
        process.stdin.write(
            "add table inet owned { flags owner; }\n"
            "add chain inet owned input { type filter hook input priority 0; policy drop; }\n"
        )
        process.stdin.flush()
        eventually(lambda: "hook input" in lab.host.sh("nft list table inet owned || :"))
        assert stage.sync() == "nothing to do\n"
        third = lab.network(3)
        lab.start(third)
        lab.stop(third)
        assert "only the program it belongs to can change it" in stage.doctor()
    finally:
        process.kill()
        process.wait(10)


def test_a_table_that_is_not_there(clean: Stage) -> None:
    stage, lab = clean, clean.lab
    stage.trust("inet mullvad")
    assert stage.sync() == "nothing to do\n"
    third = lab.network(3)
    lab.start(third)
    lab.stop(third)
    assert "there is no such table now" in stage.doctor()


@pytest.mark.parametrize("value", ['"mullvad"', '"bridge mullvad"', '"ip loopnet"', '"inet a;b"'])
def test_a_setting_that_cannot_be(clean: Stage, value: str) -> None:
    lab = clean.lab
    lab.path(CONFIG).write_text(f"open-firewalls = [ {value} ]\n")
    before = lab.rules()
    done = lab.host.run(["loopnet", "sync"], check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "open-firewalls" in done.stderr
    assert lab.rules() == before
