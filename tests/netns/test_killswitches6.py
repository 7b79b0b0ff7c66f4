"""IPv6 beside VPNs with a kill switch: host and guests reach each other, guests get out by the tunnel, never else."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager

import pytest

from tests.sandbox import Namespace

from . import frames, frames6
from . import killswitches as switches
from .arena import INTERNET6, LAN6, PREFIX6
from .lab import Lab, LabGuest, eventually
from .test_ipv6 import GATEWAY, add_uplink, asks, own_address, pings, slaac
from .vpn import CONFIG, ROUNDS, Leaks, VpnHost, leaks_beside, listed
from .wire import PATIENCE, Capture, Flood

FAR = "2001:db8:77::7"
"""Where the floods go; it is nowhere, and the default route leads there."""
TOKEN = b"@guest6@"
PORT = 7009
DNS, LEASE, PING, IN = "DNS", "DHCPv6", "ping of the gateway", "host to guest"
AMONG, OUT = "guest to guest", "guest to internet"
LOCAL = {DNS, LEASE, PING, IN, AMONG}
SOON = 2.5


class Stage(VpnHost):
    """A host with IPv6 in its LAN and in its VPN, and two guests."""

    def __init__(self, lab: Lab, vpn: Namespace, one: LabGuest, two: LabGuest) -> None:
        super().__init__(lab, vpn)
        self.one, self.two = one, two

    def connect(self, device: str) -> None:
        super().connect(device)
        switches.tunnel_has_ipv6(self.lab, device)

    def disconnect(self) -> None:
        switches.ipv6_down(self.lab)
        super().disconnect()

    def check(self, *expected: str) -> None:
        """Fails unless just this works of all that guests and host need; by the tunnel, for what leaves."""
        assert self.works(expected) == {*expected}

    def works(self, expected: Collection[str] = ()) -> set[str]:
        """What works, each found out anew; what is expected to do so has the time that a busy machine may need."""
        for namespace in (self.one.namespace, self.two.namespace, self.lab.host):
            namespace.sh("ip -6 neighbour flush all")
        return {name for name, works in CHECKS.items() if works(self, PATIENCE if name in expected else SOON)}

    def doctor(self) -> list[dict[str, object]]:
        found = self.lab.host.run(["loopnet", "doctor", "--json"], check=False).stdout
        return [each for each in json.loads(found) if each["id"].startswith("firewall")]


def leases(stage: Stage, patience: float) -> bool:
    """An address is offered to who asks all DHCPv6 servers."""
    guest = stage.one
    own = str(frames.link_local(guest.mac))
    client = b"\0\1\0\x0a\0\3\0\1" + frames.mac(guest.mac)
    message = b"\1\0\0\7" + client + b"\0\3\0\x0c\0\0\0\1" + bytes(8)  # solicit, IA_NA (RFC 8415, 21.4)
    asked = frames6.udp((own, 546), ("ff02::1:2", 547), message)
    with Capture(guest.namespace, "eth0") as wire:
        wire.send(frames.ethernet(guest.mac, frames6.multicast_mac("ff02::1:2"), frames.IP6, asked))
        packed = ipaddress.IPv6Address(guest.ipv6).packed
        return wire.find(lambda frame: frame[62:63] == b"\2" and packed in frame, patience) is not None


def resolves(stage: Stage, patience: float) -> bool:
    """By UDP, and TCP gets through to the server."""
    question = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + b"\x09localhost\0\0\1\0\1"
    namespace = stage.one.namespace
    with contextlib.suppress(OSError), namespace.call(
        lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    ) as client:  # fmt: skip
        client.settimeout(patience)
        client.sendto(question, (GATEWAY, 53))
        namespace.call(lambda: socket.create_connection((GATEWAY, 53), patience)).close()
        return client.recv(512)[:2] == question[:2]
    return False


def reaches_internet(stage: Stage, patience: float) -> bool:
    """By the tunnel, and answers come back."""
    return asks(stage.one.namespace, INTERNET6, PORT, patience=patience) == switches.HERE6


CHECKS: dict[str, Callable[[Stage, float], bool]] = {
    DNS: resolves,
    LEASE: leases,
    PING: lambda stage, patience: pings(stage.one, GATEWAY, patience),
    IN: lambda stage, patience: pings(stage.lab, stage.one.ipv6, patience),
    AMONG: lambda stage, patience: pings(stage.one, stage.two.ipv6, patience),
    OUT: reaches_internet,
}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Lab("mapped", bridge_nf=True, lan_prefix="192.168.7.0/24") as lab:
        lab.host.sh("echo 1 >/proc/sys/net/bridge/bridge-nf-call-ip6tables")
        add_uplink(lab)
        lab.path("/etc/resolv.conf").write_text(f"nameserver {lab.router_address}\n")
        # a kill switch may stop neighbour discovery, too
        router = lab.lan.sh("ip -br link show lan0").split()[2]
        lab.host.sh(
            f"ip -6 neighbour replace {LAN6} lladdr {router} dev uplink0 nud permanent; ip netns add vpn"
        )
        vpn = lab.namespace("vpn")
        vpn.sh(f"ip link set lo up; ip address add {INTERNET6}/128 dev lo nodad")
        network = lab.network(1, ipv6=PREFIX6)
        lab.start(network, dnsmasq=True)
        one, two = lab.guest(network), lab.guest(network)
        for guest in (one, two):
            own_address(guest)
            slaac(guest)
            guest.namespace.sh(f"ip -6 route replace default via {GATEWAY}")
        with telling(vpn, INTERNET6):
            yield Stage(lab, vpn, one, two)


@contextlib.contextmanager
def telling(namespace: Namespace, address: str) -> Iterator[None]:
    """A server there that says who asks."""
    server = namespace.call(lambda: socket.create_server((address, PORT), family=socket.AF_INET6))
    server.settimeout(0.1)
    end = threading.Event()

    def serve() -> None:
        while not end.is_set():
            with contextlib.suppress(OSError):
                connection, peer = server.accept()
                with connection:
                    connection.send(peer[0].encode())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join(5)
        server.close()


@pytest.fixture
def clean(stage: Stage) -> Iterator[Stage]:
    yield stage
    if stage.up:
        stage.disconnect()
    stage.lab.path(CONFIG).unlink(missing_ok=True)
    for table in ("inet mullvad", "inet nordvpn", "inet killswitch", "ip6 killswitch", "inet guests"):
        stage.lab.host.run(["nft", "delete", "table", *table.split()], check=False)
    stage.sync()


# --- opened ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", switches.TABLES)
def test_a_table_that_is_named_is_opened(clean: Stage, name: str) -> None:
    stage, make, device = clean, switches.TABLES[name], switches.DEVICES[name]
    table = switches.NAMES[name]
    stage.connect(device)
    stage.load(make(device))
    before = listed(stage.lab, table)
    assert PING not in stage.works() or name == "mullvad, LAN"
    assert [each["id"] for each in stage.doctor()] or name == "mullvad, LAN"
    stage.trust(table)
    stage.sync()
    stage.check(*LOCAL, OUT)
    assert stage.doctor() == []
    assert stage.sync() == "nothing to do\n"
    # Without the tunnel guests have no internet, but all else.
    stage.disconnect()
    stage.load(make(""))
    stage.sync()
    stage.check(*LOCAL)
    # Untouched is what it was, when the setting goes.
    stage.connect(device)
    stage.load(make(device))
    stage.trust()
    stage.sync()
    assert listed(stage.lab, table) == before


def test_a_table_for_ipv6_alone(clean: Stage) -> None:
    stage = clean
    script = switches.hand_written("wg0").replace("table inet killswitch", "table ip6 killswitch")
    script = "\n".join(line for line in script.splitlines() if "ip daddr" not in line)
    stage.connect("wg0")
    stage.load(script)
    before = listed(stage.lab, "ip6 killswitch")
    stage.check()
    lines = [str(each["command"]) for each in stage.doctor() if each["id"] == "firewall"]
    assert lines
    assert all('open-firewalls = [ "ip6 killswitch" ]' in line for line in lines)
    stage.trust("ip6 killswitch")
    stage.sync()
    stage.check(*LOCAL, OUT)
    stage.trust()
    stage.sync()
    assert listed(stage.lab, "ip6 killswitch") == before


EARLY = """\
table inet killswitch {{
	chain early {{
		type filter hook prerouting priority {priority}; policy drop;
		iif lo accept
		iifname {{ "uplink0", "wg0" }} accept
		ct state established accept
	}}
}}
"""


def test_a_chain_that_runs_before_conntrack(clean: Stage) -> None:
    """An accept of answers does nothing there, and of more there is none; doctor says so, and what helps does help."""
    stage = clean
    # With it, all that guests send is let in there, as it may be for each other.
    stage.lab.host.sh("echo 0 >/proc/sys/net/bridge/bridge-nf-call-ip6tables")
    stage.connect("wg0")
    stage.load(switches.hand_written("wg0"))
    stage.trust("inet killswitch")
    stage.sync()
    assert connects(stage)
    stage.lab.host.run(["nft", "-f", "-"], input=EARLY.format(priority=-300))
    stage.sync()
    assert not connects(stage, SOON)
    (finding,) = (each for each in stage.doctor() if each["id"] == "firewall")
    assert finding["what"] == "another firewall, inet killswitch early: policy drop"
    assert "the host doesn't reach guests by IPv6" in str(finding["consequence"])
    assert "priority above -200" in str(finding["command"])
    assert stage.sync() == "nothing to do\n"
    stage.lab.host.sh("nft flush chain inet killswitch early; nft delete chain inet killswitch early")
    stage.lab.host.run(["nft", "-f", "-"], input=EARLY.format(priority=-150))
    stage.sync()
    assert connects(stage)
    assert stage.doctor() == []
    stage.lab.host.sh("echo 1 >/proc/sys/net/bridge/bridge-nf-call-ip6tables")


def connects(stage: Stage, patience: float = PATIENCE) -> bool:
    """The host, to a guest, by TCP."""
    with stage.one.namespace.call(
        lambda: socket.create_server((stage.one.ipv6, PORT), family=socket.AF_INET6)
    ), contextlib.suppress(OSError):  # fmt: skip
        stage.lab.host.call(lambda: socket.create_connection((stage.one.ipv6, PORT), patience)).close()
        return True
    return False


# --- leaks -------------------------------------------------------------------------------------------


def kind_of(frame: bytes) -> str:
    """The number of the protocol of a guest's packet, '' of others'."""
    far = socket.inet_pton(socket.AF_INET6, FAR)
    is_guests = frame[12:14] == b"\x86\xdd" and (frame[38:54] == far or TOKEN in frame)
    return str(frame[20]) if is_guests else ""


ALL_KINDS = {str(kind) for kind in (frames.TCP, frames.UDP, frames.ICMP6, 253)}


@contextlib.contextmanager
def flood(stage: Stage, gate: threading.Event | None = None) -> Iterator[Flood]:
    """A guest sends all it can to the outside by IPv6, at its number's address and another, over and over."""
    guest = stage.one
    mac = guest.network.model.bridge_mac
    sources = (guest.ipv6, PREFIX6.replace("::/64", ":a:b:c:d"))
    sent = []
    for source in sources:
        syn = b"\x9c\x40\x01\xbb" + bytes(8) + b"\x50\x02\x20\0" + bytes(4)
        sent += [
            frames6.udp((source, 4000), (FAR, 9), TOKEN),
            frames6.udp((source, 4000), (FAR, 53), TOKEN),
            frames6.udp((source, 4000), (LAN6, 53), TOKEN),
            frames6.echo(source, FAR, TOKEN),
            frames6.packet(source, FAR, frames.TCP, syn, 16),
            frames6.packet(source, FAR, 253, TOKEN, 0),
        ]
    sent = [frames.ethernet(guest.mac, mac, frames.IP6, each) for each in sent]
    with Capture(guest.namespace, "eth0") as wire, Flood(
        lambda: gate.wait(5) if gate else None, *(lambda frame=frame: wire.send(frame) for frame in sent)
    ) as flooding:  # fmt: skip
        yield flooding


