"""loopnet is removed under running guests: they go on, and the host is as before once their network stops."""

from __future__ import annotations

from typing import Iterator

import pytest

from tests.sandbox.world import NATIVE, World, template

LEFT = "/run/libvirt-loopnet-removed"
HOOKS = "/etc/libvirt/hooks"
STALE_HOSTS = """\
# libvirt-loopnet: begin (do not edit; names of running guests)
127.1.0.7 crashed.loopnet # libvirt-loopnet: guest
# libvirt-loopnet: end
"""


@pytest.fixture(autouse=True)
def _cleaned(world: World) -> Iterator[None]:
    yield
    world.sandbox.install_hooks()
    world.clean()


def left(world: World) -> str:
    return world.sandbox.host.sh(f"find /run {HOOKS} -name '*loopnet-removed*'")


def remove(world: World) -> str:
    done = world.sandbox.host.run(["loopnet", "uninstall-hooks"])
    assert done.stdout == "".join(f"removed {HOOKS}/{each}.d/50-loopnet\n" for each in ("network", "qemu"))
    return done.stderr


def test_guests_go_on(world: World) -> None:
    host = world.sandbox.host
    world.start()
    guest = world.boot("vm1")[0]
    address = world.published()["vm1.loopnet"]
    with world.pinged(address):
        said = remove(world)
        assert "still up: loopnet; their guests go on" in said
        assert said.rstrip().endswith("virsh net-destroy loopnet")

        # over a restart of the daemon, with one more guest, and by name
        world.sandbox.stop_libvirtd()
        world.sandbox.start_libvirtd()
        other = world.boot("vm2")[0]
        assert world.page("vm2.loopnet") == "hello from vm2\n"
        assert other.resolve("vm1.loopnet") == [guest.address()]

    other.destroy()
    guest.destroy()
    assert "vm1.loopnet" not in world.published()
    world.sandbox.virsh("net-destroy", "loopnet")
    assert left(world) == ""
    host.run(["loopnet", "install-hooks"])  # all but the hooks is as it was
    world.check_unchanged()


def test_it_does_not_start_again(world: World) -> None:
    """Neither this network nor another one of ours, whose guests would get nothing, of either mode."""
    world.start()
    world.define(template(NATIVE.name))
    world.sandbox.host.run(["loopnet", "define", "other"])
    remove(world)
    assert "libvirt-loopnet was removed; install it" in world.refusal("net-start", "other")
    world.sandbox.virsh("net-destroy", "loopnet")
    assert left(world) == ""
    for name in ("loopnet", "other", NATIVE.name):
        assert f"{name}.loopnet-dnsmasq" in world.refusal("net-start", name)
    for name in ("other", NATIVE.name):
        world.sandbox.virsh("net-undefine", name)


def test_it_comes_back(world: World) -> None:
    world.start()
    remove(world)
    assert left(world)
    assert "installed" in world.sandbox.host.sh("loopnet install-hooks")
    assert left(world) == ""
    guest = world.boot("vm1")[0]
    assert world.page(world.published()["vm1.loopnet"]) == "hello from vm1\n"
    guest.destroy()


def test_with_no_network_up_nothing_is_left(world: World) -> None:
    assert "still up" not in remove(world)
    assert left(world) == ""


def test_a_reboot_ends_it(world: World) -> None:
    world.start()
    remove(world)
    host = world.sandbox.host
    hosts = host.sh("cat /etc/hosts")
    host.sh(f"rm -r {LEFT}; cat >>/etc/hosts <<.\n{STALE_HOSTS}.")
    host.sh(f"for hook in {HOOKS}/*/*-removed; do $hook default start begin - </dev/null; done")
    assert left(world) == ""
    assert host.sh("cat /etc/hosts") == hosts
    assert "loopnet" not in host.sh("ls /var/lib/libvirt/dnsmasq | grep '[.]loopnet' || true")
