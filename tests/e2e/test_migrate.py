"""virsh migrate: a running guest keeps its address and its connections, or stays where it is."""

from __future__ import annotations

import os
import re
import socket
from typing import Iterator

import pytest

from tests.sandbox import INTERNET, Guest
from tests.sandbox.twohosts import TwoHosts


@pytest.fixture
def hosts() -> Iterator[TwoHosts]:
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    with TwoHosts() as made:
        made.source.start()
        yield made
        for world in (made.source, made.target):
            world.clean()


def start_network(hosts: TwoHosts) -> None:
    """On the target just as the source has it: the bridge's MAC address and all."""
    hosts.target.define(hosts.source.sandbox.virsh("net-dumpxml", "loopnet"))
    hosts.target.sandbox.virsh("net-start", "loopnet")


def test_guest_keeps_its_address(hosts: TwoHosts) -> None:
    start_network(hosts)
    source, target = hosts.source, hosts.target
    source.still("first")  # so that the target alone would give another number
    (guest,) = source.boot("vm1")
    where, inside = source.published()["vm1.loopnet"], guest.address()
    assert where == "127.1.0.3"
    refused = hosts.migrate("vm1", "--live", check=False)
    line = re.search(r"libvirt-loopnet: (.*)", refused)
    assert line, refused
    assert f"vm1 comes with {guest.macs[0]} on network loopnet" in line.group(1)
    assert line.group(1).endswith(f"loopnet reserve {guest.macs[0]} ADDRESS")
    assert source.page(where) == "hello from vm1\n"
    assert target.published() == {}

    target.host.run(["loopnet", "reserve", guest.macs[0], where])
    guest.run("echo I was there >/www/index.html")
    hosts.migrate("vm1", "--live", "--persistent", "--undefinesource")
    assert source.running_guests() == ["first"]
    assert source.published() == {"first.loopnet": "127.1.0.2"}
    assert target.published() == {"vm1.loopnet": where}
    assert target.page("vm1.loopnet") == "I was there\n"
    there = Guest(target.sandbox, "vm1", ["loopnet"], macs=guest.macs)
    assert there.address() == inside
    # The same gateway, so what the guest knows of it holds.
    assert there.run(f"wget -qO- http://{INTERNET}/").startswith("hello")
    with pytest.raises(OSError, match=r"No route to host|timed out"):  # by then, or still in the ARP cache
        source.host.call(lambda: socket.create_connection((where, 80), 10))
    for world in (source, target):
        world.host.run(["loopnet", "status"])


def test_number_that_is_taken(hosts: TwoHosts) -> None:
    (guest,) = hosts.source.boot("vm1")
    mac = guest.macs[0]
    assert "no network with matching name 'loopnet'" in hosts.migrate("vm1", "--live", check=False)
    start_network(hosts)
    hosts.target.still("resident")
    # Told from afar, as one would who has no shell there: libvirt takes it, the target's hook doesn't.
    entry = f"<host mac='{mac}' ip='127.1.0.2'/>"
    there = "qemu+tcp://192.0.2.2/system"
    add = ["virsh", "-q", "-c", there, "net-update", "loopnet", "add", "ip-dhcp-host", entry, "--live"]
    hosts.source.host.run(add)
    assert f"vm1 comes with {mac}" in hosts.migrate("vm1", "--live", check=False)
    by_hand = hosts.target.host.run(["loopnet", "reserve", mac, "127.1.0.2"], check=False)
    assert by_hand.returncode == 2
    assert "127.1.0.2 is reserved for resident; free it with" in by_hand.stderr
    assert hosts.target.published() == {"resident.loopnet": "127.1.0.2"}
    assert hosts.source.page("127.1.0.2") == "hello from vm1\n"

    hosts.target.sandbox.virsh("destroy", "resident")
    hosts.target.host.run(["loopnet", "release", "resident"])
    hosts.source.host.run([*add[:6], "delete", *add[7:]])
    hosts.source.host.run(add)
    hosts.migrate("vm1", "--live")
    assert hosts.target.published() == {"vm1.loopnet": "127.1.0.2"}
    assert hosts.target.page("127.1.0.2") == "hello from vm1\n"
