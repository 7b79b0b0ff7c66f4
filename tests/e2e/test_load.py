"""Parallel clients start and destroy fifty guests, and one of two networks with them, for a while.

LOOPNET_LOAD_SECONDS says for how long. Guests are small and their CPUs stand still: of a start, all is
done that concerns libvirt, its hooks and us.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from difflib import unified_diff

import pytest

from tests.netns.wire import Prober
from tests.sandbox import Guest
from tests.sandbox.world import World, network_xml, wait

SECONDS = float(os.environ.get("LOOPNET_LOAD_SECONDS", "15"))
GUESTS = 50
CLIENTS = 4
ANSWER = 45.0
"""Seconds within which libvirt must have answered, on a machine with all CPUs busy; a deadlock never ends,
and a hook that waits for our lock gives up after 10 s."""
STAYS, GOES = "loopnet", "beside"
"""The network that is active all the time, and the one that is stopped and started."""

NOT_ACTIVE = re.compile(
    rf"network '{GOES}' is not active|Cannot get interface MTU|network port not found|No such device"
)
"""What libvirt says of a guest whose network is not there, or goes away while the guest starts."""

SEEN = """\
grep '# libvirt-loopnet: guest$' /etc/hosts | sed 's/^/hosts /' || true
ip -d link show type tun | sed -n 's/^ *alias /alias /p'
nft list table bridge loopnet 2>/dev/null | tr -d '\\n\\t' | grep -o 'set senders[^}]*elements = {[^}]*}' || true
"""

LEFT = """\
find /run/libvirt-loopnet -name '*.tap'
find /var/lib/libvirt/dnsmasq -path '*.loopnet/.*'
ps -e -o stat=,comm= | grep '^Z' || true
ps -e -o comm= | grep qemu || true
grep guest$ /etc/hosts || true
ip -o link show type tun
ls /var/lib/libvirt-loopnet/.new 2>/dev/null || true
"""
"""Prints what must not be there when no guest is."""

HELD = """\
nft --stateless list ruleset | sort
ip route show table all | sed 's/ linkdown//; s/ *$//' | sort
ip rule
cat /etc/hosts
find /var/lib/libvirt/dnsmasq/*.loopnet* -type f | sort
find /var/lib/libvirt-loopnet | sort
find /run/libvirt/network -type f | sort
"""
"""Prints what must be the same before and after, when the same networks are active, in whatever order."""


class Load:
    """The clients, what they have done, and how long libvirt took at most."""

    def __init__(self, world: World, guests: list[Guest], end: float) -> None:
        self.world = world
        self.guests = guests
        self.end = end
        self.failed = threading.Event()
        self.done: Counter[str] = Counter()
        self.longest = 0.0

    def note(self, work: Future[None]) -> None:
        """One client's failure ends all."""
        if work.exception():
            self.failed.set()

    def going_on(self) -> bool:
        return time.monotonic() < self.end and not self.failed.is_set()

    def virsh(self, *arguments: str) -> str:
        """What libvirt says against it, '' if nothing. Raises CommandError if it does not answer."""
        begin = time.monotonic()
        done = self.world.host.run(["virsh", "-q", *arguments], check=False, timeout=ANSWER)
        self.longest = max(self.longest, time.monotonic() - begin)
        self.done[arguments[0] if done.returncode == 0 else f"{arguments[0]}, refused"] += 1
        return done.stderr.strip() if done.returncode else ""

    def start_and_destroy(self, client: int) -> None:
        """A client with its share of the guests: starts one that doesn't run, ends one that does."""
        chance = random.Random(client)
        share = self.guests[client::CLIENTS]
        running: set[str] = set()
        while self.going_on():
            guest = chance.choice(share)
            if guest.name in running:
                running.remove(guest.name)
                assert self.virsh("destroy", guest.name) == ""
                continue
            wrong = self.virsh("start", guest.name, "--paused")
            if not wrong:
                running.add(guest.name)
            else:
                assert guest.networks == [GOES], wrong
                assert NOT_ACTIVE.search(wrong), wrong

    def restart_network(self) -> None:
        """Stops and starts a network under its guests."""
        while self.going_on():
            for verb in ("net-destroy", "net-start"):
                assert self.virsh(verb, GOES) == ""

    def look(self, seen: dict[str, str]) -> None:
        """No address is two guests', and none changes; libvirt answers all along."""
        while self.going_on():
            assert self.virsh("list", "--all") == ""
            assert self.virsh("net-list") == ""
            check_addresses(self.world, seen)
            self.done["look"] += 1


def check_addresses(world: World, known: dict[str, str]) -> list[int]:
    """Names published, taps' aliases, and the data plane's own sets: one guest, one address.

    Returns how many addresses each of the three has.
    """
    text = world.host.sh(SEEN)
    published = re.findall(r"^hosts (\S+) (\S+)", text, re.MULTILINE)
    for address, name in published:
        assert known.setdefault(name, address) == address, f"{name} was {known[name]}, is {address}"
    by_address = [address for address, _ in published]
    aliases = re.findall(r"^alias \S+ (\S+)$", text, re.MULTILINE)
    senders = re.findall(r"[0-9a-f:]{17} \. ([\d.]+)", text)
    for what, addresses in (("name", by_address), ("alias", aliases), ("element", senders)):
        twice = [address for address, count in Counter(addresses).items() if count > 1]
        assert not twice, f"{what}: {twice} twice\n{text}"
    assert len(set(known.values())) == len(known), f"two guests had one address: {known}"
    return [len(by_address), len(aliases), len(senders)]


@pytest.fixture(scope="module")
def guests(world: World) -> list[Guest]:
    """All guests have run once, so that what stays of a guest for good, its reservation, is there."""
    world.start()
    world.define(network_xml(GOES, "127.10.0.", "10.127.10."))
    world.sandbox.virsh("net-start", GOES)
    made = [
        world.sandbox.guest(f"load{number}", [(STAYS, STAYS, GOES)[number % 3]], memory_mib=32)
        for number in range(GUESTS)
    ]
    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(lambda guest: guest.start(paused=True), made))
    assert check_addresses(world, {}) == [GUESTS] * 3
    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(lambda guest: guest.destroy(), made))
    return made


def descriptors(world: World) -> int:
    """Open files of libvirtd."""
    return int(world.host.sh("ls /proc/$(cat /run/libvirtd.pid)/fd | wc -l"))


def left(world: World) -> str:
    return world.host.sh(LEFT)


def in_order(world: World) -> bool:
    """All that belongs to running guests has gone."""
    return left(world) == ""


@pytest.mark.timeout(SECONDS + 400)
def test_load(world: World, guests: list[Guest]) -> None:
    wait(lambda: in_order(world), f"end of {left(world)}")
    held, files = world.host.sh(HELD), descriptors(world)
    load = Load(world, guests, time.monotonic() + SECONDS)
    seen: dict[str, str] = {}

    with Prober(world.host) as prober, ThreadPoolExecutor(CLIENTS + 2) as clients:
        work = [clients.submit(load.start_and_destroy, client) for client in range(CLIENTS)]
        work += [clients.submit(load.restart_network), clients.submit(load.look, seen)]
        for each in work:
            each.add_done_callback(load.note)
    errors = [error for error in (each.exception() for each in work) if error]
    assert not errors, "\n".join(map(str, errors))
    print(f"\n{dict(load.done)}; longest {load.longest:.1f} s; 127.0.0.1 asked {prober.asked} times")

    for name in world.running_guests():
        world.sandbox.virsh("destroy", name, timeout=ANSWER)
    wait(lambda: in_order(world), f"end of {left(world)}")
    changed = unified_diff(held.splitlines(), world.host.sh(HELD).splitlines(), lineterm="", n=0)
    assert "\n".join(changed) == ""
    wait(
        lambda: descriptors(world) <= files, f"end of files of libvirtd, {descriptors(world)} and not {files}"
    )
    status = world.host.run(["loopnet", "status"], check=False)
    assert status.returncode == 0, status.stdout + status.stderr
    assert "drift:  none" in status.stdout
    assert prober.failed == 0, prober.errors
    assert load.done["start"] > CLIENTS  # speed is for the benchmarks
    assert load.done["net-start"] > 1
    assert load.done["look"] > 1


def test_nothing_is_left(world: World, guests: list[Guest]) -> None:
    """When the networks go, all of ours goes; World looks at the rest of the host."""
    for name in (STAYS, GOES):
        world.sandbox.virsh("net-destroy", name)
    found = world.host.sh("find /run/libvirt-loopnet /var/lib/libvirt/dnsmasq/*.loopnet* 2>/dev/null || true")
    assert found == ""
