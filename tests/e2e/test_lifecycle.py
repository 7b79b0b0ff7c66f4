"""Guests, networks and libvirtd come and go; addresses stay."""

from __future__ import annotations

import re
import subprocess
from typing import Callable, Dict, List

import pytest

from tests.sandbox import INTERNET, Guest
from tests.sandbox.world import World, network_xml, template, wait

MANY = 50


pytestmark = pytest.mark.usefixtures("cleaned")


def address(world: World, name: str, network: str = "loopnet") -> str:
    """The address under which a running guest is published."""
    return world.published()[f"{name}.{network}"]


def answers(world: World, where: str, name: str) -> bool:
    return world.page(where) == f"hello from {name}\n"


# --- the same address, whatever restarts ---


def restart_network(world: World) -> None:
    world.sandbox.virsh("net-destroy", "loopnet")
    world.sandbox.virsh("net-start", "loopnet")


def restart_libvirtd(world: World) -> None:
    world.sandbox.stop_libvirtd()
    world.sandbox.start_libvirtd()


def kill_libvirtd(world: World) -> None:
    world.sandbox.kill_libvirtd()
    world.sandbox.start_libvirtd()


def define_network_anew(world: World) -> None:
    world.sandbox.virsh("net-destroy", "loopnet")
    world.sandbox.virsh("net-undefine", "loopnet")
    world.define(template("loopnet"))
    world.sandbox.virsh("net-start", "loopnet")


def define_guest_anew(world: World) -> None:
    world.sandbox.virsh("undefine", "second")


EVENTS: Dict[str, Callable[[World], None]] = {
    "guest": lambda world: None,
    "network": restart_network,
    "libvirtd": restart_libvirtd,
    "libvirtd killed": kill_libvirtd,
    "network defined anew": define_network_anew,
    "guest defined anew": define_guest_anew,
}


@pytest.mark.parametrize("event", EVENTS)
def test_address_is_the_same_after_a_restart_of(world: World, event: str) -> None:
    world.start()
    guests = [world.still("first"), world.still("second")]
    before = address(world, "second")
    assert address(world, "first") != before
    for guest in guests:
        guest.destroy()
    EVENTS[event](world)
    # Alone and after the other: without reservations it would now get the other's address.
    world.still("second")
    assert address(world, "second") == before
    assert list(world.published()) == ["second.loopnet"]


def test_running_guest_survives_libvirtd(world: World, vm1: Guest) -> None:
    where, inside = address(world, "vm1"), vm1.address()
    rules = world.host.sh("nft --stateless list table bridge loopnet")
    for event in (restart_libvirtd, kill_libvirtd):
        event(world)
        assert answers(world, where, "vm1")
        assert world.resolve("vm1.loopnet") == [where]
        assert world.host.sh("nft --stateless list table bridge loopnet") == rules
    vm1.destroy()
    vm1.start()
    vm1.wait_boot()
    assert vm1.wait_lease() == inside
    assert answers(world, where, "vm1")


def test_network_restarts_under_a_running_guest(world: World, vm1: Guest) -> None:
    """libvirt plugs the guest in again when the daemon that runs guests restarts."""
    start_network(world, "beside", "127.10.0.", "10.127.10.")
    beside = world.still("vm2", ["beside"])
    where = address(world, "vm1")
    world.sandbox.virsh("net-destroy", "loopnet")
    assert list(world.published()) == ["vm2.beside"]
    world.sandbox.virsh("net-start", "loopnet")
    restart_libvirtd(world)
    wait(lambda: world.resolve("vm1.loopnet") == [where], "name")
    assert answers(world, where, "vm1")
    # The new dnsmasq began while /etc/hosts had a guest's loop address.
    assert vm1.resolve("vm1.loopnet") == [vm1.address()]
    assert vm1.resolve("vm2.beside") == []
    beside.destroy()
    end_network(world, "beside")


# --- guests on hold ---


