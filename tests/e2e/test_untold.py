"""NICs that no network port tells of, by the real programs: libvirt itself, qemu-bridge-helper, containers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from typing import Any, Dict, Iterator, List

import pytest

from tests.sandbox import INTERNET, Guest
from tests.sandbox.domain import derived_mac, interface_xml
from tests.sandbox.image import guest_image
from tests.sandbox.world import World, wait

BY_HAND, OF_SESSION = "127.1.0.50", "127.1.0.51"
USER = 4711
"""An unprivileged one, of the sandbox alone."""
HOME = "/run/sandbox/home"
DHCP_EVENT = """\
#!/bin/sh
[ $1 = bound ] || exit 0
ip address replace $ip/$mask dev eth0
ip route replace default via $router
"""


pytestmark = pytest.mark.usefixtures("cleaned")


@contextlib.contextmanager
def watching(world: World) -> Iterator[None]:
    with world.host.popen(["loopnet", "watch"]) as watch:
        try:
            yield
        finally:
            watch.terminate()
            watch.wait(10)


def on_bridge(xml: str) -> str:
    """Its NICs are on the network's bridge instead of the network."""
    return xml.replace("<interface type='network'>", "<interface type='bridge'>").replace(
        '<source network="loopnet"/>', "<source bridge='virbr1'/>"
    )


def listed(world: World) -> Dict[str, Any]:
    """By MAC address."""
    return {entry["mac"]: entry for entry in json.loads(world.host.run(["loopnet", "list", "--json"]).stdout)}


def assert_no_drift(world: World) -> None:
    assert world.host.run(["loopnet", "plan"], check=False).stdout == "nothing to do\n"


def pings(world: World, address: str) -> bool:
    return world.host.run(["ping", "-n", "-c1", "-W1", address], check=False).returncode == 0


def bridged(world: World, name: str) -> Guest:
    guest = world.sandbox.guest(name, ["loopnet"])
    world.host.run(["virsh", "-q", "define", "/dev/stdin"], input=on_bridge(guest.xml()))
    return guest


# --- <interface type='bridge'> ---------------------------------------------------------------------


def test_a_guest_on_the_bridge_itself(world: World) -> None:
    """It has address, name, DHCP and tables like any, by its start alone; a restarted daemon finds it again."""
    world.start()
    guest = bridged(world, "vm1")
    guest.start()
    guest.wait_boot()
    assert guest.wait_lease() == "10.127.1.2"
    where = "127.1.0.2"
    assert world.published() == {"vm1.loopnet": where}
    assert world.page(where) == "hello from vm1\n"
    guest.run(f"ping -c1 {INTERNET}")
    entry = listed(world)[guest.macs[0]]
    assert (entry["state"], entry["guest"], entry["loop_address"]) == ("up", "vm1", where)
    assert entry["tap"].startswith("vnet")
    assert f"vm1 {where}" in world.host.sh(f"ip link show {entry['tap']}")
    assert_no_drift(world)
    world.sandbox.stop_libvirtd()
    world.sandbox.start_libvirtd()
    assert world.page(where) == "hello from vm1\n"
    assert_no_drift(world)
    for state in ("down", "up"):
        world.sandbox.virsh("domif-setlink", "vm1", guest.macs[0], state)
    wait(lambda: pings(world, where), "answer after the link was up again")
    assert world.host.run(["loopnet", "sync"]).stdout == "nothing to do\n"
    guest.destroy()
    assert world.published() == {}
    assert guest.macs[0] not in world.host.run(["nft", "list", "ruleset"]).stdout
    assert_no_drift(world)
    assert listed(world)[guest.macs[0]]["state"] == "reserved"
    guest.start()  # the same address, and another tap
    guest.wait_boot()
    assert guest.wait_lease() == "10.127.1.2"
    wait(lambda: pings(world, where), "answer of the guest that was started again")


