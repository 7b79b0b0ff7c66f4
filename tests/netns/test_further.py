"""Addresses beside a NIC's first: reserved with --also and --shared, and those that are seen in use. By packets."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from typing import Any, Dict

import pytest

from libvirt_loopnet.ruleset.phrases import SEEN_SIZE
from tests import schema

from . import frames
from .arena import STRANGE_MAC
from .lab import STATE, Lab, LabGuest, eventually
from .test_senders import agrees, announce, answers, leave, loopnet, peer, silent, take
from .wire import Capture, Servers, ask_tcp

PORT = 7000
ALSO, SHARED = 77, 88


@pytest.fixture(params=["mapped-free", "mapped-own", "native-free", "native-own"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    mode, _, addresses = request.param.partition("-")
    with Lab(mode, addresses=addresses, bridge_nf=addresses == "own") as made:
        yield made


def listed(lab: Lab) -> Dict[str, Any]:
    """What list says, by MAC address."""
    printed = json.loads(loopnet(lab, "list", "--json"))
    schema.check("list", printed)
    return {entry["mac"]: entry for entry in printed}


def has(guest: LabGuest, number: int) -> LabGuest:
    """The guest, by another number of its own."""
    return guest._replace(number=number)


def test_also(lab: Lab) -> None:
    network = lab.network(1)
    lab.start(network)
    one, two = lab.guest(network), lab.guest(network)
    also = has(one, ALSO)
    said = loopnet(lab, "reserve", one.name, "--also", also.loop)
    assert said == (
        f"{one.name} has {also.loop} beside {one.loop} in network net1; set it in the guest: {also.address}\n"
    )
    assert loopnet(lab, "reserve", one.name, "--also", also.address) == said, (
        "the second time nothing changes"
    )
    take(one, ALSO)
    with Servers() as servers:
        for namespace in (lab.host, one.namespace, two.namespace):
            servers.both(namespace, ("0.0.0.0", PORT))
        for nic in (one, also):
            assert answers(lab, nic.loop) == one.mac
            assert ask_tcp(lab.host, (nic.loop, PORT))
            assert ask_tcp(two.namespace, (nic.address, PORT))
            assert peer(one, (one.gateway, PORT), nic.address) == nic.transit
            assert peer(one, (two.address, PORT), nic.address) == nic.address
        take(two, ALSO)
        announce(two, ALSO)
        assert lab.neighbours(lab.host)[also.loop] == one.mac
        leave(has(two, ALSO))
    agrees(lab)
    assert "  also" in loopnet(lab, "list").splitlines()[0]
    assert f">also {also.loop}<" in loopnet(lab, "graph")
    entry = listed(lab)[one.mac]
    assert (entry["also"], entry["shared"], entry["seen"], entry["dropped"]) == ([also.loop], [], [], [])
    assert loopnet(lab, "ip", one.name) == f"{one.loop}\n"
    assert loopnet(lab, "ip", "--all", one.name) == f"{one.loop}\n{also.loop}\n"
    assert ALSO not in lab.reserved(network).values(), "DHCP is told of the first alone"

    # It stays through the guest's restart, and is kept while the guest is off.
    lab.destroy(one)
    agrees(lab)
    lab.create_port(one)
    agrees(lab)
    lab.network_hook(network, "port-deleted", port=one.port_xml)
    three = lab.guest(network)
    take(three, ALSO)
    lab.host.run(["ip", "neighbour", "flush", "dev", network.model.bridge])  # where one was
    assert silent(lab, also.loop)
    loopnet(lab, "release", one.name, "--also", also.loop)
    lab.host.run(["ip", "neighbour", "flush", "dev", network.model.bridge])  # and what it asked in vain
    is_free = network.model.addresses == "free"
    assert answers(lab, also.loop) == three.mac if is_free else silent(lab, also.loop)
    leave(has(three, ALSO))
    agrees(lab)
    assert "also" not in loopnet(lab, "list").splitlines()[0]
    loopnet(lab, "release", one.name, "--also", also.loop, status=1)


def test_shared(lab: Lab) -> None:
    """ARP moves it from holder to holder; who isn't one can't take it, whoever holds it."""
    network = lab.network(1)
    lab.start(network)
    one, two, outsider = (lab.guest(network) for _ in range(3))
    vip = has(one, SHARED)
    said = loopnet(lab, "reserve", "--shared", vip.loop, one.name, two.name)
    assert f"shared with {two.name}" in said
    assert len(said.splitlines()) == 2
    agrees(lab)
    holders = [(one, two), (two, one), (one, two)]
    take(one, SHARED)
    with Servers() as servers:
        for guest in (one, two, outsider):
            servers.both(guest.namespace, ("0.0.0.0", PORT))
        for holder, other in holders:
            assert answers(lab, vip.loop) == holder.mac
            assert ask_tcp(outsider.namespace, (vip.address, PORT))
            assert peer(holder, (outsider.address, PORT), vip.address) == vip.address
            announce(outsider, SHARED)
            assert lab.neighbours(lab.host)[vip.loop] == holder.mac
            assert lab.neighbours(outsider.namespace).get(vip.address) in (holder.mac, None)
            leave(has(holder, SHARED))
            take(other, SHARED)
            announce(other, SHARED)
            eventually(lambda mac=other.mac: lab.neighbours(lab.host)[vip.loop] == mac)  # type: ignore[misc]
            assert ask_tcp(lab.host, (vip.loop, PORT))
            assert ask_tcp(outsider.namespace, (vip.address, PORT))
        entries = listed(lab)
        assert [entries[guest.mac]["shared"] for guest in (one, two, outsider)] == [
            [vip.loop],
            [vip.loop],
            [],
        ]
        assert entries[outsider.mac]["dropped"] == [vip.address], "it tried"

        # No holder any more: it is cut off there at once, and the other may go on.
        loopnet(lab, "release", "--shared", vip.loop, two.name)
        assert silent(lab, vip.loop)
        leave(has(two, SHARED))
        take(one, SHARED)
        announce(one, SHARED)
        eventually(lambda: answers(lab, vip.loop, 1) == one.mac)
        agrees(lab)
    loopnet(lab, "reserve", "--shared", vip.loop, two.name)
    loopnet(lab, "release", "--shared", vip.loop)
    assert [entry["shared"] for entry in listed(lab).values()] == [[], [], []]
    loopnet(lab, "release", "--shared", vip.loop, status=1)
    agrees(lab)


def test_what_is_dropped_is_seen_and_let_in(lab: Lab) -> None:
    """An address by hand, where each has its own; one of another prefix; and another guest's."""
    network = lab.network(1)
    lab.start(network)
    one, two = lab.guest(network), lab.guest(network)
    by_hand, own = take(one, ALSO), network.model.addresses == "own"
    assert silent(lab, by_hand.loop) if own else answers(lab, by_hand.loop) == one.mac
    announce(one, ALSO)
    announce(one, two.number)
    foreign(one, "192.0.2.77")
    entry = listed(lab)[one.mac]
    assert entry["dropped"] == sorted(
        [two.address, "192.0.2.77", *([by_hand.address] if own else [])], key=ipaddress.IPv4Address
    )
    assert entry["seen"] == ([] if own else [by_hand.loop])
    assert listed(lab)[two.mac]["dropped"] == []
    agrees(lab)
    text = loopnet(lab, "status")
    status = json.loads(loopnet(lab, "status", "--json"))
    schema.check("status", status)
    assert status["ok"]
    assert [each["address"] for each in status["dropped"]] == entry["dropped"]
    doctor = json.loads(lab.host.run(["loopnet", "doctor", "--json"], check=False).stdout)
    found = [each for each in doctor if each["id"] == "sender-dropped"]
    assert len(found) == len(entry["dropped"])
    command = f"loopnet reserve {one.name} --also {by_hand.loop}"
    assert any(command in each["command"] for each in found) == own
    assert (command in text) == own
    assert f"reserved for {two.name}" in text
    if own:
        assert f"or let it have both: {command}" in loopnet(lab, "reserve", one.name, by_hand.loop, status=2)
        lab.host.sh(command)
        # The host may still wait for an answer to what it asked in vain: a second (retrans_time_ms, arp(7)).
        eventually(lambda: answers(lab, by_hand.loop, 1) == one.mac)
        assert by_hand.address not in listed(lab)[one.mac]["dropped"]


