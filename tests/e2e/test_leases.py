"""Who asks libvirt for a guest's address gets the one that works on the host."""

from __future__ import annotations

import json
import re
import subprocess
from typing import List

import pytest

from tests.sandbox import Guest
from tests.sandbox.packages import provide
from tests.sandbox.world import NATIVE, World, template, wait

CONFIGURATION = "/etc/libvirt-loopnet.conf"
DIRECTORY = "/var/lib/libvirt/dnsmasq"


pytestmark = pytest.mark.usefixtures("cleaned")


def domifaddr(world: World, name: str) -> List[str]:
    """The IPv4 addresses that libvirt knows of a guest, by its leases."""
    return re.findall(r"ipv4\s+([0-9.]+)/", world.sandbox.virsh("domifaddr", name))


def leases(world: World, network: str = "loopnet") -> List[str]:
    return re.findall(r"ipv4\s+([0-9.]+)/", world.sandbox.virsh("net-dhcp-leases", network))


def loop_of(guest: Guest) -> str:
    return guest.address().replace("10.127.1.", "127.1.0.")


def listed(world: World, name: str, address: str) -> None:
    wait(lambda: domifaddr(world, name) == [address], f"{name} at {address}")


def configure(world: World, addresses: str) -> None:
    world.path(CONFIGURATION).write_text(f'lease-addresses = "{addresses}"\n')


def doctor(world: World) -> str:
    return world.host.run(["loopnet", "doctor", "--json"], check=False).stdout


def test_libvirt_lists_loop_addresses(world: World, vm1: Guest) -> None:
    (second,) = world.boot("vm2")
    for one in (vm1, second):
        listed(world, one.name, loop_of(one))
        assert world.page(loop_of(one)) == f"hello from {one.name}\n"
    assert sorted(leases(world)) == sorted([loop_of(vm1), loop_of(second)])
    assert world.published()["vm1.loopnet"] == loop_of(vm1)
    # in the guests' DNS, which dnsmasq makes of its leases, nothing changes
    assert second.resolve("vm1.loopnet") == [vm1.address()]
    second.run("killall -USR2 udhcpc")
    wait(lambda: leases(world) == [loop_of(vm1)], "the other's lease, given back")
    second.destroy()


CALLS = """\
import libvirt
connection = libvirt.open("qemu:///system")
found = connection.lookupByName("vm1").interfaceAddresses(libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE)
print(*[address["addr"] for nic in found.values() for address in nic["addrs"]])
network = connection.networkLookupByName("loopnet")
print(*[lease["ipaddr"] for lease in network.DHCPLeases()])
flags = libvirt.VIR_NETWORK_UPDATE_AFFECT_LIVE | libvirt.VIR_NETWORK_UPDATE_AFFECT_CONFIG
network.update(
    libvirt.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, libvirt.VIR_NETWORK_SECTION_IP_DHCP_HOST, -1,
    "<host mac='52:54:00:aa:00:30' name='crate' ip='127.1.0.30'/>", flags,
)
print(*["<name>vm1</name>" in port.XMLDesc() for port in network.listAllPorts()])
"""


def test_calls_of_programs(world: World, vm1: Guest) -> None:
    """As Terraform's provider, kcli, Vagrant and Ansible's inventory make them."""
    listed(world, "vm1", loop_of(vm1))
    addresses, leased, ports = world.host.run(["/usr/bin/python3", "-c", CALLS]).stdout.splitlines()
    assert addresses.split() == [loop_of(vm1)]
    assert loop_of(vm1) in leased.split()
    assert ports.split() == ["True"]
    crate = world.sandbox.guest("crate", macs=["52:54:00:aa:00:30"], memory_mib=32)
    crate.start(paused=True)
    wait(lambda: world.published().get("crate.loopnet") == "127.1.0.30", "the address reserved by a program")
    crate.destroy()


