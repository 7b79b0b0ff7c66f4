"""A NIC's life by libvirt's network ports: whatever order their events come in, its address stays and works."""

from __future__ import annotations

import json
import re
from typing import Dict, Iterator, List, Tuple

import pytest

from tests.sandbox import Guest
from tests.sandbox.domain import VIRTIO, interface_xml
from tests.sandbox.world import World

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


@pytest.fixture(autouse=True)
def _cleaned(world: World) -> Iterator[None]:
    yield
    world.clean()


@pytest.fixture(scope="module", autouse=True)
def _recorder(world: World) -> Iterator[None]:
    """A hook beside ours that writes down what libvirt tells of ports."""
    path = world.path("/etc/libvirt/hooks/network.d/10-record")
    path.write_text(RECORDER)
    path.chmod(0o755)
    yield
    path.unlink()


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
    world.host.sh(f"ping -q -c 1 -W 2 {where}")
    assert world.page(where) == f"hello from {guest.name}\n"
    assert_no_drift(world)
    assert world.published()[f"{guest.name}.loopnet"] == where
    listed = json.loads(world.host.run(["loopnet", "list", "--json"]).stdout)
    assert [entry["state"] for entry in listed if entry["name"] == guest.name] == ["up"]


def assert_no_drift(world: World) -> None:
    assert world.host.run(["loopnet", "plan"], check=False).stdout == "nothing to do\n"


def setlink(world: World, guest: Guest, state: str) -> None:
    world.sandbox.virsh("domif-setlink", guest.name, guest.macs[0], state)


def update(world: World, guest: Guest, settings: str) -> None:
    """virsh update-device, with other elements in its <interface>."""
    live = world.sandbox.virsh("dumpxml", guest.name)
    mac, network = guest.macs[0], guest.networks[0]
    address = re.search(r"<address type='pci'[^>]*/>(?=\s*</interface>)", live)
    assert address, live
    xml = interface_xml(mac, network, f"{settings}{address[0]}")
    world.host.run(["virsh", "-q", "update-device", guest.name, "/dev/stdin", "--live"], input=xml)


def test_link_down_and_up(world: World) -> None:
    world.start()
    (guest,) = world.boot("vm1")
    where = world.published()["vm1.loopnet"]
    for _ in range(2):
        ports = Ports(world)
        setlink(world, guest, "down")
        assert ports.events() == ["created B", "deleted B"]
        assert_no_drift(world)
        setlink(world, guest, "up")
        assert ports.events() == ["created B", "deleted B", "created C", "deleted C"]
        assert ports.live() == ["A"]
        guest.run("until [ $(cat /sys/class/net/eth0/carrier) = 1 ]; do sleep 0.05; done")
        assert_well(world, guest, where)
    assert world.host.run(["loopnet", "sync"]).stdout == "nothing to do\n"


def test_link_is_down_at_the_start(world: World) -> None:
    world.start()
    guest = world.sandbox.guest("vm1", ["loopnet"], settings=[f"{VIRTIO}<link state='down'/>"])
    guest.start()
    guest.wait_boot()
    setlink(world, guest, "up")
    guest.wait_lease()
    assert_well(world, guest, world.published()["vm1.loopnet"])


BANDWIDTH = "<bandwidth><inbound average='100000'/><outbound average='100000'/></bandwidth>"
UPDATES: Dict[str, str] = {
    "as it is": VIRTIO,
    "link down": f"{VIRTIO}<link state='down'/>",
    "link up": f"{VIRTIO}<link state='up'/>",
    "bandwidth": f"{BANDWIDTH}{VIRTIO}",
    "no bandwidth": VIRTIO,
}


def test_updates(world: World) -> None:
    """libvirt has a new port for each, and keeps the old one or the new one."""
    world.start()
    (guest,) = world.boot("vm1")
    where = world.published()["vm1.loopnet"]
    for what, settings in UPDATES.items():
        ports = Ports(world)
        update(world, guest, settings)
        print(what, ports.events(), ports.live())
        assert len(ports.live()) == 1, what
        if what != "link down":
            guest.run("until [ $(cat /sys/class/net/eth0/carrier) = 1 ]; do sleep 0.05; done")
            assert_well(world, guest, where)
    guest.destroy()
    assert "52:54:00" not in world.host.sh("nft list table arp loopnet")
