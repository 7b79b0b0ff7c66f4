"""A NIC's life by libvirt's network ports: whatever order their events come in, its address stays and works."""

from __future__ import annotations

import json
import re
from typing import Dict, Iterator, List, Sequence, Tuple

import pytest

from tests.sandbox import Guest
from tests.sandbox.domain import VIRTIO, interface_xml
from tests.sandbox.world import CommandError, World, wait

EVENTS = "/run/sandbox/events"
RECORDER = f"""\
#!/bin/sh
case $2 in port-*) ;; *) exit 0 ;; esac
xml=$(cat)
port=${{xml#*<networkport>}}
uuid=${{port#*<uuid>}}
echo "${{2#port-}} ${{uuid%%<*}}" >>{EVENTS}
"""
PORTS = "/run/libvirt/network/loopnet/ports"


pytestmark = pytest.mark.usefixtures("cleaned")


@pytest.fixture(scope="module", autouse=True)
def _recorder(world: World) -> Iterator[None]:
    """A hook beside ours that writes down what libvirt tells of ports."""
    path = world.path("/etc/libvirt/hooks/network.d/10-record")
    path.write_text(RECORDER)
    path.chmod(0o755)
    yield
    path.unlink()


Told = Tuple[List[str], List[str]]
"""The events of ports, and the ports that are left."""
KEPT: Told = (["created B", "deleted B"], ["A"])
REPLACED: Told = (["created B", "deleted A"], ["B"])
EITHER = (KEPT, REPLACED)
"""Where the NIC stays plugged in: the first is libvirt 9.0's way, the second 11.3's."""


