"""Whatever a hook refuses, and why: one line, and the host compares equal to before. What is named or listed
for people, and the log, never refuses anything."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from typing import Callable, NamedTuple

import pytest

from libvirt_loopnet.hook import OPERATIONS, REFUSE

from .lab import DNSMASQ, STATE, Lab, LabGuest, LabNetwork, bound_over, domain_xml
from .looking import assert_same, look

CONFIGURATION = "/etc/libvirt-loopnet.conf"
NFT, IP = "/usr/sbin/nft", "/usr/bin/ip"
Fault = Callable[["Scene"], contextlib.AbstractContextManager[object]]
Refused = subprocess.CompletedProcess[str]


class Scene(NamedTuple):
    """A network that runs with a guest on it, and one that is about to be started."""

    lab: Lab
    running: LabNetwork
    guest: LabGuest
    other: LabNetwork


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Lab() as lab:
        network = lab.network(1)
        lab.start(network, dnsmasq=True)
        guest = lab.guest(network)
        # what its reservations and files leave for good, see test_restore.py
        lab.start(lab.network(2))
        for each in (network, lab.network(2)):
            lab.destroy(known(lab, each))
        lab.stop(lab.network(2))
        yield Scene(lab, network, guest, lab.network(2))


def known(lab: Lab, network: LabNetwork) -> LabGuest:
    """A guest that has a reservation from the beginning."""
    name = network.model.name
    return lab.guest(network, f"52:54:00:aa:01:0{name[-1]}", name=f"known-{name}")


def everything(lab: Lab) -> dict[str, str]:
    """Also reservations, what dnsmasq reads, and the notes that hooks leave, less their times."""
    notes = "find /run/libvirt-loopnet -type f | sort"
    files = f"cat {STATE}/*.reservations; grep -rH '' {DNSMASQ}/*.loopnet* | grep -v '[.]leases:'"
    return {**look(lab), "files": lab.host.sh(files), "notes": lab.host.sh(notes), "rules": lab.rules()}


# --- events ---


def start(scene: Scene) -> Refused:
    return scene.lab.network_hook(scene.other, "start", check=False)


def started(scene: Scene) -> Refused:
    """Of a network whose start was allowed; the bridge goes when it is refused."""
    scene.lab.network_hook(scene.other, "start")
    scene.lab.make_bridge(scene.other)
    return scene.lab.network_hook(scene.other, "started", check=False)


HOST = "<dhcp><host mac='52:54:00:aa:00:77' ip='{}'/></dhcp></ip>"


def updated(scene: Scene, address: str = "127.1.0.77") -> Refused:
    """virsh net-update … add ip-dhcp-host."""
    head, found, tail = scene.running.xml.partition("<ip address='127.1.0.254' netmask='255.255.255.0'/>")
    assert found
    xml = head + found.replace("/>", ">") + HOST.format(address) + tail
    return scene.lab.hook("network", "net1", "updated", f"<hookData>{xml}</hookData>", check=False)


def impossible_update(scene: Scene) -> Refused:
    return updated(scene, "127.1.0.254")


def newcomer(scene: Scene, mac: str = "52:54:00:aa:00:88", name: str = "new") -> LabGuest:
    return scene.guest._replace(name=name, mac=mac, tap="vnet88")


def created(scene: Scene) -> Refused:
    return scene.lab.network_hook(scene.running, "port-created", port=newcomer(scene).port_xml, check=False)


def plugged(scene: Scene) -> Refused:
    return scene.lab.network_hook(scene.running, "plugged", port=newcomer(scene).port_xml, check=False)


def cloned(scene: Scene) -> Refused:
    """Another domain comes with the MAC address of the guest that runs."""
    clone = newcomer(scene, scene.guest.mac, "a clone")
    return scene.lab.network_hook(scene.running, "port-created", port=clone.port_xml, check=False)


def multicast(scene: Scene) -> Refused:
    port = newcomer(scene, "01:00:5e:00:00:01").port_xml
    return scene.lab.network_hook(scene.running, "port-created", port=port, check=False)


def guest_start(scene: Scene) -> Refused:
    """Its taps are there: one that is plugged in again under another name."""
    moved = scene.guest._replace(tap="vnet88")
    return scene.lab.hook("qemu", moved.name, "start", moved.domain_xml, check=False)


def odd_tap(scene: Scene) -> Refused:
    moved = scene.guest._replace(tap='a"b')
    return scene.lab.hook("qemu", moved.name, "start", moved.domain_xml, check=False)


def on_bridge(scene: Scene, *nics: LabGuest) -> Refused:
    """Of a guest whose NICs are on the bridge themselves: no ports tell of them."""
    bridge = scene.running.model.bridge
    for nic in nics:
        scene.lab.host.sh(
            f"ip link add {nic.tap} address fe{nic.mac[2:]} type veth peer name {nic.tap}-peer\n"
            f"ip link set {nic.tap} master {bridge}"
        )
    xml = domain_xml(nics[0].name, [*nics]).replace(f"network='{scene.running.model.name}' ", "")
    try:
        return scene.lab.hook("qemu", nics[0].name, "start", xml, check=False)
    finally:
        for nic in nics:
            scene.lab.host.run(["ip", "link", "delete", nic.tap])


def bridged(scene: Scene) -> Refused:
    return on_bridge(scene, newcomer(scene))


def bridged_clone(scene: Scene) -> Refused:
    return on_bridge(scene, newcomer(scene, scene.guest.mac, "a clone"))


def one_of_two(scene: Scene) -> Refused:
    clone = newcomer(scene, scene.guest.mac, "a clone")._replace(tap="vnet89")
    return on_bridge(scene, newcomer(scene, name="a clone"), clone)


def arrival(scene: Scene) -> Refused:
    return scene.lab.hook("qemu", "new", "migrate", newcomer(scene).domain_xml, check=False)


def restored(scene: Scene) -> Refused:
    return scene.lab.hook("qemu", "vm1", "restore", scene.guest.domain_xml, check=False)


# --- faults ---


@contextlib.contextmanager
def nothing(_scene: Scene) -> Iterator[None]:
    yield


def instead_of(program: str, script: str) -> Fault:
    """The kernel itself, or the program, refuses; with "" the program is no program."""

    @contextlib.contextmanager
    def fault(scene: Scene) -> Iterator[None]:
        with bound_over(scene.lab, program, script):
            scene.lab.path(f"/run/fake/{program.rpartition('/')[2]}").chmod(0o755 if script else 0o644)
            yield

    return fault


REFUSES = "#!/bin/sh\necho 'Error: no such luck' >&2; exit 1\n"


@contextlib.contextmanager
def full(lab: Lab, directory: str) -> Iterator[None]:
    """Nothing can be written there any more."""
    lab.host.sh(f"mount --bind {directory} {directory}; mount -o remount,ro,bind {directory}")
    try:
        yield
    finally:
        lab.host.sh(f"umount {directory}")


def full_of(directory: str) -> Fault:
    return lambda scene: full(scene.lab, directory)


def damaged(path: str, text: str) -> Fault:
    @contextlib.contextmanager
    def fault(scene: Scene) -> Iterator[None]:
        file = scene.lab.path(path)
        there = file.exists()
        saved = scene.lab.host.sh(
            f"mkdir -p /run/sandbox; [ ! -e {path} ] || cp -p {path} /run/sandbox/saved"
        )
        assert not saved
        file.write_text(text)
        try:
            yield
        finally:
            scene.lab.host.sh(f"cp -p /run/sandbox/saved {path}" if there else f"rm {path}")

    return fault


@contextlib.contextmanager
def address_in_use(scene: Scene) -> Iterator[None]:
    scene.lab.host.sh("ip address add 127.2.0.9/32 dev lo")
    try:
        yield
    finally:
        scene.lab.host.sh("ip address del 127.2.0.9/32 dev lo")


@contextlib.contextmanager
def pool_full(scene: Scene) -> Iterator[None]:
    path = scene.lab.path(f"{STATE}/net1.reservations")
    kept = path.read_text().splitlines()
    taken = {int(line.split()[0]) for line in kept if not line.startswith("#")}
    template = next(line for line in kept if not line.startswith("#")).split(maxsplit=3)
    more = [f"{n} 52:54:00:ff:00:{n:02x} - -" for n in range(2, 254) if n not in taken]
    assert len(template) >= 4
    everyone = sorted(
        [line for line in kept if not line.startswith("#")] + more, key=lambda line: int(line.split()[0])
    )
    text = "\n".join([kept[0], *everyone, f"# end {len(everyone)}", ""])
    with damaged(f"{STATE}/net1.reservations", text)(scene):
        yield


GARBAGE = damaged(f"{STATE}/net1.reservations", "garbage\n")
BROKEN = damaged(CONFIGURATION, "nmaes = off\n")

REFUSALS: dict[str, tuple[tuple[str, str], Callable[[Scene], Refused], Fault, str]] = {
    # what is wrong: (the operation, the event, the fault, what the line says)
    "start: no nft": (("network", "start"), start, instead_of(NFT, ""), "nft"),
    "start: ip refuses": (("network", "start"), start, instead_of(IP, REFUSES), "no such luck"),
    "start: address in use": (("network", "start"), start, address_in_use, "ip address del 127.2.0.9"),
    "start: another's reservations": (("network", "start"), start, GARBAGE, "net1.reservations"),
    "start: its reservations": (
        ("network", "start"), start, damaged(f"{STATE}/net2.reservations", "x\n"), "net2.reservations",
    ),
    "start: configuration": (("network", "start"), start, BROKEN, CONFIGURATION),
    "start: dnsmasq's directory": (("network", "start"), start, full_of(DNSMASQ), DNSMASQ),
    "started: nft refuses": (("network", "started"), started, nothing, "no such luck"),
    "started: no notes": (("network", "started"), started, nothing, "/run"),
    "updated: the host's address": (("network", "updated"), impossible_update, nothing, "127.1.0.254"),
    "updated: reservations": (("network", "updated"), updated, GARBAGE, "net1.reservations"),
    "updated: store": (("network", "updated"), updated, full_of(STATE), STATE),
    "updated: nft refuses": (("network", "updated"), updated, instead_of(NFT, REFUSES), "no such luck"),
    "updated: dnsmasq's directory": (
        ("network", "updated"), updated, full_of(f"{DNSMASQ}/net1.loopnet"), DNSMASQ,
    ),
    "port: MAC address of another": (("network", "port-created"), cloned, nothing, "virsh edit 'a clone'"),
    "port: multicast": (("network", "port-created"), multicast, nothing, "multicast"),
    "port: pool is full": (("network", "port-created"), created, pool_full, "loopnet release"),
    "port: reservations": (("network", "port-created"), created, GARBAGE, "net1.reservations"),
    "port: store": (("network", "port-created"), created, full_of(STATE), STATE),
    "port: dnsmasq's directory": (
        ("network", "port-created"), created, full_of(f"{DNSMASQ}/net1.loopnet"), DNSMASQ,
    ),
    "port: no notes": (
        ("network", "port-created"), created, full_of("/run/libvirt-loopnet/net1"), "/run/libvirt-loopnet",
    ),
    "port: nft refuses": (("network", "port-created"), created, instead_of(NFT, REFUSES), "no such luck"),
    "port: no nft": (("network", "port-created"), created, instead_of(NFT, ""), "nft"),
    "plugged: nft refuses": (("network", "plugged"), plugged, instead_of(NFT, REFUSES), "no such luck"),
    "guest: nft refuses": (("qemu", "start"), guest_start, instead_of(NFT, REFUSES), "no such luck"),
    "guest: its tap": (("qemu", "start"), odd_tap, nothing, "device"),
    "guest: reservations": (("qemu", "start"), guest_start, GARBAGE, "net1.reservations"),
    "bridge: MAC address of another": (("qemu", "start"), bridged_clone, nothing, "virsh edit 'a clone'"),
    "bridge: one of two": (("qemu", "start"), one_of_two, nothing, "virsh edit 'a clone'"),
    "bridge: pool is full": (("qemu", "start"), bridged, pool_full, "loopnet release"),
    "bridge: store": (("qemu", "start"), bridged, full_of(STATE), STATE),
    "bridge: no notes": (
        ("qemu", "start"), bridged, full_of("/run/libvirt-loopnet/net1"), "/run/libvirt-loopnet",
    ),
    "bridge: nft refuses": (("qemu", "start"), bridged, instead_of(NFT, REFUSES), "no such luck"),
    "migrate: unknown": (("qemu", "migrate"), arrival, nothing, "loopnet reserve"),
    "restore: configuration": (("qemu", "restore"), restored, damaged(CONFIGURATION, "move\n"), CONFIGURATION),
}  # fmt: skip


def test_all_that_may_refuse_is_there() -> None:
    assert {operation for operation, _, _, _ in REFUSALS.values()} == {
        operation for operation, (_, may_refuse) in OPERATIONS.items() if may_refuse == REFUSE
    }


@pytest.mark.parametrize("what", REFUSALS)
def test_refusal(scene: Scene, what: str) -> None:
    operation, event, fault, says = REFUSALS[what]
    lab = scene.lab
    before = everything(lab)
    with fault(scene):
        if operation == ("network", "started"):
            result = refused_started(scene, what)
        else:
            result = event(scene)
    assert result.returncode == 1, result
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("libvirt-loopnet: ")
    assert says in result.stderr
    assert "report this" not in result.stderr
    assert_same(before, everything(lab))
    lab.host.run(["ping", "-q", "-c", "1", scene.guest.loop])
    assert lab.host.run(["loopnet", "plan"], check=False).stdout == "nothing to do\n"


def refused_started(scene: Scene, what: str) -> Refused:
    """The fault strikes after network_start."""
    lab = scene.lab
    lab.network_hook(scene.other, "start")
    lab.make_bridge(scene.other)
    fault = instead_of(NFT, REFUSES)(scene) if "nft" in what else full(lab, "/run/libvirt-loopnet")
    with fault:
        return lab.network_hook(scene.other, "started", check=False)


# --- names, lists, logs ---


@contextlib.contextmanager
def hosts_read_only(scene: Scene) -> Iterator[None]:
    """As on NixOS, or an image that can't be written."""
    with full(scene.lab, "/etc"):
        yield