def test_neighbours_by_libvirt(world: World, vm1: Guest) -> None:
    """With Linux 6.18 libvirt 9.0 can't read them, of any network's guest: then it says so of the default one's."""
    world.page(loop_of(vm1))
    asked = neighbours(world, "vm1")
    if asked.returncode != 0:
        world.sandbox.virsh("net-start", "default")
        plain = world.sandbox.guest("plain", ["default"], memory_mib=32)
        plain.start(paused=True)
        assert "wrong nlmsg len" in asked.stderr
        assert neighbours(world, "plain").stderr == asked.stderr
        plain.destroy()
        world.sandbox.virsh("net-destroy", "default")
        pytest.xfail(f"libvirt can't read this kernel's neighbours: {asked.stderr.strip()}")
    assert re.findall(r"[\d.]+(?=/)", asked.stdout) == [loop_of(vm1)]


def neighbours(world: World, name: str) -> subprocess.CompletedProcess[str]:
    return world.host.run(["virsh", "-q", "domifaddr", name, "--source", "arp"], check=False)


def test_names_by_libvirts_own_modules(world: World, vm1: Guest) -> None:
    provide(world.sandbox, "libnss-libvirt")
    listed(world, "vm1", loop_of(vm1))
    for module in ("libvirt", "libvirt_guest"):
        asked = world.host.sh(f"getent -s hosts:{module} ahostsv4 vm1")
        assert set(re.findall(r"^\S+", asked, re.MULTILINE)) == {loop_of(vm1)}, module


def test_they_survive_restarts(world: World, vm1: Guest) -> None:
    address = loop_of(vm1)
    world.sandbox.stop_libvirtd()
    world.sandbox.start_libvirtd()
    assert domifaddr(world, "vm1") == [address]
    world.sandbox.virsh("net-destroy", "loopnet")
    world.sandbox.virsh("net-start", "loopnet")
    wait(lambda: leases(world) == [address], "the lease, told to the new dnsmasq")
    # libvirt plugs the guest in again; it renews with a dnsmasq that knows its lease
    world.sandbox.stop_libvirtd()
    world.sandbox.start_libvirtd()
    wait(lambda: world.resolve("vm1.loopnet") == [address], "name")
    assert vm1.resolve("vm1.loopnet") == [vm1.address()]
    assert domifaddr(world, "vm1") == [address]


def test_a_guest_that_gives_its_lease_back(world: World, vm1: Guest) -> None:
    listed(world, "vm1", loop_of(vm1))
    assert vm1.address()
    vm1.run("killall -USR2 udhcpc")
    wait(lambda: leases(world) == [], "no lease")
    vm1.run("killall -USR1 udhcpc")
    wait(lambda: leases(world) == ["127.1.0.2"], "the lease, taken again")
    wait(lambda: " 10.127.1.2/" in vm1.run("ip -4 address show dev eth0"), "the address set anew")


def test_switched_at_once(world: World, vm1: Guest) -> None:
    inside, address = vm1.address(), loop_of(vm1)
    listed(world, "vm1", address)
    for kind, expected in (("guest", inside), ("loop", address)):
        configure(world, kind)
        assert "dnsmasq" in world.host.sh("loopnet sync")
        wait(lambda: leases(world) == [expected], f"{kind} address alone")  # noqa: B023
        assert world.host.sh("loopnet sync") == "nothing to do\n"
    world.sandbox.virsh("net-destroy", "loopnet")
    configure(world, "guest")
    world.sandbox.virsh("net-start", "loopnet")
    wait(lambda: leases(world) == [inside], "guest address alone, after a start")
    world.path(CONFIGURATION).unlink()
    world.host.run(["loopnet", "sync"])
    world.sandbox.stop_libvirtd()
    world.sandbox.start_libvirtd()  # which plugs the guest in again
    listed(world, "vm1", address)


