"""Guests that virt-install, virt-clone and virsh make, copy and take back are at home on loopnet."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Iterator, List, Tuple

import pytest

from tests.sandbox import INTERNET, Guest
from tests.sandbox.tools import imported, known, tool, virt_install
from tests.sandbox.world import World, template, wait

DISK = "/run/sandbox/vm1.qcow2"
TFTP = "/run/sandbox/tftp"


@pytest.fixture(autouse=True)
def _cleaned(world: World) -> Iterator[None]:
    yield
    world.clean()
    world.host.run(["loopnet", "release", "--dead", "--yes"])  # the next one begins with the first number


def new_disk(world: World) -> str:
    """An empty disk: snapshots and clones are of a disk, though the guest boots without."""
    world.host.run(["qemu-img", "create", "-q", "-f", "qcow2", DISK, "16M"])
    return DISK


def call_itself(guest: Guest, words: str) -> None:
    guest.run(f"echo {words} >/www/index.html")


def test_virt_install_import(world: World) -> None:
    world.start()
    guest = imported(world.sandbox, "vm1")
    guest.wait_boot()
    inside = guest.wait_lease()
    assert inside == "10.127.1.2"
    assert world.published() == {"vm1.loopnet": "127.1.0.2"}
    assert world.page("vm1.loopnet") == "hello from vm1\n"
    assert guest.run(f"wget -qO- http://{INTERNET}/").startswith("hello")
    # What libvirt's own commands say is the host's view, too.
    told = ("net-dhcp-leases", "loopnet", guest.macs[0])
    wait(
        lambda: " 127.1.0.2/24 " in world.sandbox.virsh(*told),
        "the lease, of which dnsmasq tells after the guest",
    )
    for source in ([], ["--source", "lease"]):
        assert " 127.1.0.2/24" in world.sandbox.virsh("domifaddr", "vm1", *source)


def test_virt_install_cloud_init(world: World) -> None:
    """The NoCloud seed that virt-install makes is in the guest's drive."""
    world.start()
    world.host.sh("mkdir -p /var/lib/libvirt/boot")  # as libvirt's package has it
    world.path("/run/sandbox/user-data").write_text("#cloud-config\nhostname: seeded\n")
    guest = imported(world.sandbox, "vm1", "--cloud-init", "user-data=/run/sandbox/user-data")
    assert "cloudinit.iso" in world.sandbox.virsh("domblklist", "vm1", "--details")
    # virt-install has removed the file by now; QEMU has it open.
    world.host.sh(
        "seed=$(find /proc/[0-9]*/fd -lname '*cloudinit.iso*' | head -n 1)\n"
        "grep -aqi cidata $seed; grep -aq '^hostname: seeded' $seed"
    )
    guest.wait_boot()
    guest.wait_lease()
    assert world.page("vm1.loopnet") == "hello from vm1\n"


@pytest.fixture
def questions(world: World) -> Iterator[List[Tuple[str, str]]]:
    """(client, path) of what is asked of a web server on the host, port 8080, which hands out `SCRIPT`."""
    asked: List[Tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.client_address[0], self.path))
            self.send_response(200)
            self.send_header("Content-Length", str(len(SCRIPT)))
            self.end_headers()
            self.wfile.write(SCRIPT)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with world.host.call(lambda: HTTPServer(("0.0.0.0", 8080), Handler)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield asked
        server.shutdown()
        thread.join(10)


SCRIPT = b"#!ipxe\nimgfetch http://${next-server}:8080/second\nsleep 3600\n"
CHAIN = "#!ipxe\nchain http://${next-server}:8080/first/${net0/ip}/via/${net0/gateway}\n"


def test_pxe_boot(world: World, questions: List[Tuple[str, str]]) -> None:
    """iPXE, which is no Linux, gets its address and boots over TFTP and HTTP, from libvirt's own settings."""
    definition = template("loopnet").replace(
        "netmask='255.255.255.0'/>",
        f"netmask='255.255.255.0'><tftp root='{TFTP}'/><dhcp><bootp file='boot.ipxe'/></dhcp></ip>",
    )
    # Without IPv6 iPXE would wait for it for 13 seconds.
    world.define(world.host.run(["loopnet", "rewrite", "--ipv6", "ula"], input=definition).stdout)
    world.host.sh(f"mkdir -p {TFTP}")
    world.path(f"{TFTP}/boot.ipxe").write_text(CHAIN)
    world.sandbox.virsh("net-start", "loopnet")
    virt_install(world.sandbox, "vm1", "--pxe", "--memory", "64", "--disk", "none")
    wait(lambda: len(questions) > 1, "second question of iPXE", 120)
    assert questions == [("247.1.0.2", "/first/10.127.1.2/via/10.127.1.1"), ("247.1.0.2", "/second")]
    wait(lambda: f"sent {TFTP}/boot.ipxe to 247.1.0.2" in world.syslog(), "that in the log")
    # It answers, if leisurely.
    world.host.sh("ping -q -c 1 -w 20 vm1.loopnet")


def test_virt_clone(world: World) -> None:
    """The clone, which has its original's host name inside, gets a MAC and an address of its own."""
    world.start()
    original = imported(world.sandbox, "vm1", disk=new_disk(world))
    original.wait_boot()
    assert original.wait_lease() == "10.127.1.2"
    original.destroy()

    tool(world.sandbox, "virt-clone", "--original", "vm1", "--name", "vm2", "--auto-clone")
    definition = world.sandbox.virsh("dumpxml", "vm2").replace("/guests/vm1.", "/guests/vm2.")
    world.host.run(["virsh", "-q", "define", "/dev/stdin"], input=definition)
    clone = known(world.sandbox, "vm2")
    assert clone.macs != original.macs
    # The clone first: without a reservation it would now get its original's address.
    for guest, inside in ((clone, "10.127.1.3"), (original, "10.127.1.2")):
        guest.start()
        guest.wait_boot()
        assert guest.wait_lease() == inside
        call_itself(guest, guest.name)
    assert world.published() == {"vm1.loopnet": "127.1.0.2", "vm2.loopnet": "127.1.0.3"}
    for name in ("vm1", "vm2"):
        assert world.page(f"{name}.loopnet") == f"{name}\n"
    # By name in guests, too, whatever name each gave the DHCP server.
    assert original.resolve("vm2") == ["10.127.1.3"]
    assert clone.resolve("vm1") == ["10.127.1.2"]


def test_snapshots(world: World) -> None:
    """A guest goes back in time, with its memory, and nobody asks for an address."""
    world.start()
    disk = f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{new_disk(world)}'/>"
    guest = world.sandbox.guest("vm1", devices=disk + "<target dev='vda' bus='virtio'/></disk>")
    guest.start()
    guest.wait_boot()
    guest.wait_lease()
    where = world.published()["vm1.loopnet"]
    world.sandbox.virsh("snapshot-create-as", "vm1", "before")

    # While it runs; then once it is off and another has come meanwhile.
    for is_off in (False, True):
        call_itself(guest, "later")
        assert world.page(where) == "later\n"
        if is_off:
            guest.destroy()
            world.still("other")
        world.sandbox.virsh("snapshot-revert", "vm1", "before", "--running")
        assert world.published()["vm1.loopnet"] == where
        assert world.page(where) == "hello from vm1\n"
        assert guest.run(f"wget -qO- http://{INTERNET}/").startswith("hello")
    world.host.run(["loopnet", "status"])  # which fails if anything differs