def test_the_network_is_stopped_and_started_under_it(world: World) -> None:
    """libvirt thinks that it is there all the time."""
    world.start()
    guest = bridged(world, "vm1")
    guest.start()
    guest.wait_boot()
    guest.wait_lease()
    for verb in ("net-destroy", "net-start"):
        world.sandbox.virsh(verb, "loopnet")
    lacking = f"guest vm1 ({guest.macs[0]}) runs and is not plugged into loopnet"
    assert lacking in world.host.run(["loopnet", "status"], check=False).stdout
    assert f"guest vm1 ({guest.macs[0]}): plugged in again\n" in world.host.run(["loopnet", "sync"]).stdout
    wait(lambda: pings(world, "127.1.0.2"), "answer")
    assert listed(world)[guest.macs[0]]["state"] == "up"
    assert world.published() == {"vm1.loopnet": "127.1.0.2"}
    assert_no_drift(world)
    with watching(world):
        for verb in ("net-destroy", "net-start"):
            world.sandbox.virsh(verb, "loopnet")
        wait(lambda: pings(world, "127.1.0.2"), "answer")


def test_a_clone_on_the_bridge_is_refused(world: World) -> None:
    world.start()
    (guest,) = world.boot("vm1")
    clone = world.sandbox.guest("clone", ["loopnet"], macs=guest.macs)
    world.host.run(["virsh", "-q", "define", "/dev/stdin"], input=on_bridge(clone.xml()))
    refused = world.refusal("start", "clone")
    assert "guest 'vm1'" in refused
    assert "virsh edit clone" in refused
    assert_no_drift(world)
    assert world.page("127.1.0.2") == "hello from vm1\n"
    # Plugged into a guest that runs nobody is asked; it is let in no more than that.
    world.still("vm2", ())
    plug = on_bridge(interface_xml(guest.macs[0], "loopnet"))
    world.host.run(["virsh", "-q", "attach-device", "vm2", "/dev/stdin"], input=plug)
    assert world.host.run(["loopnet", "sync"]).stdout == "nothing to do\n"
    told = json.loads(world.host.run(["loopnet", "list", "--json"]).stdout)
    (second,) = [entry for entry in told if entry["state"] == "unknown"]
    assert (second["mac"], second["why"]) == (guest.macs[0], "guest vm1 has this MAC address already")
    assert world.page("127.1.0.2") == "hello from vm1\n"


@pytest.mark.parametrize("by", ["sync", "watch"])
def test_hot_plugged_on_the_bridge(world: World, by: str) -> None:
    """No hook tells of it, and libvirt's record of the guest does."""
    world.start()
    (guest,) = world.boot("vm1")
    mac = derived_mac("vm1", 1)
    plug = on_bridge(interface_xml(mac, "loopnet"))
    with watching(world) if by == "watch" else contextlib.nullcontext():
        world.host.run(["virsh", "-q", "attach-device", "vm1", "/dev/stdin"], input=plug)
        if by == "sync":
            status = world.host.run(["loopnet", "status"], check=False)
            assert status.returncode == 1
            assert mac in status.stdout
            assert f"guest vm1 ({mac})" in world.host.run(["loopnet", "sync"]).stdout
        assert guest.wait_lease(1) == "10.127.1.3"
        wait(lambda: pings(world, "127.1.0.3"), "answer of the second NIC")
        wait(lambda: listed(world)[mac]["state"] == "up", "the NIC in the list")
        wait(lambda: pings(world, "127.1.0.2"), "answer of the first NIC")
        tap = listed(world)[mac]["tap"]
        world.host.run(["virsh", "-q", "detach-device", "vm1", "/dev/stdin"], input=plug)
        rules = ["nft", "list", "map", "bridge", "loopnet", "bound"]
        if by == "sync":
            wait(lambda: world.host.run(["loopnet", "plan"], check=False).returncode == 1, "drift")
            world.host.run(["loopnet", "sync"])
        gone = rf'"{tap}" \. {mac}'
        wait(lambda: not re.search(gone, world.host.run(rules).stdout), "the NIC gone from the rules")
        if by == "watch":  # which may be at it still
            wait(lambda: world.host.run(["loopnet", "plan"], check=False).returncode == 0, "no drift")
    assert_no_drift(world)


# --- by hand ---------------------------------------------------------------------------------------


