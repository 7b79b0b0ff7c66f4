"""Names in /etc/hosts: there while a guest runs, gone with it however it goes."""

from __future__ import annotations

from typing import Iterator

import pytest

from tests.sandbox.world import World, wait

PLAIN = b"127.0.0.1\tlocalhost\n127.0.1.1\tlaptop\n"
FOREIGN = {
    "plain": PLAIN,
    "odd": b"# mine\r\n\r\n 127.0.0.1\tlocalhost   # own \xe9\n::1 localhost\n\n\n#127.1.0.9 old\n",
    "no newline at the end": b"127.0.0.1 localhost\n192.0.2.7 printer.lan",
    "empty": b"",
}


@pytest.fixture(autouse=True)
def _cleaned(world: World) -> Iterator[None]:
    yield
    world.clean()
    hosts(world, PLAIN)


def hosts(world: World, content: bytes) -> None:
    # in place: mode, owner and what programs have open stay
    world.path("/etc/hosts").write_bytes(content)


def configure(world: World, text: str) -> None:
    world.path("/etc/libvirt-loopnet.conf").write_text(text)


def kill_qemu(world: World, name: str) -> None:
    world.host.sh(f"kill -9 $(cat /run/libvirt/qemu/{name}.pid)")


@pytest.mark.parametrize("content", FOREIGN)
def test_lines_of_others_stay_as_they_are(world: World, content: str) -> None:
    hosts(world, FOREIGN[content])
    before = world.path("/etc/hosts").stat()
    world.start()
    guest = world.still("vm1")
    during = world.path("/etc/hosts").read_bytes()
    assert during.startswith(FOREIGN[content])
    assert len(world.published()) == 1
    assert world.resolve("vm1.loopnet") == list(world.published().values())
    guest.destroy()
    assert world.path("/etc/hosts").read_bytes() == FOREIGN[content]
    after = world.path("/etc/hosts").stat()
    assert (after.st_mode, after.st_uid) == (before.st_mode, before.st_uid)


def test_edited_by_others_while_guests_run(world: World) -> None:
    world.start()
    world.still("vm1")
    path = world.path("/etc/hosts")
    first, last = b"192.0.2.9 before.example\n", b"192.0.2.8 after.example\n"
    path.write_bytes(first + path.read_bytes() + last)
    two = world.still("vm2")
    assert sorted(world.published()) == ["vm1.loopnet", "vm2.loopnet"]
    assert world.resolve("before.example") == ["192.0.2.9"]
    assert world.resolve("after.example") == ["192.0.2.8"]
    two.destroy()
    world.sandbox.virsh("destroy", "vm1")
    assert path.read_bytes() == first + PLAIN + last


def test_hosts_that_is_a_symbolic_link_stays_one(world: World) -> None:
    world.host.sh("mv /etc/hosts /etc/hosts.real; ln -s hosts.real /etc/hosts")
    try:
        world.start()
        world.still("vm1")
        assert world.resolve("vm1.loopnet")
        assert world.host.sh("readlink /etc/hosts") == "hosts.real\n"
    finally:
        world.clean()
        world.host.sh("mv /etc/hosts.real /etc/hosts")


def test_switched_off(world: World) -> None:
    configure(world, 'names = "off"\n')
    world.start()
    world.still("vm1")
    assert world.path("/etc/hosts").read_bytes() == PLAIN
    assert world.resolve("vm1.loopnet") == []


def test_switched_off_while_a_guest_runs(world: World) -> None:
    world.start()
    world.still("vm1")
    assert world.published()
    configure(world, 'names = "off"\n')
    world.host.run(["loopnet", "sync"])
    assert world.path("/etc/hosts").read_bytes() == PLAIN


@pytest.mark.parametrize("end", ["destroy", "net-destroy"])
def test_gone_after(world: World, end: str) -> None:
    world.start()
    world.still("vm1")
    assert world.published()
    world.sandbox.virsh(end, {"destroy": "vm1", "net-destroy": "loopnet"}[end])
    assert world.path("/etc/hosts").read_bytes() == PLAIN


def test_gone_after_qemu_was_killed(world: World) -> None:
    world.start()
    world.still("vm1")
    kill_qemu(world, "vm1")
    wait_for_plain(world)


def test_gone_after_qemu_and_libvirtd_were_killed(world: World) -> None:
    world.start()
    world.still("vm1")
    world.still("vm2")
    world.sandbox.kill_libvirtd()
    kill_qemu(world, "vm1")
    world.sandbox.start_libvirtd()
    wait(lambda: list(world.published()) == ["vm2.loopnet"], "end of the name of the dead")


@pytest.mark.parametrize("first", ["loopnet sync", "virsh net-start loopnet"])
def test_gone_after_a_power_cut(world: World, first: str) -> None:
    world.start()
    world.still("vm1")
    world.still("vm2")
    world.power_cut()
    assert len(world.published()) == 2, "a power cut cleans nothing up"
    world.host.sh(first)
    assert world.path("/etc/hosts").read_bytes() == PLAIN
    if "net-start" in first:
        world.still("vm2")
        assert list(world.published()) == ["vm2.loopnet"]


def test_names_beyond_ascii(world: World) -> None:
    world.start()
    world.still("büro", ["loopnet", "loopnet"])
    world.still("vm1")
    published = world.published()
    first = published.pop("xn--bro-hoa.loopnet")
    assert published.pop("vm1.loopnet")
    [(name, second)] = published.items()
    number = second.rpartition(".")[2]  # a guest's second NIC is told apart by it
    assert name == f"büro-{number}".encode("idna").decode() + ".loopnet"
    assert world.resolve("xn--bro-hoa.loopnet") == [first]
    for name in ("büro", "BÜRO", "xn--bro-hoa", "xn--bro-hoa.loopnet", "büro.loopnet"):
        assert world.host.sh(f"loopnet ip {name}").split() == [first, second]
    # what programs that know IDNA make of the name is the name
    command = ["python3", "-c", "import socket; print(socket.gethostbyname('büro.loopnet'))"]
    assert world.host.run(command).stdout == f"{first}\n"


def test_names_of_others_are_for_guests_too(world: World) -> None:
    """As in every network of libvirt's, whose dnsmasq reads /etc/hosts."""
    hosts(world, PLAIN + b"192.0.2.7 printer.lan\n")
    world.start()
    (guest,) = world.boot("vm1")
    assert guest.resolve("printer.lan") == ["192.0.2.7"]


def wait_for_plain(world: World) -> None:
    wait(lambda: world.path("/etc/hosts").read_bytes() == PLAIN, "hosts as before")
