"""virsh net-update, which tools like Terraform use: what it asks for holds, or is refused in one line."""

from __future__ import annotations

import re
from typing import Iterator

import pytest

from tests.sandbox import CommandError, Guest
from tests.sandbox.world import World, wait

MAC = "52:54:00:00:00:77"
BOTH = ("--live", "--config")


@pytest.fixture(autouse=True)
def _cleaned(world: World) -> Iterator[None]:
    yield
    world.clean()
    world.host.sh("rm -f /var/lib/libvirt-loopnet/*.reservations")


def update(world: World, what: str, xml: str, *flags: str, how: str = "add") -> None:
    world.sandbox.virsh("net-update", "loopnet", how, what, xml, *flags)


def host(address: str, mac: str = MAC) -> str:
    return f"<host mac='{mac}' name='named' ip='{address}'/>"


def hosts_of_libvirt(world: World) -> str:
    """What libvirt itself tells dnsmasq of hosts."""
    return world.path("/var/lib/libvirt/dnsmasq/loopnet.hostsfile").read_text()


def listed(world: World) -> str:
    return world.sandbox.virsh("net-dumpxml", "loopnet")


def restart(world: World) -> None:
    world.sandbox.virsh("net-destroy", "loopnet")
    world.sandbox.virsh("net-start", "loopnet")


def test_host_is_a_reservation(world: World) -> None:
    """Before its guest's first start; by the address that people use, or by the guest's own."""
    world.start()
    update(world, "ip-dhcp-host", host("127.1.0.77"), *BOTH)
    assert world.host.run(["loopnet", "ip", "named"]).stdout == "127.1.0.77\n"
    guest = world.sandbox.guest("vm1", macs=[MAC])
    guest.start()
    guest.wait_boot()
    assert guest.wait_lease() == "10.127.1.77"
    assert world.published() == {"vm1.loopnet": "127.1.0.77"}
    assert world.page("vm1.loopnet") == "hello from vm1\n"
    assert guest.resolve("vm1") == ["10.127.1.77"]

    # In use it stays; the change counts from the next start on.
    update(world, "ip-dhcp-host", host("10.127.1.78"), *BOTH, how="modify")
    renew(guest)
    assert guest.address() == "10.127.1.77"
    assert world.page("vm1.loopnet") == "hello from vm1\n"
    guest.destroy()
    guest.start()
    guest.wait_boot()
    assert guest.wait_lease() == "10.127.1.78"
    assert world.page("127.1.0.78") == "hello from vm1\n"

    # libvirtd writes dnsmasq's files anew when it starts.
    seen = len(world.syslog())
    world.sandbox.kill_libvirtd()
    world.sandbox.start_libvirtd()
    wait(lambda: "dnsmasq" in world.syslog()[seen:] and not hosts_of_libvirt(world), "the hook")
    renew(guest)
    assert guest.address() == "10.127.1.78"
    assert guest.resolve("vm1") == ["10.127.1.78"]

    # What was given is for good.
    update(world, "ip-dhcp-host", host("10.127.1.78"), *BOTH, how="delete")
    assert "<host" not in listed(world)
    guest.destroy()
    restart(world)
    world.still("other")
    world.sandbox.virsh("start", "vm1", "--paused")
    assert world.published() == {"other.loopnet": "127.1.0.2", "vm1.loopnet": "127.1.0.78"}
    world.host.run(["loopnet", "status"])


def renew(guest: Guest) -> None:
    """Gives the lease back and asks for one."""
    before = guest.console().count("lease eth0")
    guest.run("p=$(cat /run/interface.eth0/pid); kill -USR2 $p; sleep 0.3; kill -USR1 $p")
    wait(lambda: guest.console().count("lease eth0") > before, "a new lease", 60)


def test_host_of_an_inactive_network(world: World) -> None:
    world.start()
    world.sandbox.virsh("net-destroy", "loopnet")
    update(world, "ip-dhcp-host", host("127.1.0.77"))
    world.check_unchanged()
    # By hand is refused now, lest the next start undo it.
    refused = world.host.run(["loopnet", "reserve", MAC, "127.1.0.78"], check=False)
    assert refused.returncode == 2
    assert re.search(
        r"127\.1\.0\.77 in its definition.*net-update loopnet modify.* --config$", refused.stderr
    )
    world.sandbox.virsh("net-start", "loopnet")
    world.sandbox.guest("vm1", macs=[MAC], memory_mib=32).start(paused=True)
    assert world.published() == {"vm1.loopnet": "127.1.0.77"}


