"""Which addresses a NIC may use beside its own: free ones, and those of its guest's other NICs. By packets.

What it must not is in test_security.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sandbox import INTERNET

from . import frames
from .arena import STRANGE_MAC
from .lab import Lab, LabGuest, eventually, nic_mac
from .wire import PATIENCE, Capture, Servers, ask_tcp, ask_udp, datagram_socket

PORT = 7000
FREE_NUMBER = 77


@pytest.fixture(params=["mapped", "mapped-all", "native"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    mode, _, rest = request.param.partition("-")
    with Lab(mode, bridge_nf=bool(rest), ip_rule=bool(rest)) as made:
        yield made


def loopnet(lab: Lab, *arguments: str, status: int = 0) -> str:
    done = lab.host.run(["loopnet", *arguments], check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def take(guest: LabGuest, number: int = FREE_NUMBER) -> LabGuest:
    """The guest gives itself an address by hand; what it is called by that."""
    other = guest._replace(number=number)
    length = guest.network.model.guest_prefix.prefixlen
    guest.namespace.sh(
        "echo 1 >/proc/sys/net/ipv4/conf/eth0/promote_secondaries\n"
        f"ip address add {other.address}/{length} scope global dev eth0"
    )
    return other


def leave(guest: LabGuest) -> None:
    length = guest.network.model.guest_prefix.prefixlen
    guest.namespace.run(["ip", "address", "delete", f"{guest.address}/{length}", "dev", "eth0"])


def announce(guest: LabGuest, number: int = FREE_NUMBER) -> None:
    """What keepalived sends when an address has come to it."""
    mine = guest._replace(number=number).address
    with Capture(guest.namespace, "eth0") as wire:
        payload = frames.arp(frames.REQUEST, (guest.mac, mine), ("ff:ff:ff:ff:ff:ff", mine))
        wire.send(frames.ethernet(guest.mac, frames.BROADCAST, frames.ARP, payload))


def peer(guest: LabGuest, server: tuple[str, int], source: str) -> str:
    """Who the server says the guest is, when it calls from ``source``."""
    with datagram_socket(guest.namespace, (source, 0)) as client:
        client.settimeout(PATIENCE)
        client.sendto(b"?", server)
        return client.recv(200).decode().split()[0].rpartition(":")[0]


def answers(lab: Lab, address: str, patience: float = PATIENCE) -> str:
    """Who answers the host at this address: the MAC address; '' for nobody."""
    ping = lab.host.run(["ping", "-n", "-c1", f"-W{patience}", address], check=False)
    return lab.neighbours(lab.host).get(address, "?") if ping.returncode == 0 else ""


def silent(lab: Lab, address: str) -> bool:
    """Nobody does."""
    return not answers(lab, address, 0.5)


def agrees(lab: Lab) -> None:
    """What hooks added bit by bit is what would be made at once."""
    plan = lab.host.run(["loopnet", "plan"], check=False)
    assert "nft" not in plan.stdout, plan.stdout + plan.stderr


def test_a_free_address_works(lab: Lab) -> None:
    """From and to the host, other guests and the internet, under the same number."""
    network = lab.network(1)
    lab.start(network)
    one, two = lab.guest(network), lab.guest(network)
    by_hand = take(one)
    leave(one)  # what it has is by hand alone
    one.namespace.run(["ip", "route", "replace", "default", "via", one.gateway])
    with Servers() as servers:
        for namespace in (lab.host, one.namespace, two.namespace):
            servers.both(namespace, ("0.0.0.0", PORT))
        for ask in (ask_tcp, ask_udp):
            assert ask(lab.host, (by_hand.loop, PORT))[1] == str(
                network.model.guest_address(network.model.host)
            )
            assert ask(lab.host, (by_hand.transit, PORT))
            assert ask(one.namespace, (one.gateway, PORT))[1] == by_hand.transit
            assert ask(one.namespace, (two.address, PORT))[1] == by_hand.address
            assert ask(two.namespace, (by_hand.address, PORT))[1] == two.address
        assert ask_udp(one.namespace, (INTERNET, 7))[1] == lab.host_address
    agrees(lab)


def test_no_free_address_where_each_has_its_own(lab: Lab) -> None:
    network = lab.network(1, addresses="own")
    lab.start(network)
    one, two = lab.guest(network), lab.guest(network)
    by_hand = take(one)
    assert answers(lab, one.loop) == one.mac
    assert silent(lab, by_hand.loop)
    announce(one)
    assert two.namespace.run(["ping", "-n", "-c1", "-W0.5", by_hand.address], check=False).returncode == 1
    agrees(lab)


def test_an_address_moves_by_arp(lab: Lab) -> None:
    """As VRRP moves one: at once, for the host and for other guests."""
    network = lab.network(1)
    lab.start(network)
    one, two, three = (lab.guest(network) for _ in range(3))
    shared = take(one)
    with Servers() as servers:
        servers.both(one.namespace, ("0.0.0.0", PORT))
        servers.both(two.namespace, ("0.0.0.0", PORT))
        holders = [(one, two), (two, one), (one, two)]
        for holder, other in holders:
            assert answers(lab, shared.loop) == holder.mac
            assert ask_tcp(three.namespace, (shared.address, PORT))
            leave(shared._replace(namespace=holder.namespace))
            take(other)
            announce(other)
            eventually(lambda mac=other.mac: lab.neighbours(lab.host)[shared.loop] == mac)  # type: ignore[misc]
            assert ask_tcp(lab.host, (shared.loop, PORT))
            assert ask_tcp(three.namespace, (shared.address, PORT))


def test_a_reservation_wins_at_once(lab: Lab) -> None:
    """One that a new guest gets, and one by hand, over who used the number until then."""
    network = lab.network(1)
    lab.start(network)
    one = lab.guest(network)
    squatted = take(one, one.number + 1)
    assert answers(lab, squatted.loop) == one.mac
    mac = nic_mac(2)
    loopnet(lab, "reserve", mac, squatted.loop)
    two = lab.guest(network, mac)
    assert two.number == squatted.number
    assert lab.neighbours(lab.host).get(two.loop) in (None, two.mac)
    announce(one, two.number)
    assert answers(lab, two.loop) == two.mac
    leave(squatted)

    squatted = take(one)
    assert answers(lab, squatted.loop) == one.mac
    loopnet(lab, "reserve", STRANGE_MAC, squatted.loop)
    announce(one)
    assert lab.neighbours(lab.host).get(squatted.loop) != one.mac
    assert silent(lab, squatted.loop)
    agrees(lab)
    loopnet(lab, "release", STRANGE_MAC)
    # the kernel asks again a second after it was told nothing
    eventually(lambda: answers(lab, squatted.loop, 1) == one.mac)
    agrees(lab)


@pytest.mark.parametrize("addresses", ["free", "own"])
def test_two_nics_of_one_guest(lab: Lab, addresses: str) -> None:
    """Linux answers ARP for both at either, and sends by one what is for both: both reach the host all the same."""
    network = lab.network(1, addresses=addresses)
    lab.start(network)
    one, other = lab.guest(network), lab.guest(network)
    two = lab.second_nic(one)
    one.namespace.sh("for conf in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$conf; done")
    agrees(lab)
    with Servers() as servers:
        servers.both(one.namespace, ("0.0.0.0", PORT))
        servers.both(lab.host, ("0.0.0.0", PORT))
        servers.both(other.namespace, ("0.0.0.0", PORT))
        for _ in range(3):
            for nic in (one, two):
                lab.host.run(["ip", "neighbour", "flush", "dev", network.model.bridge])
                assert answers(lab, nic.loop) in (one.mac, two.mac)
                assert ask_tcp(lab.host, (nic.loop, PORT))
                assert ask_tcp(other.namespace, (nic.address, PORT))
                assert peer(one, (one.gateway, PORT), nic.address) == nic.transit
                assert peer(one, (other.address, PORT), nic.address) == nic.address
        # A bond keeps one MAC address for both, whichever NIC it sends by.
        one.namespace.sh(
            "ip link set eth0 down; ip link set eth1 down\n"
            f"ip link set eth1 address {one.mac}\n"
            f"ip address flush dev eth1; ip address add {one.address}/24 scope global dev eth1\n"
            f"ip link set eth1 up; ip route replace default via {one.gateway}"
        )
        announce_by(one, "eth1")
        eventually(lambda: answers(lab, one.loop, 1) == one.mac)
        assert ask_tcp(lab.host, (one.loop, PORT))
        assert ask_tcp(one.namespace, (one.gateway, PORT))[1] == one.transit
    # Unplugged, it takes along what was its own alone.
    lab.destroy(two)
    agrees(lab)
    lab.destroy(one)
    agrees(lab)
    assert two.mac not in lab.rules()


def announce_by(guest: LabGuest, device: str) -> None:
    with Capture(guest.namespace, device) as wire:
        payload = frames.arp(frames.REQUEST, (guest.mac, guest.address), ("ff:ff:ff:ff:ff:ff", guest.address))
        wire.send(frames.ethernet(guest.mac, frames.BROADCAST, frames.ARP, payload))