def test_save_and_restore(world: World, vm1: Guest) -> None:
    where = address(world, "vm1")
    world.sandbox.virsh("save", "vm1", "/run/sandbox/saved")
    assert world.published() == {}
    other = world.still("other")
    world.sandbox.virsh("restore", "/run/sandbox/saved")
    assert answers(world, where, "vm1")
    assert vm1.run(f"wget -qO- http://{INTERNET}/").startswith("hello")
    world.sandbox.virsh("managedsave", "vm1")
    other.destroy()
    world.sandbox.virsh("start", "vm1")
    assert answers(world, where, "vm1")
    assert list(world.published()) == ["vm1.loopnet"]


def test_suspend_and_resume(world: World, vm1: Guest) -> None:
    where = address(world, "vm1")
    world.sandbox.virsh("suspend", "vm1")
    assert world.resolve("vm1.loopnet") == [where]
    ping = ["ping", "-q", "-c", "1", "-W", "1", where]
    assert world.host.run(ping, check=False).returncode == 1
    world.sandbox.virsh("resume", "vm1")
    assert answers(world, where, "vm1")


# --- more networks ---


def start_network(world: World, name: str, loop_prefix: str, guest_prefix: str) -> None:
    world.define(network_xml(name, loop_prefix, guest_prefix))
    world.sandbox.virsh("net-start", name)


def end_network(world: World, name: str) -> None:
    world.sandbox.virsh("net-destroy", name)
    world.sandbox.virsh("net-undefine", name)


def test_nic_is_plugged_in_and_out(world: World, vm1: Guest) -> None:
    start_network(world, "second", "127.5.0.", "10.127.5.")
    world.host.sh("virsh attach-interface vm1 network second --mac 52:54:00:aa:bb:01 --model virtio --live")
    assert vm1.wait_lease(1) == "10.127.5.2"
    assert address(world, "vm1", "second") == "127.5.0.2"
    assert answers(world, "127.5.0.2", "vm1")
    assert answers(world, "vm1.second", "vm1")
    assert world.page("127.5.0.2", "cgi-bin/peer") == "10.127.5.254\n"

    world.host.sh("virsh detach-interface vm1 network --mac 52:54:00:aa:bb:01 --live")
    wait(lambda: list(world.published()) == ["vm1.loopnet"], "end of the name")
    tables = world.host.sh("nft list table bridge loopnet")
    assert "52:54:00:aa:bb:01" not in tables
    assert answers(world, "vm1.loopnet", "vm1")
    end_network(world, "second")


def test_nic_is_plugged_out_and_in_again(world: World, vm1: Guest) -> None:
    """One that was there from the start, so that its MAC was tied to another tap."""
    where, leases = address(world, "vm1"), vm1.console().count("lease eth0")
    mac = vm1.macs[0]
    vm1.detach_nic(mac)
    wait(lambda: world.published() == {}, "end of the name")
    vm1.attach_nic("loopnet", mac)
    assert world.published() == {"vm1.loopnet": where}
    wait(lambda: vm1.console().count("lease eth0") == leases + 1, "new lease")
    assert answers(world, where, "vm1")


def test_guest_on_two_networks(world: World) -> None:
    world.start()
    start_network(world, "other", "127.6.0.", "10.127.6.")
    guest = world.sandbox.guest("vm1", ["loopnet", "other"])
    guest.start()
    guest.wait_boot()
    for nic, (network, host) in enumerate((("loopnet", "10.127.1."), ("other", "10.127.6."))):
        guest.wait_lease(nic)
        where = address(world, "vm1", network)
        assert answers(world, where, "vm1")
        assert world.page(where, "cgi-bin/peer") == f"{host}254\n"
        guest.run(f"ping -q -c 1 {host}1")
    assert guest.run(f"wget -qO- http://{INTERNET}/").startswith("hello")
    assert guest.resolve("vm1.loopnet", "10.127.1.1") == [guest.address()]
    assert guest.resolve("vm1.other", "10.127.6.1") == [guest.address(1)]
    # no network's DNS server has the loop addresses of another's guests
    assert guest.resolve("vm1.other", "10.127.1.1") == []
    assert guest.resolve("vm1.loopnet", "10.127.6.1") == []


