"""The command line against a real libvirt."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from typing import Any, Dict, Iterator, List, Sequence, Set

import pytest
from lxml import etree

from libvirt_loopnet.addresses.labels import dns_label
from tests import schema
from tests.sandbox.domain import derived_mac
from tests.sandbox.world import FLUSH_RULESET, NATIVE, World, network_xml, template

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
MAC = "52:54:00:11:22:33"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(autouse=True)
def _cleaned(world: World) -> Iterator[None]:
    yield
    world.clean()
    world.path("/etc/libvirt-loopnet.conf").unlink(missing_ok=True)
    for file in world.path("/var/lib/libvirt-loopnet").glob("*.reservations"):
        file.unlink()


def run(world: World, *arguments: str, prefix: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    return world.host.run([*prefix, "loopnet", *arguments], check=False, timeout=60)


def loopnet(world: World, *arguments: str, prefix: Sequence[str] = (), status: int = 0) -> str:
    """Standard output of a command that ends with ``status``."""
    done = run(world, *arguments, prefix=prefix)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def error(world: World, *arguments: str, status: int, prefix: Sequence[str] = ()) -> str:
    """The one line that a command fails with."""
    done = run(world, *arguments, prefix=prefix)
    assert (done.returncode, done.stdout) == (status, ""), done.stdout + done.stderr
    assert re.fullmatch(r"loopnet: .*\n", done.stderr), done.stderr
    return done.stderr


def rows(world: World, *, prefix: Sequence[str] = ()) -> List[Dict[str, Any]]:
    found: List[Dict[str, Any]] = json.loads(loopnet(world, "list", "--json", prefix=prefix))
    schema.check("list", found)
    return found


def status_json(world: World, status: int) -> Dict[str, Any]:
    found: Dict[str, Any] = json.loads(loopnet(world, "status", "--json", status=status))
    schema.check("status", found)
    return found


def held(world: World) -> Set[str]:
    """What the host holds, line by line."""
    return set(
        world.host.sh(
            "ip -4 -o address | sed 's/ *valid_lft.*//'; ip route show table local; cat /etc/hosts;"
            "for family in bridge arp ip; do nft --stateless list table $family loopnet; done"
        ).splitlines()
    )


def test_from_define_to_an_address(world: World) -> None:
    told = re.search(
        r"127\.1\.0\.0/24 \(they see 10\.127\.1\.0/24\) and (fd[0-9a-f:]+:)/64;", loopnet(world, "define")
    )
    assert told
    assert "there is a network 'loopnet' already" in error(world, "define", status=2)
    assert "overlaps" in error(world, "define", "x", "--loop-prefix", "127.1.0.0/16", status=2)
    loopnet(world, "define", "other", "--guest-prefix", "10.127.1.0/24", "--ipv6", "none")
    world.sandbox.virsh("net-start", "loopnet")
    names = ["guest", "dns_name", "network", "mac", "loop_address", "guest_address", "tap", "state"]
    assert loopnet(world, "list").split() == names
    guest = world.still("vm1")

    row = ["vm1", "vm1.loopnet", "loopnet", guest.macs[0], "127.1.0.2", "10.127.1.2", "vnet0", "up"]
    assert loopnet(world, "list").split() == names + row
    none: dict[str, list[str]] = {key: [] for key in ("also", "shared", "seen", "dropped", "published")}
    rest = {"name": "vm1", "ipv6_address": f"{told[1]}2", "link": None, **none, "why": None, "command": None}
    assert rows(world) == [{**dict(zip(names, row)), **rest}]
    for who in ("vm1", "VM1", "vm1.loopnet", guest.macs[0]):
        assert loopnet(world, "ip", who) == "127.1.0.2\n"
    assert "no guest 'vm2' has an address" in error(world, "ip", "vm2", status=1)
    assert loopnet(world, "plan") == "nothing to do\n"
    assert loopnet(world, "sync") == "nothing to do\n"

    found = status_json(world, 0)
    assert found["ok"] is found["rules"] is True
    assert found["drift"] == []
    assert found["hooks"] == {"network": "installed", "qemu": "installed"}
    assert found["lo"]["addresses"] == ["127.0.0.1/16"]
    assert found["lo"]["shrunk"] is True
    seen = [(n["name"], n["active"], n["loop_prefix"], n["up"]) for n in found["networks"]]
    assert seen == [("loopnet", True, "127.1.0.0/24", 1), ("other", False, "127.2.0.0/24", 0)]
    assert "shrunk from /8 while a network is active" in loopnet(world, "status")

    guest.destroy()
    assert [(row["tap"], row["state"]) for row in rows(world)] == [(None, "reserved")]
    world.sandbox.virsh("net-destroy", "loopnet")
    world.sandbox.stop_libvirtd()
    try:
        assert loopnet(world, "ip", "vm1") == "127.1.0.2\n"
        assert "drift:  none" in loopnet(world, "status")
        assert "without it only root can tell" in error(world, "list", status=5, prefix=NOBODY)
    finally:
        world.sandbox.start_libvirtd()
    world.sandbox.virsh("net-undefine", "loopnet")
    assert [row["loop_address"] for row in rows(world)] == [None]


def test_a_guest_with_two_nics(world: World) -> None:
    world.start()
    world.define(network_xml("second", "127.9.0.", "10.127.1."))
    world.sandbox.virsh("net-start", "second")
    world.still("Two_NICs", ["loopnet", "loopnet", "second"])
    for who in ("Two_NICs", "two-nics"):
        assert loopnet(world, "ip", who).split() == ["127.1.0.2", "127.1.0.3", "127.9.0.2"]
    assert loopnet(world, "ip", "two-nics-3") == "127.1.0.3\n"
    assert loopnet(world, "ip", "two-nics.second") == "127.9.0.2\n"
    assert {row["tap"] for row in rows(world)} == {"vnet0", "vnet1", "vnet2"}
    assert loopnet(world, "plan") == "nothing to do\n"


@pytest.mark.parametrize("name", ["x&y", "Büro <&> 2", "two  blanks", "☃"])
def test_guests_are_called_as_libvirt_calls_them(world: World, name: str) -> None:
    """Running, shut off, by root and others; one whose DNS name would be the same goes before it."""
    world.start()
    world.still(dns_label(name) or "snow").destroy()
    guest = world.still(name)
    label = rows(world)[1]["name"]
    for state in ("up", "reserved"):
        for prefix in ((), NOBODY):
            (row,) = (row for row in rows(world, prefix=prefix) if row["guest"] == name)
            assert (row["state"], row["mac"]) == (state, guest.macs[0])
            assert row["dns_name"] == (f"{label}.loopnet" if label else None)
            assert loopnet(world, "ip", name, prefix=prefix).split() == [row["loop_address"]]
            if label:
                assert loopnet(world, "ip", row["dns_name"], prefix=prefix).split() == [row["loop_address"]]
        assert f"\n{name}  " in loopnet(world, "list")
        if state == "up":
            guest.destroy()
    guest.undefine()
    assert [row["guest"] for row in rows(world) if row["mac"] == guest.macs[0]] == [None]


DRIFT = {
    "route": ("ip route del 127.1.0.0/24 table local", "ip route add unicast 127.1.0.0/24 "),
    "transit": ("ip route del 247.1.0.0/24 table local", "ip route add unicast 247.1.0.0/24 "),
    "lo": ("ip address add 127.0.0.1/8 dev lo", "ip address del 127.0.0.1/8 dev lo"),
    "lo again": ("ip link set lo down; ip link set lo up", "ip address del 127.0.0.1/8 dev lo"),
    "context": ("ip address del 10.127.1.1/24 dev {}", "ip address add 10.127.1.1/24 dev {}"),
    "sysctl": ("sysctl -qw net/ipv4/conf/{}/route_localnet=0", "sysctl -w net/ipv4/conf/{}/route_"),
    "rule": ("nft flush chain ip loopnet input", "chain input-127.1.0.0 {{"),
    "tables": (FLUSH_RULESET, "\ntable bridge loopnet {{"),
    "guest": ("nft flush map bridge loopnet unbound", "add element bridge loopnet unbound"),
    "names": ("sed -i /libvirt-loopnet:/d /etc/hosts", "# /etc/hosts: 127.1.0.2 vm1.loopnet"),
    "dnsmasq": ("rm /var/lib/libvirt/dnsmasq/loopnet.loopnet/*", "# for dnsmasq: /var/lib"),
}


def test_drift_is_seen_planned_and_mended(world: World) -> None:
    world.start()
    world.still("vm1")
    bridge = status_json(world, 0)["networks"][0]["bridge"]
    for what, (sabotage, step) in DRIFT.items():
        world.host.sh(sabotage.format(bridge))
        planned = loopnet(world, "plan", status=1)
        assert step.format(bridge) in planned, what
        assert loopnet(world, "plan", status=1) == planned, f"{what}: planning changed something"
        found = status_json(world, 1)
        assert found["ok"] is False, what
        assert found["drift"], what
        mended = loopnet(world, "sync").splitlines()
        assert mended == found["drift"], what
        assert loopnet(world, "plan") == "nothing to do\n", what
        assert status_json(world, 0)["ok"] is True, what


def test_what_doctor_prints(world: World) -> None:
    world.start()
    world.host.sh("ip route del 127.1.0.0/24 table local; ip address add 127.1.0.99/32 dev uplink0")
    found = json.loads(run(world, "doctor", "--json").stdout)
    world.host.sh("ip address del 127.1.0.99/32 dev uplink0")
    schema.check("doctor", found)
    assert {"drift", "address-taken"} <= {finding["id"] for finding in found}


def test_a_guest_leaves_no_drift_behind(world: World) -> None:
    world.start()
    guest = world.still("vm1")
    assert loopnet(world, "plan") == "nothing to do\n"
    guest.destroy()
    assert loopnet(world, "plan") == "nothing to do\n"


def test_the_planned_lines_are_commands(world: World) -> None:
    world.start()
    world.host.sh("ip route del 127.1.0.0/24 table local; ip address add 127.0.0.1/8 dev lo")
    world.host.sh(loopnet(world, "plan", status=1))
    assert loopnet(world, "plan") == "nothing to do\n"


def test_reserve_and_release(world: World) -> None:
    world.start()
    guest = world.sandbox.guest("vm1", memory_mib=32)
    said = loopnet(world, "reserve", "vm1", "127.1.0.77")
    assert said == "vm1 has 127.1.0.77 in network loopnet; the guest itself sees 10.127.1.77\n"
    assert loopnet(world, "ip", "vm1") == "127.1.0.77\n"
    loopnet(world, "reserve", MAC, "10.127.1.78")
    assert "is reserved for vm1" in error(world, "reserve", MAC, "127.1.0.77", status=2)
    assert "is the gateway's" in error(world, "reserve", MAC, "127.1.0.1", status=2)
    assert "is the host's" in error(world, "reserve", MAC, "127.1.0.254", status=2)
    assert "in no loopnet network" in error(world, "reserve", MAC, "127.8.0.1", status=2)
    assert "has no NIC in network loopnet" in error(world, "reserve", "x", "127.1.0.9", status=1)
    files = world.path("/var/lib/libvirt/dnsmasq/loopnet.loopnet")
    assert len(list(files.iterdir())) == 2

    guest.start(paused=True)
    assert world.published() == {"vm1.loopnet": "127.1.0.77"}
    loopnet(world, "reserve", "vm1", "127.1.0.77")
    refused = error(world, "reserve", "vm1", "127.1.0.79", status=2)
    assert "guest 'vm1' is running and has 127.1.0.77" in refused
    assert "guest 'vm1' is running" in error(world, "release", "vm1", status=2)
    guest.destroy()
    loopnet(world, "reserve", guest.macs[0], "127.1.0.79")
    assert loopnet(world, "release", "vm1") == "released 127.1.0.79 of vm1 in network loopnet\n"
    assert "no guest 'vm1' has a reservation" in error(world, "release", "vm1", status=1)
    assert [file.name for file in files.iterdir()] == [MAC.replace(":", "-")]


def test_a_reserved_address_is_what_the_guest_gets(world: World) -> None:
    world.start()
    world.boot("vm1")[0].destroy()
    loopnet(world, "reserve", "vm1", "10.127.1.42")
    guest = world.boot("vm1")[0]
    assert guest.address() == "10.127.1.42"
    assert world.page("127.1.0.42") == "hello from vm1\n"
    loopnet(world, "cleanup")
    loopnet(world, "sync")
    assert world.page("127.1.0.42") == "hello from vm1\n"


def test_an_address_in_two_networks(world: World) -> None:
    world.define(template("loopnet"))
    world.define(network_xml("twin", "127.9.0.", "10.127.1."))
    world.sandbox.guest("vm1", ["twin"], memory_mib=32)
    said = error(world, "reserve", "vm1", "10.127.1.9", status=2)
    assert "is in networks loopnet, twin; say which by the loop address: 127.1.0.9 or 127.9.0.9" in said
    loopnet(world, "reserve", "vm1", "127.9.0.9")
    assert "in network twin" in loopnet(world, "reserve", "vm1", "10.127.1.10")


def test_the_dead_are_released_on_request(world: World) -> None:
    world.start()
    world.still("alive")
    loopnet(world, "reserve", MAC, "127.1.0.9")
    world.still("dead").destroy()
    assert loopnet(world, "release", "--dead") == "nothing to do\n"
    world.sandbox.virsh("undefine", "dead")
    line = "127.1.0.3 of dead in network loopnet\n"
    assert loopnet(world, "release", "--dead", status=1) == f"would release {line}"
    assert len(rows(world)) == 3
    assert loopnet(world, "release", "--dead", "--yes") == f"released {line}"
    assert [row["loop_address"] for row in rows(world)] == ["127.1.0.2", "127.1.0.9"]
    world.still("second").destroy()
    world.sandbox.stop_libvirtd()
    try:
        assert "can't reach libvirt" in error(world, "release", "--dead", status=4)
    finally:
        world.sandbox.start_libvirtd()


def test_cleanup_and_back(world: World) -> None:
    world.start()
    guest = world.still("vm1")
    before = held(world)
    done = run(world, "cleanup")
    assert done.returncode == 0
    assert "nft: tables loopnet (bridge, arp, ip) deleted\n" in done.stdout
    assert "network loopnet is active, but does not work until you run: loopnet sync\n" in done.stderr
    left = world.host.sh(
        "ip route show table local proto 127; nft list tables; ip address show dev lo; cat /etc/hosts"
    )
    assert "127.0.0.1/8" in left
    assert "loopnet" not in left
    assert loopnet(world, "cleanup") == "nothing to do\n"
    assert rows(world)[0]["state"] == "off"  # on the bridge, and nobody lets it in
    loopnet(world, "status", status=1)
    loopnet(world, "sync")
    assert held(world) ^ before == set()
    guest.destroy()

    world.sandbox.virsh("net-destroy", "loopnet")
    world.host.sh("mkdir /var/lib/libvirt/dnsmasq/gone.loopnet")
    assert "dnsmasq: /var/lib/libvirt/dnsmasq/gone.loopnet\n" in loopnet(world, "cleanup")
    assert loopnet(world, "cleanup") == "nothing to do\n"


def test_a_bridge_that_is_gone(world: World) -> None:
    world.start()
    bridge = status_json(world, 0)["networks"][0]["bridge"]
    world.host.sh(f"ip link delete {bridge}")
    found = status_json(world, 1)
    assert found["networks"][0]["bridge_exists"] is False
    assert any(f"its bridge {bridge} is gone" in line for line in found["drift"])
    done = run(world, "sync")
    assert done.returncode == 4
    assert f"loopnet: network loopnet: its bridge {bridge} is gone" in done.stderr
    world.host.sh("virsh -q net-destroy loopnet; virsh -q net-start loopnet")
    assert loopnet(world, "plan") == "nothing to do\n"


def test_others_than_root_may_look(world: World) -> None:
    world.start()
    world.still("vm1")
    assert rows(world, prefix=NOBODY) == rows(world)
    assert loopnet(world, "ip", "vm1", prefix=NOBODY) == "127.1.0.2\n"
    assert "127.2.0.254" in loopnet(world, "define", "x", "--print-xml", prefix=NOBODY)
    diff = loopnet(world, "convert", "default", "--print-diff", prefix=NOBODY)
    assert '-  <forward mode="nat"/>\n' in diff
    for arguments in (["status"], ["plan"], ["sync"], ["cleanup"], ["release", "vm1"]):
        assert "needs root; run: sudo loopnet" in error(world, *arguments, status=5, prefix=NOBODY)
    world.host.sh("chmod 600 /run/libvirt/libvirt-sock")
    said = error(world, "define", "x", status=5, prefix=NOBODY)
    world.host.sh("chmod 777 /run/libvirt/libvirt-sock")
    assert "run this as root" in said


def test_what_the_host_lacks(world: World) -> None:
    world.start()
    world.still("vm1")
    for tool, package in (("nft", "nftables"), ("ip", "iproute2")):
        path = world.host.sh(f"readlink -f $(command -v {tool})").strip()
        world.host.sh(f"mount --bind /dev/null {path}")
        try:
            for verb in ("status", "plan", "sync", "publish vm1 8080:80"):
                said = error(world, *verb.split(), status=4)
                assert f"{tool} is not installed; install the package {package}" in said
            assert [row["published"] for row in rows(world)] == [
                []
            ]  # what failed is not tried by others later
            done = run(world, "cleanup")
            assert done.returncode == 4
            assert f"{tool} is not installed" in done.stderr
        finally:
            world.host.sh(f"umount {path}")
    loopnet(world, "sync")
    assert status_json(world, 0)["ok"] is True
    path = world.host.sh("readlink -f $(command -v dnsmasq)").strip()
    world.host.sh(f"mount --bind /dev/null {path}")
    try:
        (finding,) = json.loads(loopnet(world, "doctor", "--json", status=1))
        assert (finding["what"], finding["id"]) == ("dnsmasq is not installed", "program-missing")
    finally:
        world.host.sh(f"umount {path}")


def test_what_is_damaged(world: World) -> None:
    world.path("/etc/libvirt-loopnet.conf").write_text("lo = never\n")
    for verb in ("status", "plan", "sync"):
        assert "/etc/libvirt-loopnet.conf:1: lo can't be 'never'" in error(world, verb, status=2)
    assert loopnet(world, "cleanup") == "nothing to do\n"
    world.path("/etc/libvirt-loopnet.conf").unlink()
    world.start()
    file = world.path("/var/lib/libvirt-loopnet/loopnet.reservations")
    good = file.read_bytes() if file.exists() else b""
    file.write_bytes(b"# libvirt-loopnet")
    for arguments in (["list"], ["ip", "x"], ["status"], ["sync"], ["reserve", MAC, "127.1.0.5"]):
        assert "loopnet.reservations" in error(world, *arguments, status=4)
    loopnet(world, "cleanup")
    file.write_bytes(good) if good else file.unlink()
    loopnet(world, "sync")


def test_hooks_can_be_put_in_and_taken_out(world: World) -> None:
    hook = world.path("/etc/libvirt/hooks/network.d/50-loopnet")
    text = hook.read_text()
    assert loopnet(world, "install-hooks") == "nothing to do\n"
    assert loopnet(world, "uninstall-hooks").count("removed /etc/libvirt/hooks/") == 2
    assert status_json(world, 1)["hooks"] == {"network": "missing", "qemu": "missing"}
    assert "missing, run: loopnet install-hooks" in loopnet(world, "status", status=1)
    done = run(world, "install-hooks")
    assert "installed /etc/libvirt/hooks/network.d/50-loopnet\n" in done.stdout
    assert re.search(
        r"daemon: systemctl reload (libvirtd|virtnetworkd virtqemud)$", done.stderr, re.MULTILINE
    )
    assert hook.read_text() == text
    hook.write_text("#!/bin/sh\n")
    assert "is not libvirt-loopnet's" in error(world, "install-hooks", status=2)
    assert status_json(world, 1)["hooks"]["network"] == "foreign"
    hook.write_text(text)
    world.start()
    assert loopnet(world, "plan") == "nothing to do\n"


def test_convert_and_revert(world: World) -> None:
    before = world.sandbox.virsh("net-dumpxml", "--inactive", "default")
    shown = loopnet(world, "convert", "default", "--print-xml")
    assert 'guest-prefix="192.168.122.0/24"' in shown
    assert world.sandbox.virsh("net-dumpxml", "--inactive", "default") == before
    world.sandbox.virsh("net-start", "default")
    mac = derived_mac("vm1", 0)
    world.still("vm1", ["default"])
    said = loopnet(world, "convert", "default", "--loop-prefix", "127.122.0.0/24")
    assert "guests at 127.122.0.0/24 (they see 192.168.122.0/24)" in said
    assert "restart it with: loopnet convert default --restart" in said
    assert "cuts these guests off for some seconds: vm1" in said
    said = loopnet(world, "convert", "default", "--restart")
    assert "restarted; plugged in again: vm1\n" in said
    assert [(row["mac"], row["network"], row["state"]) for row in rows(world)] == [(mac, "default", "up")]
    assert loopnet(world, "plan") == "nothing to do\n"
    assert "default is already defined like that" in loopnet(world, "convert", "default")
    said = loopnet(world, "revert", "default", "--restart")
    assert "is defined as it was before its conversion\n" in said
    assert world.sandbox.virsh("net-dumpxml", "--inactive", "default") == before
    assert "was not converted" in error(world, "revert", "default", status=1)
    assert "virsh net-list" in error(world, "convert", "nowhere", status=1)
    assert loopnet(world, "plan") == "nothing to do\n"


def test_publish(world: World) -> None:
    """The LAN reaches a real guest, across restarts of the guest, its network and the daemon."""
    world.start()
    guest = world.boot("web")[0]
    there = f"http://{world.sandbox.host_address}:8080/"
    fetch = f"curl -sS --max-time 10 --retry 20 --retry-delay 1 --retry-all-errors {there}"

    def reached() -> bool:
        return "hello from web" in world.sandbox.lan.sh(f"{fetch} || true")

    def closed() -> bool:
        return world.sandbox.lan.run(["curl", "-s", "--max-time", "5", there], check=False).returncode != 0

    assert closed()
    said = loopnet(world, "publish", "web", "8080:80")
    assert said == "published port 80/tcp of web (127.1.0.2) at port 8080 of all addresses of this host\n"
    assert loopnet(world, "publish", "web", "8080:80") == said
    assert reached()
    assert "hello from web" in world.host.sh(f"curl -sS --max-time 10 {there}")
    assert rows(world)[0]["published"] == [
        {
            "protocol": "tcp",
            "host_address": None,
            "host_port": 8080,
            "guest_port": 80,
            "ports": 1,
            "from": None,
        }
    ]
    assert status_json(world, 0)["published"][0]["guest"] == "web"
    assert "port:   port 80/tcp of web (127.1.0.2) at port 8080 of all" in loopnet(world, "status")
    header, line = loopnet(world, "list").splitlines()
    assert header.split()[-1] == "published"
    assert line.split()[-1] == "8080:80/tcp"
    assert "0.0.0.0:8080→80/tcp" in words(loopnet(world, "graph"))

    world.sandbox.stop_libvirtd()
    world.sandbox.start_libvirtd()
    assert reached()
    guest.destroy()
    world.boot("web")
    assert reached()
    world.sandbox.virsh("destroy", "web")
    world.sandbox.virsh("net-destroy", "loopnet")
    assert closed()
    assert "dnat ip to" not in world.host.sh("nft list ruleset")
    assert "once its network is active" in loopnet(world, "status")
    world.sandbox.virsh("net-start", "loopnet")
    world.boot("web")
    assert reached()
    assert loopnet(world, "plan") == "nothing to do\n"

    said = loopnet(world, "unpublish", "web", "8080")
    assert said == "unpublished port 80/tcp of web (127.1.0.2) at port 8080 of all addresses of this host\n"
    assert closed()


def test_what_can_not_be_published(world: World) -> None:
    world.start()
    world.still("vm1")
    world.still("two", ["loopnet", "loopnet"])
    loopnet(world, "publish", "vm1", "8080:80")
    for arguments, status, says in (
        (("vm2", "1:1"), 1, "no guest 'vm2' has an address; start it once"),
        (("two", "1:1"), 2, "guest 'two' has 2 NICs; say which: 52:54:00:"),
        (("vm1", "80"), 2, "does not name a port to publish; write it as PORT:PORT"),
        (
            ("vm1", "8080:81"),
            2,
            "8080:80/tcp of vm1 in network loopnet already is; first run: loopnet unpublish vm1",
        ),
        (("two-4", "192.0.2.1:8080:80"), 2, "8080:80/tcp of vm1 in network loopnet already is"),
        (("vm1", "127.0.0.1:80:80"), 2, "reaches the guest already"),
    ):
        done = run(world, "publish", *arguments)
        assert (done.returncode, done.stdout) == (status, ""), done.stderr
        assert says in done.stderr.splitlines()[-1]
    for words_given, status, says in (
        ("vm1", 2, "give one publication, or --all"),
        ("vm1 80 --all", 2, "give one publication, or --all"),
        ("vm1 8081", 1, "no 8081 of guest 'vm1' is published; see: loopnet list"),
        ("vm1 8080:81", 1, "no 8080:81 of guest 'vm1' is published"),
        ("two --all", 1, "nothing of guest 'two' is published"),
    ):
        assert says in error(world, "unpublish", *words_given.split(), status=status)
    assert "needs root" in error(world, "publish", "vm1", "1:1", status=5, prefix=NOBODY)

    listener = world.host.call(lambda: socket.create_server(("0.0.0.0", 8090)))
    with listener:
        said = error(world, "publish", "vm1", "8090:80", status=2)
    assert "8090:80/tcp can't be published: a program has 0.0.0.0 port 8090/tcp" in said
    done = run(world, "publish", "vm1", "192.0.2.1:8091:80")
    assert "warning: 192.0.2.1 is not an address of this host now" in done.stderr
    assert loopnet(world, "plan") == "nothing to do\n"
    listener = world.host.call(lambda: socket.create_server(("", 8080), family=socket.AF_INET6))
    with listener:
        found = json.loads(run(world, "doctor", "--json").stdout)
    schema.check("doctor", found)
    told = {finding["id"]: finding["what"] for finding in found}
    assert "listens on 0.0.0.0 port 8080/tcp" in told["published-listener"]
    assert "192.0.2.1:8091:80/tcp" in told["published-address"]
    loopnet(world, "publish", "vm1", "8080:80/udp")
    assert "can be any of 8080:80/tcp, 8080:80/udp" in error(world, "unpublish", "vm1", "8080", status=2)
    assert "80/udp" in loopnet(world, "unpublish", "vm1", "8080/udp")
    assert loopnet(world, "unpublish", "vm1", "--all").count("unpublished ") == 2
    world.sandbox.virsh("destroy", "vm1")
    loopnet(world, "publish", "vm1", "8080:80")
    loopnet(world, "release", "vm1")
    assert "dnat ip to" not in world.host.sh("nft list ruleset")
    assert loopnet(world, "plan") == "nothing to do\n"


@pytest.mark.parametrize(
    ("address", "free"),
    [
        ("0.0.0.0", ["six for six"]),
        ("::", []),
        ("2001:db8:9::7", ["six for four", "four"]),
        ("::1", ["six", "six for six", "six for four", "four"]),
        ("127.0.0.1", ["six", "six for six", "six for four", "four"]),
    ],
)
def test_a_program_has_a_port_in_its_family_alone(world: World, address: str, free: List[str]) -> None:
    loopnet(world, "define", "six")
    loopnet(world, "define", "four", "--ipv6", "none")
    for name in ("six", "four"):
        world.sandbox.virsh("net-start", name)
        world.still(name, [name])
    given = {
        "six": (),
        "six for six": ("--from", "2001:db8:1::/64"),
        "six for four": ("--from", "192.0.2.0/24"),
    }
    world.host.sh("ip address replace 2001:db8:9::7/64 dev uplink0 nodad")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    dual = address == "::"
    server = lambda: socket.create_server((address, 8090), family=family, dualstack_ipv6=dual)  # noqa: E731
    published = []
    with world.host.call(server):
        for what in ("six", "six for six", "six for four", "four"):
            done = run(world, "publish", what.split()[0], "8090:80", *given.get(what, ()))
            if done.returncode == 0:
                published.append(what)
                assert loopnet(world, "doctor") == "nothing is in the way\n"
                loopnet(world, "unpublish", what.split()[0], "--all")
            else:
                six_alone = what == "six for six"
                where = "::" if dual and six_alone else "0.0.0.0" if dual else address
                assert f" can't be published: a program has {where} port 8090/tcp; stop " in done.stderr
                assert done.stderr.endswith("use another port\n") == six_alone
    assert published == free
    loopnet(world, "publish", "six", "8090:80")
    with world.host.call(server):
        told = {finding["id"] for finding in json.loads(run(world, "doctor", "--json").stdout)}
    told -= {"drift"}  # what a program has at localhost is left to it
    assert told == (set() if "six" in free else {"published-listener"})
    world.host.sh("ip address del 2001:db8:9::7/64 dev uplink0")


def test_a_guest_that_was_moved_to_another_network(world: World) -> None:
    """It keeps its MAC address, and what it has in the first network."""
    for name in ("one", "two"):
        loopnet(world, "define", name)
        world.sandbox.virsh("net-start", name)
    for name in ("one", "two"):
        guest = world.still("vm1", [name])
        guest.destroy()
    said = error(world, "publish", "vm1", "8090:80", status=2)
    assert "say which: vm1.one, vm1.two" in said
    assert "say which: vm1.one, vm1.two" in error(world, "publish", guest.macs[0], "8090:80", status=2)
    assert loopnet(world, "ip", f"{guest.macs[0]}.two") == "127.2.0.2\n"
    assert "(127.2.0.2)" in loopnet(world, "publish", "vm1.two", "8090:80")


def test_graph(world: World) -> None:
    """The picture shows what list shows, and how the host is connected."""
    empty = words(loopnet(world, "graph"))
    assert "no loopnet network is defined: loopnet define" in empty
    world.start()
    world.start(NATIVE)
    world.still("vm1")
    world.still("vm2", ["loopnet", "loopnet-native"])
    loopnet(world, "reserve", MAC, "127.1.0.77")
    loopnet(world, "define", "idle")
    text = loopnet(world, "graph")
    found = words(text)
    for row in rows(world):
        assert {row["name"] or row["mac"], row["loop_address"], row["guest_address"]} <= set(found)
        assert row["tap"] is None or row["tap"] in found
    bridges = [network["bridge"] for network in status_json(world, 0)["networks"] if network["active"]]
    for word in (
        "127.0.0.1/16", f"uplink0 {world.sandbox.host_address}/24", f"router {world.sandbox.router_address}",
        f"bridge {bridges[0]}, mapped, active", f"bridge {bridges[1]}, native, active", "247.1.0.77",
        "the host is 127.1.0.254", "the router is 10.127.1.1",
    ):  # fmt: skip
        assert word in found, word
    assert any(word.endswith(", mapped, not active") for word in found)
    shown = etree.fromstring(text.encode())
    dots = [dot.get("class") for dot in shown.iter(f"{SVG}circle")]
    assert sorted(map(str, dots)) == ["idle", "up", "up", "up"]

    assert loopnet(world, "graph", "-o", "/run/host.svg") == ""
    assert world.path("/run/host.svg").read_text() == text
    assert loopnet(world, "graph", prefix=NOBODY) == text
    assert "/nowhere/x.svg: no such file" in error(world, "graph", "-o", "/nowhere/x.svg", status=2)
    said = error(world, "graph", "-o", "/run/host.svg", status=5, prefix=NOBODY)
    assert "/run/host.svg: permission denied" in said
    world.path("/run/host.svg").unlink()
    world.clean()
    done = run(world, "graph")
    assert done.returncode == 0
    assert "4 addresses of networks that aren't defined any more are left out" in done.stderr


def words(svg: str) -> List[str]:
    """The texts in a picture."""
    return [
        "".join(map(str, element.itertext())) for element in etree.fromstring(svg.encode()).iter(f"{SVG}text")
    ]