@pytest.mark.parametrize("damaged", ["{ nonsense", '{ "no": "list" }'])
def test_a_lease_survives_a_damaged_list(world: World, vm1: Guest, damaged: str) -> None:
    """The guest renews with the dnsmasq that runs, and with one that has read the damaged list."""
    inside, address = vm1.address(), loop_of(vm1)
    listed(world, "vm1", address)
    (status,) = (path for path in world.path(DIRECTORY).glob("*.status") if address in path.read_text())

    def renews() -> None:
        before = world.syslog().count(f"DHCPACK(virbr1) {inside} ")
        vm1.run("killall -USR1 udhcpc")
        wait(lambda: world.syslog().count(f"DHCPACK(virbr1) {inside} ") > before, "renewal")
        wait(lambda: f" {inside}/" in vm1.run("ip -4 address show dev eth0"), "the address set anew")
        assert world.page(address) == "hello from vm1\n"

    status.write_text(damaged)
    renews()
    status.write_text(damaged)
    world.sandbox.virsh("net-destroy", "loopnet")
    world.sandbox.virsh("net-start", "loopnet")
    world.sandbox.stop_libvirtd()
    world.sandbox.start_libvirtd()  # which plugs the guest in again
    renews()
    if damaged.startswith("{ nonsense"):  # libvirt's helper makes a new list in its place
        listed(world, "vm1", address)
    else:
        assert "libvirt's list lacks the change" in world.syslog()
        status.unlink()
        world.host.sh(
            "kill -HUP $(cat /run/libvirt/network/loopnet.pid)"
        )  # dnsmasq tells of all its leases again
        listed(world, "vm1", address)


def test_neither_a_damaged_list_nor_a_script_of_its_own_keeps_a_network_down(
    world: World, vm1: Guest
) -> None:
    """Libvirt's list is damaged; the definition has a dhcp-script already, which stays."""
    listed(world, "vm1", loop_of(vm1))
    world.sandbox.virsh("net-destroy", "loopnet")
    (status,) = (path for path in world.path(DIRECTORY).glob("*.status") if "127.1.0." in path.read_text())
    for damaged in ("{ nonsense", '{ "no": "list" }'):
        status.write_text(damaged)
        world.sandbox.virsh("net-start", "loopnet")
        world.sandbox.virsh("net-destroy", "loopnet")
    status.write_text("")
    world.sandbox.virsh("net-undefine", "loopnet")
    own = "<dnsmasq:option value='dhcp-script=/bin/true'/>\n  </dnsmasq:options>"
    world.define(template("loopnet").replace("</dnsmasq:options>", own))
    world.sandbox.virsh("net-start", "loopnet")
    assert "a dhcp-script of its own" in world.syslog()


def test_a_network_of_a_former_release_starts(world: World) -> None:
    begin = len(world.syslog())
    lines = template("loopnet").splitlines(keepends=True)
    world.define("".join(line for line in lines if "conf-file" not in line))
    world.sandbox.virsh("net-start", "loopnet")
    (guest,) = world.boot("vm1")
    inside = guest.address()
    listed(world, "vm1", inside)
    said = [line for line in world.syslog()[begin:].splitlines() if "will list guest addresses" in line]
    assert len(said) == 1
    (finding,) = [f for f in json.loads(doctor(world)) if f["id"] == "leases"]
    command = re.search(r"virsh net-dumpxml .*; virsh net-define new.xml", said[0])
    assert command, said
    assert finding["command"] == command.group()
    world.host.sh(f"cd /run/sandbox && {command.group()}; rm new.xml")
    world.sandbox.virsh("net-destroy", "loopnet")
    world.sandbox.virsh("net-start", "loopnet")
    wait(lambda: leases(world) == [loop_of(guest)], "loop address alone")
    assert '"leases"' not in doctor(world)


def test_native_guests_are_listed_as_ever(world: World) -> None:
    world.start(NATIVE)
    (guest,) = world.boot("vm1", kind=NATIVE)
    listed(world, "vm1", guest.address())
    assert not list(world.path(DIRECTORY).glob("*.loopnet-leases"))


def test_nothing_is_left_behind(world: World) -> None:
    world.start()
    assert len(list(world.path(DIRECTORY).glob("*.loopnet-*"))) == 3
    world.sandbox.virsh("net-destroy", "loopnet")
    assert not list(world.path(DIRECTORY).glob("*.loopnet*"))