def test_a_bare_veth(world: World) -> None:
    """A container at its barest. Its engine tells nobody; whoever reserves an address for it does."""
    world.start()
    mac = "02:00:00:00:00:0a"
    script = world.path("/run/sandbox/dhcp-event")
    script.write_text(DHCP_EVENT)
    script.chmod(0o755)
    world.host.sh(
        "ip netns add inside\n"
        f"ip link add veth1 type veth peer name eth0 address {mac} netns inside\n"
        "ip link set veth1 master virbr1 up; ip -n inside link set eth0 up; ip -n inside link set lo up"
    )
    ask = "ip netns exec inside busybox udhcpc -q -n -t 3 -T 1 -i eth0 -s /run/sandbox/dhcp-event"
    try:
        world.host.run(["sh", "-c", ask], check=False)
        entry = listed(world)[mac]
        assert (entry["state"], entry["tap"]) == ("unknown", "veth1")
        assert "10.127.1." not in world.host.sh("ip -n inside -4 address show dev eth0")
        with watching(world):
            world.host.run(["loopnet", "reserve", mac, BY_HAND])
            wait(lambda: listed(world)[mac]["state"] == "up", "the container in the list")
            world.host.sh(ask)
            assert "10.127.1.50/24" in world.host.sh("ip -n inside -4 address show dev eth0")
            wait(lambda: pings(world, BY_HAND), "its answer")
            world.host.sh(f"ip netns exec inside ping -n -c1 {INTERNET}")
            world.host.sh("ip link delete veth1")
            wait(lambda: listed(world)[mac]["state"] == "reserved", "its end")
    finally:
        world.host.sh("ip netns delete inside")


NSPAWN = """\
mount -t cgroup2 cgroup /sys/fs/cgroup
mkdir /sys/fs/cgroup/$GROUP
echo $$ >/sys/fs/cgroup/$GROUP/cgroup.procs
exec systemd-nspawn --quiet --directory /run/sandbox/box --machine box --register=no --keep-unit \
    --network-bridge=virbr1 --as-pid2 --pipe /bin/sh /start
"""
LEAVE = """\
cd /sys/fs/cgroup
find $GROUP -depth -type d -exec rmdir {} +
cd /
umount /sys/fs/cgroup
rm -r /run/systemd
"""
START = """\
export PATH=/bin
ip link set lo up; ip link set host0 up
echo hello from box >/index.html
httpd -p 0.0.0.0:80 -h /
exec udhcpc -f -i host0 -t 1000 -T 1 -s /dhcp-event
"""


@pytest.fixture
def nspawn(world: World) -> Iterator[str]:
    """The host's device of a container that systemd-nspawn has plugged into the bridge; it asks for an address."""
    group = f"loopnet-nspawn-{os.getpid()}"
    root = world.path("/run/sandbox/box")
    for directory in ("bin", "usr", "etc", "proc", "sys", "dev", "run", "tmp", "root"):
        (root / directory).mkdir(parents=True)
    world.host.sh(
        "cp /bin/busybox /run/sandbox/box/bin; chroot /run/sandbox/box /bin/busybox --install -s /bin"
    )
    (root / "etc/os-release").write_text("ID=box\n")
    (root / "start").write_text(START)
    (root / "dhcp-event").write_text(DHCP_EVENT.replace("eth0", "host0"))
    (root / "dhcp-event").chmod(0o755)
    world.start()
    with world.host.popen(["env", f"GROUP={group}", "sh", "-euc", NSPAWN]) as process:
        try:
            wait(
                lambda: "vb-box" in world.host.sh("ip link"),
                "vb-box",
            )
            yield "vb-box"
        finally:
            process.terminate()
            process.wait(10)
            leave = ["env", f"GROUP={group}", "sh", "-euc", LEAVE]
            wait(lambda: world.host.run(leave, check=False).returncode == 0, "empty control groups")


