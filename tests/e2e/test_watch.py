"""``loopnet watch`` beside a running guest: what others undo is done again within a second."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.sandbox import Guest
from tests.sandbox.world import FLUSH_RULESET, World, wait

DAMAGES = {
    "all rules flushed": FLUSH_RULESET,
    "one rule deleted": "nft flush chain ip loopnet input",
    "the /8 is back": "ip address add 127.0.0.1/8 dev lo",
    "our routes are gone": "ip route flush table local proto 127",
    "lo down and up": "ip link set lo down; ip link set lo up",
    "our addresses are gone": "ip address del 247.1.0.1/32 dev virbr1; ip address del 127.1.0.254/24 dev virbr1",
    "bridge down and up": "ip link set virbr1 down; ip link set virbr1 up",
    "another MAC address on the bridge": "ip link set virbr1 address 52:54:00:66:66:66",
    "a sysctl reset by udev": "echo 0 >/proc/sys/net/ipv4/conf/virbr1/route_localnet; ip link set virbr1 mtu 1400",
}


@pytest.fixture(scope="module")
def guest(world: World) -> Guest:
    world.start()
    return world.boot("vm1")[0]


@pytest.fixture(scope="module")
def watch(world: World, guest: Guest) -> Iterator[subprocess.Popen[str]]:
    process = world.host.popen(["loopnet", "watch"])
    yield process
    process.terminate()
    assert process.wait(10) == 0


def is_well(world: World) -> bool:
    answer = world.host.run(["curl", "-sm", "5", "http://vm1.loopnet/"], check=False)
    plan = world.host.run(["loopnet", "plan"], check=False)
    return answer.stdout == "hello from vm1\n" and plan.returncode == 0


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_damage_is_mended(world: World, watch: subprocess.Popen[str], damage: str) -> None:
    wait(lambda: is_well(world), "good beginning")
    world.host.sh(DAMAGES[damage])
    wait(lambda: is_well(world), "repair", 20)
    assert watch.poll() is None


def test_a_hot_plugged_nic_is_bound(world: World, guest: Guest, watch: subprocess.Popen[str]) -> None:
    mac = guest.attach_nic("loopnet")
    bound = ["nft", "list", "map", "bridge", "loopnet", "bound"]
    wait(lambda: mac in world.host.run(bound).stdout, "the NIC in the rules", 20)
    guest.detach_nic(mac)