def foreign(guest: LabGuest, source: str) -> None:
    """As a guest sends for others behind it, containers of its own for example."""
    with Capture(guest.namespace, "eth0") as wire:
        packet = frames.udp_packet((source, 4000), (guest.gateway, 9), b"?")
        wire.send(frames.ethernet(guest.mac, guest.network.model.bridge_mac, frames.IP, packet))


def test_a_flood_of_senders(lab: Lab) -> None:
    """What is remembered has its limit, beyond which all is dropped, and goes on, as before."""
    network = lab.network(1)
    lab.start(network)
    one, two = lab.guest(network), lab.guest(network)
    also = has(one, ALSO)
    loopnet(lab, "reserve", one.name, "--also", also.loop)
    first = int(ipaddress.IPv4Address("198.18.0.1"))
    with Capture(two.namespace, "eth0") as wire, Capture(one.namespace, "eth0") as victim:
        for number in range(3 * SEEN_SIZE):
            source = str(ipaddress.IPv4Address(first + number))
            packet = frames.udp_packet((source, 4000), (one.address, 9), b"flood")
            wire.send(frames.ethernet(two.mac, one.mac, frames.IP, packet))
            payload = frames.arp(frames.REQUEST, (two.mac, source), (frames.BROADCAST, one.address))
            wire.send(frames.ethernet(two.mac, frames.BROADCAST, frames.ARP, payload))
        assert not [frame for frame in iter(lambda: victim.next(0.2), None) if b"flood" in frame]
    elements = lab.host.sh("nft list set bridge loopnet seen-127.1.0.0").count("expires")
    assert 0.9 * SEEN_SIZE < elements <= SEEN_SIZE
    agrees(lab)
    assert len(listed(lab)[two.mac]["dropped"]) == elements
    assert f"  198.18.0.1 198.18.0.2 198.18.0.3 198.18.0.4 198.18.0.5 +{elements - 5}" in loopnet(lab, "list")
    told = lab.host.run(["loopnet", "doctor"], check=False).stdout
    assert told.count(" sends from ") == 5
    assert f"; from {elements - 5} others as well" in told
    assert loopnet(lab, "status").count(" sends from ") == 5
    # Full, it lets nothing in either, and what is a guest's own works.
    announce(two, one.number)
    announce(two, ALSO)
    foreign(two, "198.18.200.1")
    take(one, ALSO)
    with Servers() as servers:
        servers.both(one.namespace, ("0.0.0.0", PORT))
        for nic in (one, also):
            assert answers(lab, nic.loop) == one.mac
            assert ask_tcp(two.namespace, (nic.address, PORT))
    assert "192.0.2" not in str(lab.neighbours(lab.host))


