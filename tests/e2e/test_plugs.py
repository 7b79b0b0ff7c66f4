"""Guests that run are on their network's bridge, whatever became of the network under them."""

from __future__ import annotations

import json
import re
import subprocess
import time
from typing import Dict, Iterator, List

import pytest

from tests.sandbox import Guest
from tests.sandbox.world import World, wait

ADDRESSES = {"vm1": "127.1.0.2", "vm2": "127.1.0.3"}
BRIDGE = "virbr1"
REFUSING = """\
#!/bin/sh
[ "$2" != port-created ] || { echo 'not today' >&2; exit 1; }
"""
ON_BRIDGE = """\
<interface type='bridge'>
  <mac address='{mac}'/><source bridge='{bridge}'/><model type='virtio'/>
  <rom enabled='no'/>
</interface>
"""


@pytest.fixture(scope="module")
def guests(world: World) -> List[Guest]:
    world.start()
    return world.boot(*ADDRESSES)


@pytest.fixture(autouse=True)
def _answering(world: World, guests: List[Guest]) -> Iterator[None]:
    """Each test begins with guests that answer, and ends so."""
    check_answers(world)
    yield
    check_answers(world)


def check_answers(world: World) -> None:
    for name, address in ADDRESSES.items():
        assert answers(world, address), f"{name} does not answer at {address}"
        assert world.page(f"{name}.loopnet") == f"hello from {name}\n"
    assert sorted(ports(world)) == ["vnet0", "vnet1"]
    assert "loopnet-" not in world.host.sh("ip -oneline link show type bridge")
    assert states(world) == {"vm1": "up", "vm2": "up"}
    assert is_well(world)


def is_well(world: World) -> bool:
    return world.host.run(["loopnet", "status"], check=False).returncode == 0


def answers(world: World, address: str, patience: int = 10) -> bool:
    return world.host.run(["ping", "-qc1", f"-W{patience}", address], check=False).returncode == 0


def ports(world: World) -> List[str]:
    return re.findall(rf"^\d+: (\S+): .* master {BRIDGE} ", world.host.sh("bridge link"), re.MULTILINE)


def states(world: World) -> Dict[str, str]:
    return {row["name"]: row["state"] for row in json.loads(world.host.sh("loopnet list --json"))}


def findings(world: World) -> Dict[str, str]:
    """What doctor says of guests that are not plugged in, with the command."""
    found = json.loads(world.host.run(["loopnet", "doctor", "--json"], check=False).stdout)
    return {row["what"]: row["command"] for row in found if row["id"] == "unplugged"}


def restart_network(world: World) -> None:
    world.sandbox.virsh("net-destroy", "loopnet")
    world.sandbox.virsh("net-start", "loopnet")


def spare(world: World) -> str:
    return f"loopnet-{world.sandbox.virsh('net-uuid', 'loopnet')[:7]}"


def test_doctor_and_status_name_them_and_sync_plugs_them_in(world: World, guests: List[Guest]) -> None:
    restart_network(world)
    assert ports(world) == []
    assert states(world) == {"vm1": "off", "vm2": "off"}
    lines = [f"guest {guest.name} ({guest.macs[0]}) runs and is not plugged into loopnet" for guest in guests]
    assert findings(world) == dict.fromkeys(lines, "loopnet sync")
    assert world.host.run(["loopnet", "doctor"], check=False).returncode == 1
    status = world.host.run(["loopnet", "status"], check=False)
    assert status.returncode == 1
    assert all(line in status.stdout for line in lines)

    told = world.host.sh("loopnet sync")
    assert all(f"guest {guest.name} ({guest.macs[0]}): plugged in again\n" in told for guest in guests)
    check_answers(world)
    assert findings(world) == {}
    assert world.host.sh("loopnet sync") == "nothing to do\n"


def test_guests_of_a_network_that_is_stopped(world: World, guests: List[Guest]) -> None:
    world.sandbox.virsh("net-destroy", "loopnet")
    assert states(world) == {"vm1": "off", "vm2": "off"}
    assert (
        world.host.sh("setpriv --reuid 65534 --regid 65534 --clear-groups loopnet list").count(" off\n") == 2
    )
    lines = [f"guest {g.name} ({g.macs[0]}) runs, and its network loopnet does not" for g in guests]
    assert findings(world) == dict.fromkeys(lines, "virsh net-start loopnet; loopnet sync")
    definition = world.sandbox.virsh("net-dumpxml", "loopnet")
    world.sandbox.virsh("net-undefine", "loopnet")
    assert states(world) == {"vm1": "off", "vm2": "off"}
    assert findings(world) == dict.fromkeys(lines, "define it again, as: loopnet define loopnet")
    world.define(definition)
    for command in findings(world).values():
        world.host.run(["sh", "-c", command], check=False)  # the second finds it active


def test_who_is_not_root_sees_the_same(world: World) -> None:
    nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups loopnet list"
    assert world.host.sh(nobody).count(" up\n") == 2
    restart_network(world)
    assert world.host.sh(nobody).count(" off\n") == 2
    world.host.sh("loopnet sync")


