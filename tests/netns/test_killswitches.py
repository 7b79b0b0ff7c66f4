"""Beside VPNs with a kill switch: host and guests reach each other, guests get out by the tunnel, and never else."""

from __future__ import annotations

import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, IPv4Network

import pytest

from tests.sandbox import INTERNET, Namespace

from . import killswitches as switches
from .frames import ipv4_addresses
from .lab import Lab, eventually
from .test_firewalls import AMONG, CHECKS, DHCP, DNS, IN, OUT, PING, World, answers, findings, made
from .wire import Capture, Flood, Servers, ask_tcp, ask_udp, datagram_socket

CONFIG = "/etc/libvirt-loopnet.conf"
PORT = 7009
FAR = "198.18.7.7"
"""Where the floods go; nobody else sends there (RFC 2544)."""
FAR6 = "fd00:9::9"
TOKEN = b"@guest@"
SECRET = b"\x06secret\x07example\0"
LOCAL = {DHCP, DNS, PING, IN, AMONG}
SOON = 0.3


class Stage:
    """A host with a guest's world and a VPN, whose tunnel isn't up yet."""

    def __init__(self, world: World, vpn: Namespace) -> None:
        self.world, self.lab, self.vpn = world, world.lab, vpn
        self.up = ""

    def connect(self, device: str) -> None:
        switches.tunnel_up(self.lab, device)
        self.vpn.sh("ip route replace default dev eth0 || :")
        self.up = device

    def disconnect(self) -> None:
        switches.tunnel_down(self.lab, self.up)
        self.up = ""

    def load(self, script: str) -> None:
        self.lab.host.run(["nft", "-f", "-"], input=script)

    def trust(self, *tables: str) -> None:
        names = ", ".join(f'"{table}"' for table in tables)
        self.lab.path(CONFIG).write_text(f"open-firewalls = [ {names} ]\n")

    def sync(self) -> str:
        return self.lab.host.run(["loopnet", "sync"]).stdout

    def works(self, patience: float = 2.5) -> set[str]:
        """What works of all that guests and host need; by the tunnel, for what leaves."""
        checks = {**{name: CHECKS[name] for name in LOCAL}, OUT: self._out}
        return {name for name, works in checks.items() if answers(works, self.world, patience)}

    def _out(self, world: World, patience: float) -> None:
        for ask in (ask_udp, ask_tcp):
            assert ask(world.one.namespace, (INTERNET, PORT), timeout=patience)[1] == switches.HERE

    def doctor(self) -> str:
        return self.lab.host.run(["loopnet", "doctor"], check=False).stdout


@pytest.fixture(scope="module", params=["mapped", "native"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with Lab(request.param, bridge_nf=True, lan_prefix="192.168.7.0/24") as lab, Servers() as servers:
        lab.path("/etc/resolv.conf").write_text(f"nameserver {lab.router_address}\n")
        vpn = switches.vpn(lab)
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
    assert stage.works(SOON) <= {OUT, AMONG}
    assert f'open-firewalls = [ "{switches.NAMES[name]}" ]' in stage.doctor()
    stage.trust(switches.NAMES[name])
    assert switches.NAMES[name] in stage.sync()
    assert stage.works() == {*LOCAL, OUT}
    assert findings(stage.lab) == []
    assert stage.sync() == "nothing to do\n"
    # Without the tunnel guests have no internet, but all else.
    stage.disconnect()
    stage.load(make())
    stage.sync()
    assert stage.works(SOON) == LOCAL
    assert "the host's own traffic gets out by no interface" in stage.doctor()
    # Untouched is what it was, when the setting goes and when the network goes.
    stage.connect(device)
    stage.load(make(device))
    stage.sync()
    assert listed(stage.lab, switches.NAMES[name]) != before
    stage.trust()
    stage.sync()
    assert listed(stage.lab, switches.NAMES[name]) == before


def listed(lab: Lab, table: str) -> str:
    return lab.host.run(["nft", "list", "table", *table.split()]).stdout


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
