"""The hook that guest-setup prints, run by real shells on a kernel's real addresses and routes."""

from __future__ import annotations

import errno
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from libvirt_loopnet.guests import setup

NIC = """
ip link set lo up
ip link add nic0 type veth peer nic1
ip link set nic1 up
ip link set nic0 up
ip address add 127.5.18.9/20 dev nic0
ip route add default via 127.5.16.1 dev nic0 metric 77
ip rule add to 203.0.113.0/24 table 51820
"""
"""An address as dhclient's script makes it, of scope host, and a rule: lo's 127/8 comes before table main."""

LOOK = """
ip -4 -j route show table local type unicast
ip -4 -j route get 127.5.18.1
ip -4 -j route get 198.51.100.1
ip -4 -j route get 127.6.0.1
cat /proc/sys/net/ipv4/conf/nic0/route_localnet
"""


class Seen:
    """What LOOK printed."""

    def __init__(self, text: str) -> None:
        *lines, self.localnet = text.splitlines()
        local, near, far, other = (json.loads(line or "[]") for line in lines)
        self.local: Any = [route["dst"] for route in local]
        self.near: Any = near[0]
        self.far: Any = far[0]
        self.other: Any = other[0]


def inside(script: str, shell: str = "dash") -> str:
    """Runs a script in a network of its own."""
    done = subprocess.run(
        ["unshare", "--net", shell, "-euc", script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def prepared(seen: Seen) -> bool:
    return (
        seen.local == ["127.5.16.0/20", "247.5.16.0/20"]
        and seen.near["dev"] == "nic0"
        and seen.near["prefsrc"] == "127.5.18.9"
        and seen.far["prefsrc"] == "127.5.18.9"
        and seen.other["dev"] == "lo"
        and seen.localnet == "1"
    )


def test_without_the_hook_it_is_needed() -> None:
    seen = Seen(inside(f"{NIC}{LOOK}"))
    assert not seen.local
    assert seen.near["dev"] == "lo"
    assert seen.far.get("prefsrc") != "127.5.18.9"
    assert seen.localnet == "0"


@pytest.mark.parametrize("shell", ["dash", "bash"])
@pytest.mark.parametrize("kind", ["ifupdown", "networkmanager"])
def test_hook(tmp_path: Path, shell: str, kind: str) -> None:
    hook = tmp_path / "hook"
    hook.write_text(setup.hook(kind))
    assert prepared(Seen(inside(f"{NIC}{shell} {hook} nic0 up\n{LOOK}", shell)))
    # dhclient and dhcpcd read it into their own shell; the second time there is nothing to do
    again = inside(f"{NIC}set +e\n. {hook}\n. {hook}\n{LOOK}", shell)
    assert prepared(Seen(again))


CONNECT = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"nic0")
    client.bind(("127.5.18.9", 68))
    sys.stdout.write(str(client.connect_ex(("127.5.31.254", 67))) + "\\n")
"""


def test_a_dhcp_client_speaks_from_its_lease_only_with_the_sysctl(tmp_path: Path) -> None:
    """As NetworkManager's does before it accepts the lease, and before any of its hooks."""
    script = tmp_path / "connect"
    script.write_text(CONNECT)
    connect = f"/usr/bin/python3 -I {script}\n"
    (setting,) = (line for line in setup.sysctl().splitlines() if not line.startswith("#"))
    key, _, value = setting.partition(" = ")
    switch = f"echo {value} >/proc/sys/{key.replace('.', '/')}\n"
    assert inside(f"{NIC}{connect}{switch}{connect}").split() == [str(errno.EINVAL), "0"]


def test_other_addresses_are_left_alone(tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text(setup.hook("ifupdown"))
    mapped = NIC.replace("127.5.", "10.5.")
    look = "ip -4 route show table all; ip -4 address; cat /proc/sys/net/ipv4/conf/*/route_localnet"
    before = inside(f"{mapped}{look}")
    assert inside(f"{mapped}sh {hook} nic0 up\n{look}") == before


def test_service_does_it_whenever_an_address_comes(tmp_path: Path) -> None:
    script = tmp_path / "service"
    script.write_text(setup.service_script())
    lines = NIC.strip().splitlines()
    comes, rest = "\n".join(lines[4:6]), "\n".join([*lines[:4], *lines[6:]])
    waiting = "until ip -4 route show table local type unicast | grep -q 127.5; do sleep 0.1; done"
    source = "until ip -4 route show default | grep -q src; do sleep 0.1; done"
    gone = "until ! ip -4 route show table local type unicast | grep -q 127.5; do sleep 0.1; done"
    begin = time.monotonic()
    text = inside(
        f"{rest}\nexec 3>&1\nsetsid sh {script} >/dev/null 3>&- & service=$!\nsleep 3\n"
        # again and again, since an address may go at any moment of the service's work
        f"for _ in 1 2 3 4 5 6 7 8; do\n{comes}\n{waiting}\n{source}\nip address flush dev nic0\n{gone}\ndone\n"
        f"{comes}\n{waiting}\n{source}\n"
        f"{LOOK}kill -- -$service"
    )
    assert prepared(Seen(text))
    assert time.monotonic() - begin < 50


def test_service_is_at_rest_when_nothing_happens(tmp_path: Path) -> None:
    """What it does itself must not wake it up for ever."""
    script = tmp_path / "service"
    script.write_text(setup.service_script())
    text = inside(
        f"{NIC}setsid sh {script} >/dev/null & service=$!\nsleep 4\n"
        "timeout 3 ip -4 -o monitor address route || true\nkill -- -$service"
    )
    assert text == ""