@contextlib.contextmanager
def hosts_unreadable(scene: Scene) -> Iterator[None]:
    """A directory is in its place."""
    scene.lab.host.sh("mkdir /run/nothing; mv /etc/hosts /run/hosts; mkdir /etc/hosts")
    try:
        yield
    finally:
        scene.lab.host.sh("rmdir /etc/hosts /run/nothing; mv /run/hosts /etc/hosts")


@contextlib.contextmanager
def hosts_locked(scene: Scene) -> Iterator[None]:
    """What would lock it is no file."""
    scene.lab.host.sh(f"rm -f {STATE}/hosts.lock; mkdir {STATE}/hosts.lock")
    try:
        yield
    finally:
        scene.lab.host.sh(f"rmdir {STATE}/hosts.lock")


@contextlib.contextmanager
def leases_unwritable(scene: Scene) -> Iterator[None]:
    """Of the list of leases that libvirt shows."""
    scene.lab.host.sh(f"mkdir {DNSMASQ}/virbr2.status")
    try:
        yield
    finally:
        scene.lab.host.sh(f"rmdir {DNSMASQ}/virbr2.status")


@contextlib.contextmanager
def no_syslog(scene: Scene) -> Iterator[None]:
    scene.lab.host.sh("mv /dev/log /dev/nolog")
    try:
        yield
    finally:
        scene.lab.host.sh("mv /dev/nolog /dev/log")