@pytest.mark.parametrize("how", ["also", "shared"])
def test_a_reservation_wins_at_once(how: str) -> None:
    """Over who used the number freely until then."""
    with Lab() as lab:
        network = lab.network(1)
        lab.start(network)
        one, two, squatter = (lab.guest(network) for _ in range(3))
        wanted = take(squatter, ALSO)
        assert answers(lab, wanted.loop) == squatter.mac
        take(one, ALSO)
        if how == "also":
            loopnet(lab, "reserve", one.name, "--also", wanted.loop)
        else:
            loopnet(lab, "reserve", "--shared", wanted.loop, one.name, two.name)
        announce(squatter, ALSO)
        assert lab.neighbours(lab.host).get(wanted.loop) != squatter.mac
        assert answers(lab, wanted.loop) == one.mac
        assert listed(lab)[squatter.mac]["dropped"] == [wanted.address]
        agrees(lab)


@pytest.mark.parametrize("mode", ["mapped", "native"])
def test_a_new_guest_gets_no_number_that_is_in_use(mode: str) -> None:
    """Be it known by the host, or by what guests said among themselves."""
    with Lab(mode) as lab:
        network = lab.network(1)
        lab.start(network)
        one = lab.guest(network)
        assert one.number == 2
        assert answers(lab, take(one, 3).loop) == one.mac
        two = lab.guest(network)
        assert two.number == 4
        others = take(one, 5)
        two.namespace.run(["ping", "-n", "-c1", others.address])
        lab.host.run(["ip", "neighbour", "flush", "dev", network.model.bridge])
        assert lab.neighbours(lab.host) == {}
        three = lab.guest(network)
        assert three.number == 6
        gone = has(one, 7)  # the neighbour table remembers who is no more
        lab.host.sh(f"ip neighbour add {gone.loop} lladdr {STRANGE_MAC} dev {network.model.bridge} nud stale")
        assert lab.guest(network).number == 7
        agrees(lab)


def test_who_uses_all_numbers_keeps_nobody_from_starting() -> None:
    with Lab() as lab:
        network = lab.network(1, length=29)  # guests have 2, 3, 4 and 5
        lab.start(network)
        one = lab.guest(network)
        for number in (3, 4, 5):
            take(one, number)
            announce(one, number)
        assert len(listed(lab)[one.mac]["seen"]) == 3
        two = lab.guest(network)
        assert two.number == 3
        announce(one, 3)
        assert answers(lab, two.loop) == two.mac
        assert [lab.guest(network).number for _ in range(2)] == [4, 5]
        agrees(lab)


@pytest.fixture(scope="module")
def held() -> Iterator[tuple[Lab, LabGuest, LabGuest]]:
    """vm1 has also 77, both share 88."""
    with Lab() as lab:
        network = lab.network(1)
        lab.start(network)
        one, two = lab.guest(network), lab.guest(network)
        loopnet(lab, "reserve", one.name, "--also", has(one, ALSO).loop)
        loopnet(lab, "reserve", "--shared", has(one, SHARED).loop, one.name, two.name)
        yield lab, one, two


