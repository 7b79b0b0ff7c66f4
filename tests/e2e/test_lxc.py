"""Containers of libvirt's LXC driver on a loopnet network: the network's hook is all there is of hooks."""

from __future__ import annotations

import os
import shutil
import socket
from typing import Iterator

import pytest

from tests.sandbox import CHECKOUT, INTERNET
from tests.sandbox.cgroups import ControlGroups
from tests.sandbox.world import World, wait

LXC = ("-c", "lxc:///system")
LOOP, LEASED, GATEWAY, HOST = "127.1.0.2", "10.127.1.2", "10.127.1.1", "10.127.1.254"
MAC = "52:54:00:00:0c:0{}"
FUSE = 10, 229
"""Device numbers of /dev/fuse (linux/fuse.h), with which libvirt shows a container its own /proc/meminfo."""

DOMAIN = """\
<domain type='lxc'>
  <name>{name}</name>
  <memory unit='MiB'>64</memory>
  <os><type>exe</type><init>/sbin/init</init></os>
  <devices>
    <filesystem type='mount'><source dir='/run/sandbox/{name}'/><target dir='/'/></filesystem>
    <interface type='network'><mac address='{mac}'/><source network='loopnet'/></interface>
    <console type='pty'/>
  </devices>
</domain>
"""
INIT = """\
#!/bin/sh
export PATH=/bin
hostname {name}
echo 'hello from {name}' >/www/index.html
httpd -p 0.0.0.0:80 -h /www
exec udhcpc -f -i eth0 -x hostname:{name} -s /sbin/dhcp-event >/run/log 2>&1
"""
DHCP_EVENT = """\
#!/bin/sh
export PATH=/bin
case $1 in
    deconfig) ip link set lo up; ip link set eth0 up ;;
    bound | renew)
        ip address replace $ip/$mask dev eth0
        ip route replace default via $router
        echo nameserver $dns >/etc/resolv.conf ;;
esac
"""


def make(world: World, name: str, mac: str) -> None:
    """The container's files, busybox above all, and its definition."""
    root = world.path(f"/run/sandbox/{name}")
    for directory in ("bin", "sbin", "etc", "dev", "proc", "sys", "run", "tmp", "www"):
        (root / directory).mkdir(parents=True)
    world.host.sh(
        f"cp /bin/busybox /run/sandbox/{name}/bin; chroot /run/sandbox/{name} /bin/busybox --install -s /bin"
    )
    shutil.copytree(CHECKOUT / "tests/sandbox/rootfs/www/cgi-bin", root / "www/cgi-bin")
    for file, text in (("init", INIT.format(name=name)), ("dhcp-event", DHCP_EVENT)):
        (root / "sbin" / file).write_text(text)
        (root / "sbin" / file).chmod(0o755)
    xml = DOMAIN.format(name=name, mac=mac)
    world.host.run(["virsh", "-q", *LXC, "define", "/dev/stdin"], input=xml)


def start(world: World, name: str) -> None:
    """Starts a container and waits until it serves."""
    world.sandbox.virsh(*LXC, "start", name)
    wait(lambda: "obtained" in run(world, name, "cat /run/log || true"), f"lease of {name}")


def run(world: World, name: str, command: str) -> str:
    """In the container, but in the control group of who asks: virsh lxc-enter-namespace wants to move there."""
    controller = world.sandbox.virsh(*LXC, "domid", name).strip()
    first = world.host.sh(f"ps -o pid= --ppid {controller}").split()[0]
    inside = ["--target", first, "--mount", "--net", "--uts", "--ipc", "--pid", "--root", "--wd"]
    return world.host.run(["nsenter", *inside, "/bin/sh", "-c", f"PATH=/bin; {command}"]).stdout


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """With the containers c1, running, and c2."""
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    with ControlGroups(f"loopnet-test-{os.getpid()}") as groups, World() as made:
        made.host.run(["mknod", "/dev/fuse", "c", *map(str, FUSE)])
        made.path("/etc/libvirt/lxc.conf").write_text('security_driver = "none"\n')
        made.sandbox.stop_libvirtd()
        groups.start_libvirtd(made.sandbox)
        made.start()
        for number in (1, 2):
            make(made, f"c{number}", MAC.format(number))
        start(made, "c1")
        yield made
        for name in made.sandbox.virsh(*LXC, "list", "--name").split():
            made.sandbox.virsh(*LXC, "destroy", name)
        for name in ("c1", "c2"):
            made.sandbox.virsh(*LXC, "undefine", name)