def test_a_container_of_systemd_nspawn(world: World, nspawn: str) -> None:
    """As its user meets it: list names it, and what list says lets it in."""

    def unknown() -> List[Dict[str, Any]]:
        return [each for each in listed(world).values() if each["state"] == "unknown"]

    (entry,) = wait(unknown, "a NIC that is not known")
    assert entry["tap"] == nspawn
    doctor = world.host.run(["loopnet", "doctor"], check=False).stdout
    assert f"{entry['mac']} at {nspawn}" in doctor
    assert entry["command"] in doctor
    world.host.sh(entry["command"])
    where = listed(world)[entry["mac"]]["loop_address"]
    wait(lambda: world.host.run(["curl", "-sfm1", f"http://{where}/"], check=False).stdout, "its page")
    assert world.page(where) == "hello from box\n"
    assert listed(world)[entry["mac"]]["state"] == "up"
    assert_no_drift(world)


@pytest.fixture
def session(world: World) -> Iterator[List[str]]:
    """A user who may use the bridge, by bridge.conf; what a command of that user begins with."""
    for name, line in (("passwd", f":{USER}::{HOME}:/bin/sh"), ("group", ":")):
        with world.path(f"/etc/{name}").open("a") as file:
            file.write(f"somebody:x:{USER}{line}\n")
    for directory in (HOME, f"{HOME}/run", f"{HOME}/.config/libvirt"):
        world.path(directory).mkdir(parents=True)
    image = guest_image()
    for file_of in (image.kernel, image.initramfs):
        shutil.copyfile(file_of, world.path(f"{HOME}/{file_of.name}"))
    world.path(f"{HOME}/.config/libvirt/qemu.conf").write_text(
        f'bridge_helper = "{HOME}/qemu-bridge-helper"\n'
    )
    world.host.sh(
        f"mkdir -p /etc/qemu; echo allow virbr1 >/etc/qemu/bridge.conf\n"
        # everybody's, as udev makes it: Ubuntu's helper opens it as the user
        f"mknod -m 666 /run/sandbox/tun c 10 200; mount --bind /run/sandbox/tun /dev/net/tun\n"
        f"chown -R {USER}:{USER} {HOME}; chmod 711 /run/sandbox\n"
        # as Debian's README says that its administrator should, by dpkg-statoverride
        f"cp /usr/lib/qemu/qemu-bridge-helper {HOME}/; chmod u+s {HOME}/qemu-bridge-helper"
    )
    user = ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups"]
    environment = [
        "env",
        "-i",
        f"HOME={HOME}",
        f"XDG_RUNTIME_DIR={HOME}/run",
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
    ]
    yield [*user, *environment]
    world.host.sh(
        f"pkill -u {USER} || true; sleep 0.2; pkill -9 -u {USER} || true; rm -rf {HOME} /etc/qemu\n"
        "umount /dev/net/tun; rm /run/sandbox/tun"
    )


def test_a_guest_of_a_session(world: World, session: List[str]) -> None:
    """As GNOME Boxes has them. Its own daemon's word counts for nothing; a reservation by hand does."""
    world.start()
    guest = Guest(world.sandbox, "boxes", ["loopnet"], base=f"{HOME}/boxes")
    mac = guest.macs[0]
    xml = on_bridge(guest.xml()).replace(
        "<serial type='pty'>", "<serial type='null'>"
    )  # the sandbox's are root's
    image = guest_image()
    for file in (image.kernel, image.initramfs):
        xml = xml.replace(str(file), f"{HOME}/{file.name}")
    virsh = [*session, "virsh", "-q", "-c", "qemu:///session"]
    world.host.run(["loopnet", "reserve", mac, OF_SESSION])
    with watching(world):
        world.path(f"{HOME}/boxes.xml").write_text(xml)
        world.host.run([*virsh, "create", f"{HOME}/boxes.xml"])
        guest.wait_boot()
        assert guest.wait_lease() == "10.127.1.51"
        wait(lambda: pings(world, OF_SESSION), "answer of the session's guest")
        assert world.page(OF_SESSION) == "hello from boxes\n"
        guest.run(f"ping -c1 {INTERNET}")
        entry = listed(world)[mac]
        assert entry["state"] == "up"
        assert re.fullmatch(r"tap\d+", entry["tap"])
        world.host.run([*virsh, "destroy", "boxes"])
        wait(lambda: mac not in world.host.run(["nft", "list", "ruleset"]).stdout, "its end")
    assert_no_drift(world)
    assert listed(world)[mac]["state"] == "reserved"