def test_a_number_that_is_anothers_stays_anothers(world: World) -> None:
    world.start()
    world.still("first")
    update(world, "ip-dhcp-host", host("10.127.1.2"), *BOTH)
    world.sandbox.virsh("destroy", "first")
    world.sandbox.guest("vm1", macs=[MAC], memory_mib=32)
    assert re.search(r"127\.1\.0\.2 is reserved for first; .*release first", world.refusal("start", "vm1"))
    world.sandbox.virsh("start", "first", "--paused")
    assert world.published() == {"first.loopnet": "127.1.0.2"}
    # Nobody else's word for that address is left with dnsmasq.
    assert hosts_of_libvirt(world) == ""
    world.sandbox.virsh("destroy", "first")
    world.sandbox.virsh("net-destroy", "loopnet")
    assert "is reserved for first" in world.refusal("net-start", "loopnet")
    world.host.run(["loopnet", "release", "first"])
    world.sandbox.virsh("net-start", "loopnet")
    world.sandbox.virsh("start", "vm1", "--paused")
    assert world.published() == {"vm1.loopnet": "127.1.0.2"}


REFUSED = {
    "range": ("ip-dhcp-range", "<range start='127.1.0.100' end='127.1.0.110'/>", "has no effect"),
    "no MAC address": ("ip-dhcp-host", "<host name='x' ip='127.1.0.9'/>", "has no MAC address"),
    "elsewhere": (
        "ip-dhcp-host",
        "<host mac='52:54:00:00:00:99' ip='192.0.2.9'/>",
        "is in neither 127.1.0.0/24 nor 10.127.1.0/24",
    ),
    "the gateway's": (
        "ip-dhcp-host",
        "<host mac='52:54:00:00:00:99' ip='10.127.1.1'/>",
        "is the network's own address",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cant_be_followed(world: World, case: str) -> None:
    """A live network lets libvirt only log it; the doctor tells, and the next start refuses."""
    what, xml, says = REFUSED[case]
    world.start()
    world.still("before")
    update(world, what, xml, *BOTH)
    update(world, "ip-dhcp-host", host("127.1.0.50"), "--live")  # what comes beside it is followed
    world.sandbox.guest("vm1", macs=[MAC], memory_mib=32).start(paused=True)
    assert world.published() == {"before.loopnet": "127.1.0.2", "vm1.loopnet": "127.1.0.50"}
    wait(lambda: says in world.syslog(), "that in the log")
    printed = world.host.run(["loopnet", "doctor"], check=False).stdout
    assert says in printed
    (command,) = re.findall(rf"virsh net-update loopnet delete {what} \".*\" --live --config", printed)
    world.host.sh(command)
    assert world.host.run(["loopnet", "doctor"], check=False).stdout == "nothing is in the way\n"
    update(world, what, xml, "--config")
    assert command.replace("--live ", "") in world.host.run(["loopnet", "doctor"], check=False).stdout
    command = command.removesuffix(" --live --config")

    for name in ("before", "vm1"):
        world.sandbox.virsh("destroy", name)
    world.sandbox.virsh("net-destroy", "loopnet")
    refusal = world.refusal("net-start", "loopnet")
    assert says in refusal
    assert command in refusal
    world.check_unchanged()
    world.host.sh(command)
    with pytest.raises(CommandError, match=re.escape(says)):  # an inactive one is told at once
        update(world, what, xml)
    world.host.sh(command)
    world.sandbox.virsh("net-start", "loopnet")
    assert world.host.run(["loopnet", "doctor"], check=False).stdout.count(says) == 0


def test_names_of_dns(world: World) -> None:
    world.start()
    (guest,) = world.boot("vm1")
    entry = "<host ip='10.127.1.9'><hostname>printer</hostname></host>"
    update(world, "dns-host", entry, *BOTH)
    assert guest.resolve("printer.loopnet") == ["10.127.1.9"]
    assert guest.resolve("vm1") == [guest.address()]
    update(world, "dns-txt", "<txt name='about.loopnet' value='us'/>", *BOTH)  # dnsmasq is started anew
    assert guest.resolve("printer.loopnet") == ["10.127.1.9"]
    renew(guest)
    assert guest.resolve("vm1") == [guest.address()] == ["10.127.1.2"]
    update(world, "dns-host", entry, *BOTH, how="delete")
    assert guest.resolve("printer.loopnet") == []
    assert world.page("vm1.loopnet") == "hello from vm1\n"