def quiet(stage: Stage) -> bool:
    with Leaks(stage.lab.lan, "lan0", kind_of) as leaks, flood(stage):
        time.sleep(0.7)
    return leaks.seen == {}


def test_without_a_kill_switch_all_of_it_is_on_the_lan(clean: Stage) -> None:
    """Else nothing below would mean anything."""
    with Leaks(clean.lab.lan, "lan0", kind_of) as leaks, flood(clean):
        eventually(lambda: set(leaks.seen) == ALL_KINDS)


@pytest.mark.parametrize("name", switches.TABLES)
def test_not_one_packet_of_guests_leaves_by_the_lan(clean: Stage, name: str) -> None:
    def flooding(gate: threading.Event) -> AbstractContextManager[Flood]:
        return flood(clean, gate)

    assert leaks_beside(clean, name, flooding, kind_of, ALL_KINDS, ROUNDS // 2) == {}


def test_what_the_doctor_advises_does_not_leak(clean: Stage) -> None:
    """Its lines as they stand, while the tunnel is up, and while it is not."""
    stage = clean
    stage.load(switches.hand_written(""))
    assert "the host doesn't reach guests by IPv6" in str(stage.doctor())
    follow(stage)
    stage.check(*LOCAL)
    assert quiet(stage)
    stage.connect("wg0")
    stage.load(switches.hand_written("wg0"))
    follow(stage)
    stage.check(*LOCAL, OUT)
    assert quiet(stage)
    stage.disconnect()
    assert quiet(stage)


def follow(stage: Stage) -> None:
    found = [str(each["command"]) for each in stage.doctor() if each["id"] == "firewall"]
    assert found
    for command in found:
        _, _, lines = command.partition("until the table is recreated: ")
        for line in lines.split("; "):
            stage.lab.host.run([*line.split(" ")[:1], line.partition(" ")[2]])
    assert [each for each in stage.doctor() if each["id"] == "firewall"] == []


# --- ip6tables ---------------------------------------------------------------------------------------

CLOSED = "for chain in INPUT OUTPUT FORWARD; do {tool} -P $chain DROP; done; {tool} -A OUTPUT -o lo -j ACCEPT"


@pytest.fixture(params=["ip6tables-nft", "ip6tables-legacy"])
def tool(request: pytest.FixtureRequest, clean: Stage) -> Iterator[str]:
    """One of them, as it was in the end."""
    name = str(request.param)
    yield name
    clean.lab.host.sh(
        f"for chain in INPUT OUTPUT FORWARD; do {name} -P $chain ACCEPT; done; {name} -F; {name} -X\n"
        + ("nft delete table ip6 filter" if name.endswith("nft") else "loopnet sync")
    )


def test_a_kill_switch_of_ip6tables(clean: Stage, tool: str) -> None:
    """As IVPN has it where it has no IPv6, and with a tunnel that has."""
    stage, lab = clean, clean.lab
    lab.host.sh(CLOSED.format(tool=tool))
    stage.sync()
    stage.check(*LOCAL)
    assert quiet(stage)
    stage.connect(switches.IVPN_TUNNEL)
    lab.host.sh(f"{tool} -A OUTPUT -o {switches.IVPN_TUNNEL} -j ACCEPT")
    stage.sync()
    stage.check(*LOCAL, OUT)
    assert quiet(stage)
    stage.disconnect()
    assert quiet(stage)


def test_a_kill_switch_that_forgets_guests(clean: Stage, tool: str) -> None:
    """wg-quick(8)'s: guests go round it, in IPv6 as in IPv4; the doctor says so, and its command keeps them in."""
    stage, lab = clean, clean.lab
    stage.connect("wg0")
    lab.host.sh(f"{tool} -I OUTPUT ! -o wg0 -m mark ! --mark 51820 -m addrtype ! --dst-type LOCAL -j REJECT")
    stage.sync()
    (finding,) = stage.doctor()
    assert finding["id"] == "firewall-around"
    assert "IPv6" in str(finding["what"])
    stage.disconnect()
    assert not quiet(stage)
    lab.host.sh(str(finding["command"]))
    assert quiet(stage)
    stage.connect("wg0")
    stage.check(*LOCAL, OUT)
    assert stage.doctor() == []
