"""Guests that virt-install, virt-clone and virsh make, copy and take back are at home on loopnet."""

from __future__ import annotations

from typing import Iterator

import pytest

from tests.sandbox import INTERNET, Guest
from tests.sandbox.tools import imported, known, tool
from tests.sandbox.world import World

DISK = "/run/sandbox/vm1.qcow2"


@pytest.fixture(autouse=True)
def _cleaned(world: World) -> Iterator[None]:
    yield
    world.clean()
    world.host.run(["loopnet", "release", "--dead", "--yes"])  # the next one begins with the first number


def new_disk(world: World) -> str:
    """An empty disk: snapshots and clones are of a disk, though the guest boots without."""
    world.host.run(["qemu-img", "create", "-q", "-f", "qcow2", DISK, "16M"])
    return DISK


def call_itself(guest: Guest, words: str) -> None:
    guest.run(f"echo {words} >/www/index.html")


def test_virt_install_import(world: World) -> None:
    world.start()
    guest = imported(world.sandbox, "vm1")
    guest.wait_boot()
    inside = guest.wait_lease()
    assert inside == "10.127.1.2"
    assert world.published() == {"vm1.loopnet": "127.1.0.2"}
    assert world.page("vm1.loopnet") == "hello from vm1\n"
    assert guest.run(f"wget -qO- http://{INTERNET}/").startswith("hello")
    # What libvirt's own commands say: the guest's own view.
    assert f" {inside}/24 " in world.sandbox.virsh("net-dhcp-leases", "loopnet", guest.macs[0])
    for source in ([], ["--source", "lease"]):
        assert f"{inside}/24" in world.sandbox.virsh("domifaddr", "vm1", *source)


def test_virt_clone(world: World) -> None:
    """The clone, which has its original's host name inside, gets a MAC and an address of its own."""
    world.start()
    original = imported(world.sandbox, "vm1", disk=new_disk(world))
    original.wait_boot()
    assert original.wait_lease() == "10.127.1.2"
    original.destroy()

    tool(world.sandbox, "virt-clone", "--original", "vm1", "--name", "vm2", "--auto-clone")
    definition = world.sandbox.virsh("dumpxml", "vm2").replace("/guests/vm1.", "/guests/vm2.")
    world.host.run(["virsh", "-q", "define", "/dev/stdin"], input=definition)
    clone = known(world.sandbox, "vm2")
    assert clone.macs != original.macs
    # The clone first: without a reservation it would now get its original's address.
    for guest, inside in ((clone, "10.127.1.3"), (original, "10.127.1.2")):
        guest.start()
        guest.wait_boot()
        assert guest.wait_lease() == inside
        call_itself(guest, guest.name)
    assert world.published() == {"vm1.loopnet": "127.1.0.2", "vm2.loopnet": "127.1.0.3"}
    for name in ("vm1", "vm2"):
        assert world.page(f"{name}.loopnet") == f"{name}\n"
    # By name in guests, too, whatever name each gave the DHCP server.
    assert original.resolve("vm2") == ["10.127.1.3"]
    assert clone.resolve("vm1") == ["10.127.1.2"]


def test_snapshots(world: World) -> None:
    """A guest goes back in time, with its memory, and nobody asks for an address."""
    world.start()
    disk = f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{new_disk(world)}'/>"
    guest = world.sandbox.guest("vm1", devices=disk + "<target dev='vda' bus='virtio'/></disk>")
    guest.start()
    guest.wait_boot()
    guest.wait_lease()
    where = world.published()["vm1.loopnet"]
    world.sandbox.virsh("snapshot-create-as", "vm1", "before")

    # While it runs; then once it is off and another has come meanwhile.
    for is_off in (False, True):
        call_itself(guest, "later")
        assert world.page(where) == "later\n"
        if is_off:
            guest.destroy()
            world.still("other")
        world.sandbox.virsh("snapshot-revert", "vm1", "before", "--running")
        assert world.published()["vm1.loopnet"] == where
        assert world.page(where) == "hello from vm1\n"
        assert guest.run(f"wget -qO- http://{INTERNET}/").startswith("hello")
    world.host.run(["loopnet", "status"])  # which fails if anything differs