NAMES: dict[str, tuple[Fault, str]] = {
    # what is wrong: (the fault, what sync says, '' for nothing)
    "/etc can't be written": (hosts_read_only, "/etc/hosts"),
    "/etc/hosts can't be read": (hosts_unreadable, "/etc/hosts"),
    "/etc/hosts can't be locked": (hosts_locked, "hosts.lock"),
    "configuration": (BROKEN, ""),
    "leases": (leases_unwritable, "virbr2.status"),
    "log": (no_syslog, ""),
}


@pytest.mark.parametrize("what", NAMES)
def test_nobody_is_refused_for_the_sake_of(scene: Scene, what: str) -> None:
    fault, says = NAMES[what]
    lab, second = scene.lab, scene.other
    before = look(lab)
    if what == "configuration":  # it is about more than names to a network
        lab.start(second)
    with fault(scene):
        if what != "configuration":
            lab.start(second)
        mine, theirs = (known(lab, network) for network in (scene.running, second))
        for guest in (mine, theirs, scene.guest):
            lab.host.run(["ping", "-q", "-c", "1", guest.loop])
        if says:
            result = lab.host.run(["loopnet", "sync"], check=False)
            assert (result.returncode, result.stderr.count("\n")) == (4, 1), result
            assert says in result.stderr
            todo = lab.host.run(["loopnet", "plan"], check=False).stdout
            assert re.fullmatch("# (/etc/hosts|for dnsmasq): .*\n", todo)
        elif what != "configuration":
            assert lab.host.run(["loopnet", "plan"], check=False).stdout == "nothing to do\n"
        for guest in (mine, theirs):
            lab.destroy(guest)
        lab.stop(second)
    lab.host.run(["loopnet", "sync"])
    assert_same(before, look(lab))
