"""Addresses that guests give themselves: set by hand, moved from one to another, and two NICs of one guest."""

from __future__ import annotations

import json
from typing import Any, Dict, Iterator

import pytest

from tests import schema
from tests.sandbox import INTERNET, Guest
from tests.sandbox.world import World, wait

BY_HAND = "10.127.1.77"
LOOP = "127.1.0.77"
SHARED, SHARED_LOOP = "10.127.1.99", "127.1.0.99"


@pytest.fixture(autouse=True)
def clean(world: World) -> Iterator[None]:
    yield
    world.clean()


def static(guest: Guest, address: str = BY_HAND) -> None:
    """As somebody would set it who knows nothing of reservations: DHCP is not asked any more."""
    guest.run(
        "killall udhcpc 2>/dev/null; ip address flush dev eth0\n"
        f"ip address add {address}/24 dev eth0; ip route add default via 10.127.1.1"
    )


def loopnet(world: World, *arguments: str) -> str:
    return world.host.run(["loopnet", *arguments]).stdout


def refusal(world: World, *arguments: str) -> str:
    done = world.host.run(["loopnet", *arguments], check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    return done.stderr


def listed(world: World) -> Dict[str, Any]:
    """What list says, by guest, of networks that are defined."""
    printed = json.loads(loopnet(world, "list", "--json"))
    schema.check("list", printed)
    return {entry["name"]: entry for entry in printed if entry["loop_address"]}


def pings(world: World, address: str, seconds: int = 10) -> bool:
    ping = world.host.run(["ping", "-n", "-c1", f"-W{seconds}", address], check=False)
    return ping.returncode == 0


def test_a_static_address_works_and_is_seen_and_kept(world: World) -> None:
    world.start()
    one, two = world.boot("vm1", "vm2")
    refused = refusal(world, "reserve", "vm1", LOOP)
    assert "is running" in refused
    assert f"ping -c 1 {LOOP}" in refused
    static(one)
    assert pings(world, LOOP)
    assert not pings(world, "127.1.0.2", 1)
    one.run(f"ping -c1 {INTERNET}")
    one.run("ping -c1 10.127.1.1")
    two.run(f"ping -c1 {BY_HAND}")
    seen = listed(world)
    assert seen["vm1"]["seen"] == [LOOP]
    assert seen["vm1"]["loop_address"] == "127.1.0.2"
    assert seen["vm2"]["seen"] == []

    # Now it is the guest's for good, and nobody else's.
    loopnet(world, "reserve", "vm1", LOOP)
    assert pings(world, LOOP)
    assert world.resolve("vm1.loopnet") == [LOOP]
    assert loopnet(world, "plan") == "nothing to do\n"
    seen = listed(world)
    assert (seen["vm1"]["loop_address"], seen["vm1"]["seen"]) == (LOOP, [])
    assert LOOP in world.host.sh(f"ip link show {seen['vm1']['tap']}")
    static(two)
    two.run(f"arping -U -c1 -I eth0 {BY_HAND}")
    assert "100% packet loss" in two.run("ping -c1 -W1 10.127.1.1", check=False)
    assert pings(world, LOOP)
    one.run("ping -c1 10.127.1.1")


def test_an_address_moves_by_arp(world: World) -> None:
    """Busybox announces it as keepalived does; the host's flow to it goes on at the other guest."""
    world.start()
    guests = world.boot("vm1", "vm2")
    holder, other = guests
    holder.run(f"ip address add {SHARED}/24 dev eth0")
    assert pings(world, SHARED_LOOP)
    for _ in range(3):
        holder.run(f"ip address delete {SHARED}/24 dev eth0")
        other.run(f"ip address add {SHARED}/24 dev eth0; arping -U -c1 -I eth0 {SHARED}")
        check_holder(world, other)
        holder, other = other, holder


def check_holder(world: World, guest: Guest) -> None:
    """By the announcement alone the host knows who has the shared address now, and the guest answers there."""
    neighbour = f"ip neighbour show {SHARED_LOOP}"
    wait(lambda: guest.macs[0] in world.host.sh(neighbour), f"word that {guest.name} has {SHARED_LOOP}")
    assert pings(world, SHARED_LOOP)
    assert guest.macs[0] in world.host.sh(neighbour)


def test_two_nics_of_one_guest_on_one_network(world: World) -> None:
    """Both answer the host, although the guest's kernel answers for the second at the first; also after one is
    unplugged and plugged in again."""
    world.start()
    guest = world.sandbox.guest("pair", ["loopnet", "loopnet"])
    guest.start()
    guest.wait_boot()
    addresses = [guest.wait_lease(nic) for nic in (0, 1)]
    loops = [loopnet(world, "ip", guest.macs[nic]).strip() for nic in (0, 1)]
    assert addresses == [loop.replace("127.1.0.", "10.127.1.") for loop in loops]
    for _ in range(2):
        world.host.sh("ip neighbour flush dev virbr1")
        assert all(pings(world, loop) for loop in loops)
    for address in addresses:
        guest.run(f"ping -c1 -I {address} 10.127.1.1")
        guest.run(f"ping -c1 -I {address} {INTERNET}")
    assert loopnet(world, "plan") == "nothing to do\n"
    mac = guest.macs[1]
    guest.detach_nic(mac)
    wait(lambda: "nothing to do" in loopnet(world, "plan"), "the host to agree")
    assert pings(world, loops[0])


def test_own_addresses_alone(world: World) -> None:
    xml = loopnet(
        world, "define", "strict", "--addresses", "own", "--loop-prefix", "127.1.0.0/24", "--print-xml"
    )
    assert 'addresses="own"' in xml
    world.define(xml)
    world.sandbox.virsh("net-start", "strict")
    guest = world.sandbox.guest("vm1", ["strict"])
    guest.start()
    guest.wait_lease()
    assert pings(world, "127.1.0.2")
    static(guest)
    assert not pings(world, LOOP, 1)
    assert "ping" not in refusal(world, "reserve", "vm1", LOOP)


def test_further_addresses_where_each_has_its_own(world: World) -> None:
    """What is dropped is told with the command that lets it; one for a guest alone, one that two hold in turn."""
    xml = loopnet(
        world, "define", "narrow", "--addresses", "own", "--loop-prefix", "127.1.0.0/24", "--print-xml"
    )
    world.define(xml)
    strange = "52:54:00:77:77:77"
    assert "127.1.0.50 beside 127.1.0.2" in loopnet(world, "reserve", strange, "--also", "127.1.0.50")
    assert loopnet(world, "release", strange).startswith("released 127.1.0.2, 127.1.0.50 of ")
    world.sandbox.virsh("net-start", "narrow")
    guests = [world.sandbox.guest(name, ["narrow"]) for name in ("vm1", "vm2")]
    for guest in guests:
        guest.start()
    for guest in guests:
        guest.wait_lease()
    one, two = guests
    one.run(f"ip address add {BY_HAND}/24 dev eth0; arping -U -c1 -I eth0 {BY_HAND}")
    assert not pings(world, LOOP, 1)

    def is_told() -> bool:
        one.run(f"ping -c1 -W1 -I {BY_HAND} 10.127.1.1", check=False)
        return bool(listed(world)["vm1"]["dropped"] == [BY_HAND])

    wait(is_told, "what the guest sends from in vain")
    command = f"loopnet reserve vm1 --also {LOOP}"
    assert command in world.host.run(["loopnet", "doctor"], check=False).stdout
    status = world.host.run(["loopnet", "status"], check=False)
    assert command in status.stdout
    assert status.returncode == 0, status.stdout
    world.host.sh(command)
    wait(lambda: pings(world, LOOP, 1), "answer there, where the host has asked in vain until now")
    two.run(f"ping -c1 {BY_HAND}")
    one.run(f"ping -c4 -I {BY_HAND} {INTERNET}")  # it has asked for its router in vain until now
    assert (listed(world)["vm1"]["also"], listed(world)["vm1"]["dropped"]) == ([LOOP], [])
    assert world.resolve("vm1.narrow") == ["127.1.0.2"]

    loopnet(world, "reserve", "--shared", SHARED_LOOP, "vm1", "vm2")
    one.run(f"ip address add {SHARED}/24 dev eth0")
    assert pings(world, SHARED_LOOP)
    holder, other = one, two
    for _ in range(3):
        holder.run(f"ip address delete {SHARED}/24 dev eth0")
        other.run(f"ip address add {SHARED}/24 dev eth0; arping -U -c1 -I eth0 {SHARED}")
        check_holder(world, other)
        holder, other = other, holder
    assert loopnet(world, "plan") == "nothing to do\n"

    # Started again it has both, and DHCP gives the first.
    one.destroy()
    assert listed(world)["vm1"]["also"] == [LOOP]
    one.start()
    assert one.wait_lease() == "10.127.1.2"
    one.run(f"ip address add {BY_HAND}/24 dev eth0")
    assert pings(world, LOOP)
    assert loopnet(world, "plan") == "nothing to do\n"
    loopnet(world, "release", "vm1", "--also", LOOP)
    assert not pings(world, LOOP, 1)
    assert pings(world, "127.1.0.2")


def test_dhcp_gives_no_address_that_is_in_use(world: World) -> None:
    world.define(loopnet(world, "define", "fresh", "--loop-prefix", "127.1.0.0/24", "--print-xml"))
    world.sandbox.virsh("net-start", "fresh")
    one, two = (world.sandbox.guest(name, ["fresh"]) for name in ("vm1", "vm2"))
    one.start()
    assert one.wait_lease() == "10.127.1.2"
    one.run("ip address add 10.127.1.3/24 dev eth0")
    wait(lambda: pings(world, "127.1.0.3", 1), "answer at the other address")
    two.start()
    assert two.wait_lease() == "10.127.1.4"
    assert loopnet(world, "ip", "vm2") == "127.1.0.4\n"
    assert pings(world, "127.1.0.4")
    assert pings(world, "127.1.0.3")
    two.run("ping -c1 10.127.1.3")