class Ports:
    """The events since it was made: which ports came and went, "A" being the one that was there."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._names = {uuid: chr(ord("A") + n) for n, uuid in enumerate(self._live())}
        world.path(EVENTS).write_text("")

    def events(self) -> List[str]:
        """All of them, as "created B"."""
        return [f"{what} {self._name(uuid)}" for what, uuid in self._lines()]

    def live(self) -> List[str]:
        """The ports that libvirt has now."""
        return sorted(map(self._name, self._live()))

    def _lines(self) -> List[Tuple[str, str]]:
        lines = self._world.path(EVENTS).read_text().splitlines()
        return [(line.split()[0], line.split()[1]) for line in lines]

    def _live(self) -> List[str]:
        return [path.stem for path in sorted(self._world.path(PORTS).glob("*.xml"))]

    def _name(self, uuid: str) -> str:
        return self._names.setdefault(uuid, chr(ord("A") + len(self._names)))


def assert_well(world: World, guest: Guest, where: str) -> None:
    """It answers, at the first attempt, and nothing that looks at the host finds fault with it."""
    world.host.sh(f"ping -q -c 1 {where}")
    assert world.page(where) == f"hello from {guest.name}\n"
    assert_no_drift(world)
    assert world.published()[f"{guest.name}.loopnet"] == where
    listed = json.loads(world.host.run(["loopnet", "list", "--json"]).stdout)
    assert [entry["state"] for entry in listed if entry["name"] == guest.name] == ["up"]


def assert_no_drift(world: World) -> None:
    assert world.host.run(["loopnet", "plan"], check=False).stdout == "nothing to do\n"


def setlink(world: World, guest: Guest, state: str) -> None:
    world.sandbox.virsh("domif-setlink", guest.name, guest.macs[0], state)


def update(world: World, guest: Guest, settings: str, network: str = "") -> bool:
    """virsh update-device, with other elements in its <interface>; did libvirt take it?"""
    live = world.sandbox.virsh("dumpxml", guest.name)
    mac, network = guest.macs[0], network or guest.networks[0]
    address = re.search(r"<address type='pci'[^>]*/>(?=\s*</interface>)", live)
    assert address, live
    xml = interface_xml(mac, network, f"{settings}{address[0]}")
    argv = ["virsh", "-q", "update-device", guest.name, "/dev/stdin", "--live"]
    done = world.host.run(argv, input=xml, check=False)
    return done.returncode == 0


def test_link_down_and_up(world: World, vm1: Guest) -> None:
    where = world.published()["vm1.loopnet"]
    for _ in range(2):
        for state in ("down", "up"):
            ports = Ports(world)
            setlink(world, vm1, state)
            assert (ports.events(), ports.live()) in EITHER
            assert_no_drift(world)
        wait_for_carrier(vm1)
        assert_well(world, vm1, where)
    assert world.host.run(["loopnet", "sync"]).stdout == "nothing to do\n"


ISOLATED = f"<port isolated='yes'/>{VIRTIO}"
UPDATES: Dict[str, Tuple[str, Sequence[Told]]] = {
    # what: (elements, what libvirt may tell of ports)
    "as it is": (VIRTIO, EITHER),
    "link down": (f"{VIRTIO}<link state='down'/>", EITHER),
    "link up": (f"{VIRTIO}<link state='up'/>", EITHER),
    "isolated": (ISOLATED, [REPLACED]),
    "no more": (VIRTIO, [REPLACED]),
    "refused before any port is made": (f"{VIRTIO}<boot order='1'/>", [([], ["A"])]),
}


def test_updates(world: World, vm1: Guest) -> None:
    """libvirt has a new port for each, and keeps the old one or the new one."""
    where = world.published()["vm1.loopnet"]
    for what, (settings, expected) in UPDATES.items():
        ports = Ports(world)
        assert update(world, vm1, settings) != what.startswith("refused"), what
        assert (ports.events(), ports.live()) in expected, what
        if what != "link down":
            wait_for_carrier(vm1)
            assert_well(world, vm1, where)


def wait_for_carrier(guest: Guest) -> None:
    guest.run("until [ $(cat /sys/class/net/eth0/carrier) = 1 ]; do sleep 0.05; done")


def test_another_network_and_back(world: World, vm1: Guest) -> None:
    """The tap goes from bridge to bridge; no event but those of ports tells of it."""
    world.sandbox.virsh("net-start", "default")
    where = world.published()["vm1.loopnet"]
    ports = Ports(world)
    assert update(world, vm1, VIRTIO, network="default")
    assert world.published() == {}
    assert vm1.macs[0] not in world.host.sh("nft list table bridge loopnet")
    assert_no_drift(world)
    assert update(world, vm1, VIRTIO, network="loopnet")
    assert ports.events() == ["created B", "deleted A", "created C", "deleted B"]
    wait(lambda: world.host.run(["ping", "-qc1", "-W1", where], check=False).returncode == 0, "answer")
    world.host.run(["loopnet", "sync"])  # its tap, of which no event tells
    assert_well(world, vm1, where)
    world.sandbox.virsh("net-destroy", "default")


def test_restarts_of_libvirtd(world: World, vm1: Guest) -> None:
    """Between the two halves of a change of the link, and after it: libvirt tells of the port that is left."""
    where = world.published()["vm1.loopnet"]
    setlink(world, vm1, "down")
    ports = Ports(world)
    world.sandbox.kill_libvirtd()
    world.sandbox.start_libvirtd()
    assert ports.events() == ["created A"]
    assert_no_drift(world)
    setlink(world, vm1, "up")
    world.sandbox.stop_libvirtd()
    world.sandbox.start_libvirtd()
    wait_for_carrier(vm1)
    assert_well(world, vm1, where)


def test_a_nic_that_can_not_be_plugged_in(world: World, vm1: Guest) -> None:
    """QEMU has no place for it: its port comes and goes, and the other NIC with its MAC address stays."""
    where = world.published()["vm1.loopnet"]
    taken = f"{VIRTIO}<address type='pci' domain='0x0000' bus='0x00' slot='0x01' function='0x0'/>"
    argv = ["virsh", "-q", "attach-device", "vm1", "/dev/stdin", "--live"]
    for mac in (vm1.macs[0], "52:54:00:aa:bb:77"):
        ports = Ports(world)
        assert world.host.run(argv, input=interface_xml(mac, "loopnet", taken), check=False).returncode
        assert (ports.events(), ports.live()) == KEPT
    # beside its guest's own tap, which may send as any of the guest's NICs
    assert "aa:bb:77" not in world.host.sh("nft list set bridge loopnet macs")
    assert_well(world, vm1, where)


def test_updates_lose_nothing(world: World, vm1: Guest) -> None:
    """The link stays up all the time."""
    where = world.published()["vm1.loopnet"]
    with world.pinged(where):
        for number in range(20):
            assert update(world, vm1, ISOLATED if number % 2 else VIRTIO)
    assert_well(world, vm1, where)


def test_a_second_guest_with_the_same_mac_address(world: World, vm1: Guest) -> None:
    """It is refused, and told of the first, which notices nothing."""
    where, rules = world.published()["vm1.loopnet"], world.host.sh("nft --stateless list ruleset")
    copy = world.sandbox.guest("a copy", ["loopnet"], macs=vm1.macs)
    other = world.still("vm3")
    before = world.host.sh(
        "nft --stateless list ruleset; cat /etc/hosts /var/lib/libvirt-loopnet/*.reservations"
    )
    plug = interface_xml(vm1.macs[0], "loopnet", VIRTIO)
    with world.pinged(where):
        for name, argv, xml in (
            ("a copy", ["start", "a copy"], None),
            ("vm3", ["attach-device", "vm3", "/dev/stdin", "--live"], plug),
        ):
            done = world.host.run(["virsh", "-q", *argv], input=xml, check=False)
            assert done.returncode
            assert re.search(rf"{name}.*{vm1.macs[0]}.*guest 'vm1'.*virsh edit '?{name}", done.stderr), done
    now = world.host.sh(
        "nft --stateless list ruleset; cat /etc/hosts /var/lib/libvirt-loopnet/*.reservations"
    )
    assert now == before
    assert rules
    other.destroy()
    assert_well(world, vm1, where)
    # What the line advises: without a MAC address, libvirt makes one.
    xml = re.sub(r"<mac [^>]*/>", "", copy.xml())
    world.host.run(["virsh", "-q", "define", "/dev/stdin"], input=xml)
    world.sandbox.virsh("start", "a copy", "--paused")
    assert world.published()["a-copy.loopnet"] != where
    assert_well(world, vm1, where)
    # One that runs no more is in nobody's way.
    vm1.destroy()
    world.sandbox.virsh("destroy", "a copy")
    assert vm1.macs[0] not in world.host.sh("nft list ruleset"), "whatever was updated meanwhile"
    copy.define()
    world.sandbox.virsh("start", "a copy", "--paused")
    assert list(world.published().values()) == [where]


def test_link_is_down_at_the_start(world: World) -> None:
    world.start()
    guest = world.sandbox.guest("vm1", ["loopnet"], settings=[f"{VIRTIO}<link state='down'/>"])
    guest.start()
    guest.wait_boot()
    setlink(world, guest, "up")
    guest.wait_lease()
    assert_well(world, guest, world.published()["vm1.loopnet"])


def test_fifty_changes_beside_a_ping(world: World) -> None:
    """Nothing is lost but while the link is down."""
    world.start()
    guest, other = world.boot("vm1", "vm2")
    where, neighbour = (world.published()[f"{name}.loopnet"] for name in ("vm1", "vm2"))
    with world.pinged(neighbour):
        for number in range(50):
            if number % 2:
                setlink(world, guest, "down")
                setlink(world, guest, "up")
                wait_for_carrier(guest)
                world.host.run(["ping", "-q", "-c1", where])
            else:
                with world.pinged(where):
                    assert update(world, guest, ISOLATED if number % 4 else VIRTIO)
    for name, address in (("vm1", where), ("vm2", neighbour)):
        assert_well(world, guest if name == "vm1" else other, address)
    # What was spent is gone: the notes of two hundred ports would fill /run.
    assert len(world.host.sh("ls /run/libvirt-loopnet/loopnet").splitlines()) <= 8


def test_hosts_file_can_not_be_written(world: World) -> None:
    """As on NixOS: names are missing, and guests have all else."""
    world.start()
    world.host.sh("mount --bind /etc /etc; mount -o remount,ro,bind /etc")
    try:
        guest = world.sandbox.guest("vm1", ["loopnet"])
    except CommandError:  # libvirt keeps its definitions there
        world.host.sh("umount /etc; mount --bind /etc/hosts /etc/hosts; mount -o remount,ro,bind /etc/hosts")
        guest = world.sandbox.guest("vm1", ["loopnet"])
    try:
        guest.start()
        guest.wait_boot()
        guest.wait_lease()
        assert world.page("127.1.0.2") == "hello from vm1\n"
        assert world.published() == {}
        assert "/etc/hosts, for guests' names, can't be written" in world.syslog()
        done = world.host.run(["loopnet", "sync"], check=False)
        assert (done.returncode, done.stderr.count("\n")) == (4, 1)
        guest.destroy()
        world.sandbox.virsh("net-destroy", "loopnet")
        world.sandbox.virsh("net-start", "loopnet")
        guest.start()
    finally:
        world.host.sh("umount /etc/hosts 2>/dev/null || umount /etc")
    world.host.run(["loopnet", "sync"])
    assert world.published() == {"vm1.loopnet": "127.1.0.2"}