def test_lo_is_kept(world: World) -> None:
    world.path("/etc/libvirt-loopnet.conf").write_text('lo = "keep"\n')
    lo = world.host.sh("ip address show dev lo")
    world.start()
    world.boot("vm1")
    assert world.host.sh("ip address show dev lo") == lo
    assert answers(world, address(world, "vm1"), "vm1")
    world.host.sh("ping -q -c 1 127.200.0.1")


def test_rules_are_flushed_and_a_guest_starts(world: World) -> None:
    """As some firewalls do when they restart."""
    world.start()
    world.still("old")
    world.host.sh(
        "nft delete table bridge loopnet; nft delete table arp loopnet; nft delete table ip loopnet"
    )
    world.boot("vm1")
    assert answers(world, address(world, "vm1"), "vm1")


@pytest.mark.parametrize("macs", ["other", "same"])
def test_two_networks_with_the_same_guest_prefix(world: World, macs: str) -> None:
    """Two guests with the same address, also with the same MAC, as clones have."""
    names, loop_prefixes = (f"left{macs}", f"right{macs}"), ("127.7.0.", "127.8.0.")
    for name, loop_prefix in zip(names, loop_prefixes):
        start_network(world, name, loop_prefix, "10.127.9.")
    second = 1 if macs == "same" else 2
    guests = [
        world.sandbox.guest(f"{macs}{number}", [network], macs=[f"52:54:00:aa:bb:{mac:02x}"])
        for number, network, mac in ((1, names[0], 1), (2, names[1], second))
    ]
    for guest in guests:
        guest.start()
    for guest in guests:
        guest.wait_boot()
        guest.wait_lease()
    left, right = (address(world, guest.name, guest.networks[0]) for guest in guests)
    assert (left, right) == ("127.7.0.2", "127.8.0.2")
    assert [guest.address() for guest in guests] == ["10.127.9.2", "10.127.9.2"]
    assert answers(world, left, guests[0].name)
    assert answers(world, right, guests[1].name)
    for guest in guests:
        assert guest.run(f"wget -qO- http://{INTERNET}/").startswith("hello")
    # Networks are apart, by whatever address of the other.
    for target in (right, right.replace("127.", "247.", 1)):
        assert unreachable(guests[0], target)


def unreachable(guest: Guest, target: str) -> bool:
    printed = guest.run(f"udp send {target} 7 hello 1; echo status $?")
    return printed.split()[-1] in ("1", "2")


# --- many at once ---


def test_fifty_guests_start_at_once(world: World) -> None:
    start_network(world, "crowd", "127.20.0.", "10.127.20.")
    names = [f"vm{number:02}" for number in range(MANY)]
    guests = [world.sandbox.guest(name, ["crowd"], memory_mib=32) for name in names]
    for_all(world, names, "virsh -q start --paused {}")
    published = world.published()
    assert sorted(published) == [f"{name}.crowd" for name in names]
    assert len(set(published.values())) == MANY
    elements = world.host.sh("nft list map bridge loopnet bound")
    assert len(set(re.findall(r"52:54:00(?::\w\w){3}", elements))) == MANY
    files = world.host.sh("cat /var/lib/libvirt/dnsmasq/crowd.loopnet/*").split()
    assert len(files) == MANY
    assert len({line.split(",")[1] for line in files}) == MANY
    aliases = world.host.sh("cat /sys/class/net/vnet*/ifalias").splitlines()
    assert sorted(aliases) == sorted(f"{name.split('.')[0]} {at}" for name, at in published.items())

    for_all(world, names, "virsh -q destroy {}")
    assert world.published() == {}
    rules = world.host.sh("nft list table bridge loopnet")
    assert [guest.name for guest in guests if guest.macs[0] in rules] == []
    assert "vnet" not in rules
    assert "vnet" not in world.host.sh("ip -o link")


def for_all(world: World, names: List[str], command: str) -> None:
    """Runs a command for each name, all at once; fails with all complaints."""
    started = [
        world.host.popen(["sh", "-c", command.format(name)], stderr=subprocess.STDOUT) for name in names
    ]
    complaints = [process.communicate(timeout=120)[0] for process in started]
    assert [text for text in complaints if text.strip()] == []
    assert {process.returncode for process in started} == {0}