@pytest.mark.parametrize(
    ("words", "says"),
    [
        # reserved twice
        ("vm2 --also 127.1.0.77", "127.1.0.77 is reserved for vm1, beside its first; free it with: "
         "loopnet release vm1 --also 127.1.0.77"),
        ("vm2 --also 127.1.0.2", "127.1.0.2 is reserved for vm1; free it with: loopnet release vm1"),
        ("vm1 --also 127.1.0.2", "127.1.0.2 is reserved for vm1"),
        ("vm2 127.1.0.77", "is reserved for vm1, beside its first"),
        ("vm1 127.1.0.77", "is reserved for vm1, beside its first"),
        ("52:54:00:66:66:66 127.1.0.88", "is shared by vm1, vm2; free it with: loopnet release --shared 127.1.0.88"),
        # shared and own mixed
        ("vm1 --also 127.1.0.88", "is shared by vm1, vm2"),
        ("--shared 127.1.0.77 vm1 vm2", "is reserved for vm1, beside its first"),
        ("--shared 127.1.0.77 vm1", "is reserved for vm1, beside its first"),
        ("--shared 127.1.0.2 vm1 vm2", "is reserved for vm1"),
        ("--shared 127.1.0.99 --also 127.1.0.98 vm1", "not allowed with argument"),
        # outside, the gateway's, the host's
        ("vm1 --also 127.2.0.5", "is in no loopnet network"),
        ("--shared 192.0.2.1 vm1", "is in no loopnet network"),
        ("vm1 --also 127.1.0.0", "host number 0 is not in 127.1.0.0/24"),
        ("vm1 --also 127.1.0.255", "host number 255 is not in"),
        ("vm1 --also 10.127.1.1", "127.1.0.1 is the gateway's; give another address"),
        ("--shared 127.1.0.1 vm1 vm2", "127.1.0.1 is the gateway's"),
        ("vm1 --also 127.1.0.254", "127.1.0.254 is the host's"),
        ("--shared 10.127.1.254 vm1", "127.1.0.254 is the host's"),
        # MAC addresses that are no guest's
        ("52:54:00:b0:00:01 127.1.0.5", "52:54:00:b0:00:01 is the MAC address of virbr1 on this host"),
        ("52:54:00:B0:00:01 --also 127.1.0.5", "is the MAC address of virbr1"),
        ("--shared 127.1.0.5 vm1 52:54:00:b0:00:01", "is the MAC address of virbr1"),
        ("fe:54:00:aa:00:01 127.1.0.5", "is the MAC address of vnet1"),
        ("33:33:00:00:00:01 --also 127.1.0.5", "is a multicast address"),
        # not enough said, or too much
        ("vm1", "give a guest and its address"), ("", "give a guest and its address"),
        ("--also 127.1.0.5", "name one guest"), ("vm1 vm2 --also 127.1.0.5", "name one guest"),
        ("--shared 127.1.0.5", "name those who may hold it"), ("vm1 --also 127.1.0", "is not an IPv4 address"),
        ("vm1 127.1.0.5 --also 127.1.0.6", "name one guest"), ("--shared '' vm1", "is not an IPv4 address"),
    ],
)  # fmt: skip
def test_bad_input_changes_nothing(held: tuple[Lab, LabGuest, LabGuest], words: str, says: str) -> None:
    lab, _, _ = held
    before = lab.rules(), lab.path(f"{STATE}/net1.reservations").read_text()
    done = lab.host.run(["sh", "-c", f"loopnet reserve {words}"], check=False)
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert done.returncode == 2
    assert (lab.rules(), lab.path(f"{STATE}/net1.reservations").read_text()) == before


@pytest.mark.parametrize(
    ("words", "says", "status"),
    [
        ("vm2 --also 127.1.0.77", "127.1.0.77 is not reserved with --also for guest 'vm2'", 1),
        ("vm1 --also 127.1.0.88", "is not reserved with --also", 1),
        ("vm1 --also 127.1.0.2", "is not reserved with --also", 1),
        ("--shared 127.1.0.77", "is not reserved as shared for any guest", 1),
        ("--shared 127.1.0.88 vm1 nobody", "no guest 'nobody'", 1),
        ("--shared 127.2.0.88", "is in no loopnet network", 2),
        ("vm1 vm2 --also 127.1.0.77", "name one guest", 2), ("--also 127.1.0.77", "name one guest", 2),
        ("--dead --also 127.1.0.77", "not allowed with", 2), ("vm1 vm2", "name one guest", 2),
    ],
)  # fmt: skip
def test_bad_releases_change_nothing(
    held: tuple[Lab, LabGuest, LabGuest], words: str, says: str, status: int
) -> None:
    lab, _, _ = held
    before = lab.rules(), lab.path(f"{STATE}/net1.reservations").read_text()
    done = lab.host.run(["sh", "-c", f"loopnet release {words}"], check=False)
    assert says in done.stderr
    assert (done.stderr.count("\n"), done.stdout, done.returncode) == (1, "", status)
    assert (lab.rules(), lab.path(f"{STATE}/net1.reservations").read_text()) == before
