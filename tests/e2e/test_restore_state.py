"""Guests saved on another network come back on loopnet, where the configuration says so."""

from __future__ import annotations

import pytest

from tests.sandbox import INTERNET
from tests.sandbox.world import World, wait

SAVED = "/run/sandbox/saved"


pytestmark = pytest.mark.usefixtures("cleaned")


def nics(world: World) -> str:
    return world.sandbox.virsh("domiflist", "vm1")


def test_restored_onto_loopnet(world: World) -> None:
    world.sandbox.virsh("net-start", "default")
    guest = world.sandbox.guest("vm1", ["default"])
    guest.start()
    guest.wait_boot()
    assert guest.wait_lease().startswith("192.168.122.")
    world.sandbox.virsh("save", "vm1", SAVED)

    world.start()
    world.path("/etc/libvirt-loopnet.conf").write_text('move = [ "default:loopnet" ]\n')
    world.sandbox.virsh("restore", SAVED)
    assert "loopnet" in nics(world)
    assert "default" not in nics(world)
    assert list(world.published()) == ["vm1.loopnet"]
    where = world.published()["vm1.loopnet"]
    # The guest still holds the lease of the other network; it asks anew as after a link change.
    guest.run("p=$(cat /run/interface.eth0/pid); kill -USR2 $p; sleep 0.2; kill -USR1 $p")
    wait(lambda: "lease eth0 10.127.1." in guest.console(), "lease of loopnet")
    assert world.page(where) == "hello from vm1\n"
    assert guest.run(f"wget -qO- http://{INTERNET}/").startswith("hello")
    # What is defined is as it was: the move is the restored guest's.
    assert "network='default'" in world.sandbox.virsh("dumpxml", "--inactive", "vm1")


@pytest.mark.parametrize("move", ["", 'move = [ "other:loopnet" ]\n'])
def test_restored_where_it_was(world: World, move: str) -> None:
    world.sandbox.virsh("net-start", "default")
    world.start()
    guest = world.still("vm1", ["default"])
    world.path("/etc/libvirt-loopnet.conf").write_text(move)
    world.sandbox.virsh("save", guest.name, SAVED)
    world.sandbox.virsh("restore", SAVED, "--paused")
    assert "default" in nics(world)
    assert world.published() == {}


def test_broken_configuration_refuses_and_keeps_the_saved_guest(world: World) -> None:
    world.sandbox.virsh("net-start", "default")
    world.still("vm1", ["default"])
    world.sandbox.virsh("save", "vm1", SAVED)
    configuration = world.path("/etc/libvirt-loopnet.conf")
    configuration.write_text("move = [ nowhere ]\n")
    assert "/etc/libvirt-loopnet.conf:1: " in world.refusal("restore", SAVED, "--paused")
    configuration.unlink()
    world.sandbox.virsh("restore", SAVED, "--paused")
    assert world.running_guests() == ["vm1"]