def test_a_link_that_is_down(world: World, guests: List[Guest]) -> None:
    """libvirt has it down, and nothing on the host shows it: the tap has its carrier."""
    mac, libvirt = guests[0].macs[0], ["virsh", "-q", "domif-setlink", "vm1"]
    world.host.run([*libvirt, mac, "down"])
    for who in ([], ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]):
        told = json.loads(world.host.run([*who, "loopnet", "list", "--json"]).stdout)
        seen = [(row["name"], row["state"], row["link"]) for row in told]
        assert seen == [("vm1", "up", "down"), ("vm2", "up", None)]
    assert re.findall(r" up +(\S+)\n", world.host.sh("loopnet list")) == ["down", "-"]
    assert "<text" in world.host.sh("loopnet graph | grep 'link down'")
    assert f"the link of guest vm1 ({mac}) down" in world.host.sh("loopnet status")
    (finding,) = json.loads(world.host.sh("loopnet doctor --json"))
    assert (finding["id"], finding["level"]) == ("link-down", "note")
    assert world.host.sh("loopnet sync") == "nothing to do\n"
    restart_network(world)
    world.host.sh("loopnet sync")
    assert states(world) == {"vm1": "up", "vm2": "up"}
    assert not answers(world, ADDRESSES["vm1"])
    world.host.sh(finding["command"])
    assert world.host.sh("loopnet doctor") == "nothing is in the way\n"
    check_answers(world)


@pytest.fixture
def watch(world: World) -> Iterator[subprocess.Popen[str]]:
    process = world.host.popen(["loopnet", "watch"])
    time.sleep(1)
    yield process
    process.terminate()
    assert process.wait(10) == 0


def test_watch_plugs_them_in_at_once(world: World, watch: subprocess.Popen[str]) -> None:
    for _ in range(3):
        restart_network(world)
        began = time.monotonic()
        for address in ADDRESSES.values():
            wait(lambda address=address: answers(world, address, 1), f"answer of {address}")  # type: ignore[misc]
        print(f"back after {time.monotonic() - began:.1f} s")
        wait(lambda: is_well(world), "peace")


def test_a_tap_taken_off_the_bridge(world: World) -> None:
    """libvirt lists its port all the time."""
    world.host.sh("ip link set vnet0 nomaster")
    assert len(world.sandbox.virsh("net-port-list", "loopnet").split()) == 2
    assert sorted(states(world).values()) == ["off", "up"]
    assert "plugged in again" in world.host.sh("loopnet sync")


def test_a_tap_put_on_the_bridge_by_hand(world: World) -> None:
    """Then libvirt has no port for it, no hook was told, and nobody lets it in."""
    restart_network(world)
    world.host.sh(f"ip link set vnet0 master {BRIDGE}; ip link set vnet1 master {BRIDGE}")
    assert states(world) == {"vm1": "off", "vm2": "off"}
    assert len(findings(world)) == 2
    world.host.sh("loopnet sync")


def test_one_that_can_not_be_plugged_in_is_named(world: World, guests: List[Guest]) -> None:
    hook = world.path("/etc/libvirt/hooks/network.d/60-refuse")
    hook.write_text(REFUSING)
    hook.chmod(0o755)
    restart_network(world)
    done = world.host.run(["loopnet", "sync"], check=False)
    hook.unlink()
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1
    for guest in guests:
        assert f"guest {guest.name} ({guest.macs[0]}): libvirt: " in done.stderr
        assert f"virsh shutdown {guest.name}, then virsh start {guest.name}" in done.stderr
    assert "loopnet-" not in world.host.sh("ip -oneline link show type bridge")
    assert states(world) == {"vm1": "off", "vm2": "off"}
    assert len(findings(world)) == 2
    world.host.sh("loopnet sync")


def test_who_was_killed_is_finished(world: World, guests: List[Guest]) -> None:
    """One guest is left on the spare bridge, the other nowhere."""
    restart_network(world)
    world.host.sh(f"ip link add {spare(world)} type bridge")
    xml = ON_BRIDGE.format(mac=guests[0].macs[0], bridge=spare(world))
    world.host.run(["virsh", "-q", "update-device", "vm1", "/dev/stdin"], input=xml)
    assert len(findings(world)) == 2
    world.host.sh("loopnet sync")


def test_a_spare_bridge_that_is_left_goes(world: World) -> None:
    for verb in ("sync", "cleanup"):
        world.host.sh(f"ip link add {spare(world)} type bridge; loopnet {verb}")
        assert "loopnet-" not in world.host.sh("ip -oneline link show type bridge")
    world.host.sh("loopnet sync")


def test_right_after_the_daemon_has_restarted(world: World) -> None:
    """It takes commands before it has found its guests again."""
    for _ in range(3):
        restart_network(world)
        world.sandbox.stop_libvirtd()
        world.sandbox.start_libvirtd(settled=False)
        world.host.sh("loopnet sync")
        check_answers(world)