def test_container_has_its_address(world: World) -> None:
    assert f"inet {LEASED}/24" in run(world, "c1", "ip -4 address show eth0")
    assert f"default via {GATEWAY}" in run(world, "c1", "ip route")


def test_host_reaches_the_container(world: World) -> None:
    assert world.page(LOOP) == "hello from c1\n"
    assert world.page(LOOP, "cgi-bin/peer") == f"{HOST}\n"
    with pytest.raises(ConnectionRefusedError):
        world.udp(LOOP, 9, "hello")


def test_names(world: World) -> None:
    assert world.resolve("c1.loopnet") == [LOOP]
    assert world.page("c1.loopnet") == "hello from c1\n"
    assert LEASED in run(world, "c1", f"nslookup c1.loopnet {GATEWAY}")


def test_list(world: World) -> None:
    """There is no hook of the LXC driver's: its MAC address lets it in, its driver's own file tells the device."""
    row = world.host.sh("loopnet list").splitlines()[1].split()
    veth = world.sandbox.virsh(*LXC, "domiflist", "c1").split()[0]
    assert row == ["c1", "c1.loopnet", "loopnet", MAC.format(1), LOOP, LEASED, veth, "up"]
    assert "drift:  none" in world.host.sh("loopnet status")


def test_container_reaches_host_and_internet(world: World) -> None:
    page = run(world, "c1", f"wget -qO- http://{INTERNET}/")
    assert page == f"hello from the internet; you are {world.sandbox.host_address}\n"
    with world.listen("0.0.0.0") as server:
        run(world, "c1", f"timeout 1 nc {GATEWAY} {server.getsockname()[1]} </dev/null || true")
        connection, (peer, _) = server.accept()
        connection.close()
    assert peer == "247.1.0.2"
    with world.listen("127.0.0.1") as server, pytest.raises(socket.timeout):
        run(world, "c1", f"timeout 1 nc {GATEWAY} {server.getsockname()[1]} </dev/null || true")
        server.settimeout(0.5)
        server.accept()


def test_a_container_that_lost_its_network_is_named(world: World) -> None:
    """libvirt's LXC driver can't update a running container's NIC."""
    world.sandbox.virsh("net-destroy", "loopnet")
    world.sandbox.virsh("net-start", "loopnet")
    cure = "virsh -c lxc:///system shutdown c1, then virsh -c lxc:///system start c1"
    doctor = world.host.run(["loopnet", "doctor"], check=False)
    assert doctor.returncode == 1
    assert f"guest c1 ({MAC.format(1)}) runs and is not plugged into loopnet" in doctor.stdout
    assert f"fix:  {cure}" in doctor.stdout
    done = world.host.run(["loopnet", "sync"], check=False)
    assert done.returncode == 4
    assert cure in done.stderr
    assert world.host.sh("loopnet list").splitlines()[1].split()[-1] == "off"
    world.sandbox.virsh(*LXC, "destroy", "c1")
    start(world, "c1")
    assert world.page(LOOP) == "hello from c1\n"
    assert world.host.sh("loopnet sync") == "nothing to do\n"


def test_a_restart_keeps_the_address(world: World) -> None:
    world.sandbox.virsh(*LXC, "destroy", "c1")
    wait(lambda: world.resolve("c1.loopnet") == [], "name gone")
    assert world.host.sh("loopnet release --dead --yes") == "nothing to do\n"  # QEMU's driver knows it not
    start(world, "c2")
    start(world, "c1")
    assert world.page(LOOP) == "hello from c1\n"
    assert world.page("127.1.0.3") == "hello from c2\n"
    assert world.page("c2.loopnet") == "hello from c2\n"
    assert run(world, "c1", "wget -qO- http://10.127.1.3/") == "hello from c2\n"
