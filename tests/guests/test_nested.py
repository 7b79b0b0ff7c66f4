"""The real thing: a guest with libvirt and loopnet, whose own guest is at the same address.

The outer guest is emulated, and what it emulates in turn would take minutes to boot: its own guest is a
container of libvirt's LXC driver, with the root file system of the small test guest.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Iterator, NamedTuple

import pytest

from tests.machines.guest import SystemGuest
from tests.sandbox import INTERNET
from tests.sandbox.cache import cache_directory
from tests.sandbox.netboot import WebServer
from tests.sandbox.world import MAPPED, World, wait

from .hostguest import LXC, START_LEAF, boot, checkout, leaf_files

pytestmark = pytest.mark.timeout(1800)  # the image may have to be built

INSTALL = """\
mkdir -p /srv/www
cd /srv
tar -xf /dev/vdb
make -s -C checkout install
echo hello from inner >www/index.html
mkdir www/cgi-bin
printf '#!/bin/sh\\necho\\necho "$REMOTE_ADDR"\\n' >www/cgi-bin/peer
chmod 755 www/cgi-bin/peer
busybox httpd -p 0.0.0.0:80 -h /srv/www
"""
START = """\
virsh -q net-define /usr/local/share/libvirt-loopnet/loopnet.xml
virsh -q net-start loopnet
"""
# An IPsec tunnel between 192.168.77.1, the inner host, and 192.168.77.2, its leaf, by static keys.
IPSEC = """\
secure() {{ # own peer inner-own inner-peer spi-out spi-in device
    keys="enc cbc(aes) 0x$(printf 'a1%.0s' $(seq 16)) auth hmac(sha256) 0x$(printf 'b2%.0s' $(seq 32))"
    ip xfrm state add src $1 dst $2 proto esp spi $5 mode tunnel $keys
    ip xfrm state add src $2 dst $1 proto esp spi $6 mode tunnel $keys
    ip xfrm policy add src $3 dst $4 dir out tmpl src $1 dst $2 proto esp mode tunnel
    ip xfrm policy add src $4 dst $3 dir in tmpl src $2 dst $1 proto esp mode tunnel
    ip address add $3/32 dev $7
    ip route add $4/32 dev $7 src $3
}}
secure {}
"""
ON_INNER = "127.1.0.254 127.1.0.2 192.168.77.1 192.168.77.2 0x1001 0x1002 virbr0"
ON_LEAF = "10.127.1.2 10.127.1.254 192.168.77.2 192.168.77.1 0x1002 0x1001 eth0"


class Nest(NamedTuple):
    """The outermost host, its guest, which is a host, and a guest of that, the leaf."""

    world: World
    inner: SystemGuest

    def ask_leaf(self, command: str) -> str:
        """What one of busybox's commands prints in the leaf."""
        first = "$(pgrep -o -P $(cat /run/libvirt/lxc/leaf.pid))"
        enter = f"nsenter --target {first} --net --mount --root"
        return self.inner.run(f"{enter} /bin/busybox {command}", timeout=200)


@pytest.fixture(scope="module")
def nest() -> Iterator[Nest]:
    with tempfile.TemporaryDirectory(prefix="run-", dir=cache_directory()) as name, World() as world:
        world.start(MAPPED)
        inner = boot(world, Path(name), {**checkout(), **leaf_files()}, "apparmor=0")
        for script in (INSTALL, START, START_LEAF):
            inner.run(f"set -e\n{script}", timeout=300)
        wait(
            lambda: "obtained" in inner.run("cat /srv/leaf/log || true", timeout=100), "the leaf's lease", 600
        )
        yield Nest(world, inner)


def test_each_host_has_its_guest_at_the_same_address(nest: Nest) -> None:
    page = "curl -sS --max-time 60 http://"
    assert nest.world.host.sh(f"{page}127.1.0.2/", timeout=70) == "hello from inner\n"
    assert nest.inner.run(f"{page}127.1.0.2/", timeout=70) == "hello from leaf\n"
    assert nest.world.host.sh("ping -q -c 1 -W 20 127.1.0.2")
    assert nest.inner.run("ping -q -c 1 -W 20 127.1.0.2")


def test_names(nest: Nest) -> None:
    """Two worlds: the inner host knows its leaf, the outermost one knows the inner host."""
    assert nest.world.resolve("inner.loopnet") == ["127.1.0.2"]
    assert nest.world.resolve("leaf.loopnet") == []
    assert nest.inner.run("getent ahostsv4 leaf.loopnet").split()[0] == "127.1.0.2"
    assert nest.ask_leaf("nslookup internet.example").count(INTERNET) == 1


def test_the_guest_prefixes_are_the_same(nest: Nest) -> None:
    assert nest.inner.address() == "10.127.1.2"
    assert "inet 10.127.1.2/24 " in nest.ask_leaf("ip -4 address show dev eth0")


def test_leaf_reaches_the_internet(nest: Nest) -> None:
    page = f"hello from the internet; you are {nest.world.sandbox.host_address}\n"
    assert nest.inner.run(f"curl -sS --max-time 60 http://{INTERNET}/", timeout=70) == page
    for name in (INTERNET, "internet.example"):
        assert nest.ask_leaf(f"wget -qO- http://{name}/") == page


def test_every_host_knows_its_guest_in_the_transit_prefix(nest: Nest) -> None:
    with WebServer(nest.world.host, {"/file": b"from the outermost host"}) as server:
        page = nest.inner.run("curl -sS --max-time 60 http://10.127.1.1/file", timeout=70)
        assert page == "from the outermost host"
        assert server.who("/file") == ["247.1.0.2"]
    assert nest.ask_leaf("wget -qO- http://10.127.1.1/cgi-bin/peer") == "247.1.0.2\n"
    assert nest.ask_leaf("wget -qO- http://10.127.1.1/") == "hello from inner\n"


def test_ipsec_between_host_and_guest(nest: Nest) -> None:
    """By the kernel's ESP, which the outermost one may lack: what comes out of it is no guest's forgery."""
    bridge = nest.inner.run("virsh -q net-info loopnet | sed -n 's/^Bridge: *//p'").strip()
    nest.inner.run(f"set -e\n{IPSEC.format(ON_INNER.replace('virbr0', bridge))}", timeout=100)
    enter = "nsenter --net --target $(pgrep -o -P $(cat /run/libvirt/lxc/leaf.pid)) sh"
    nest.inner.run(f"set -e\n{enter} <<'END'\nset -e\n{IPSEC.format(ON_LEAF)}END", timeout=100)
    ping = nest.inner.run("ping -q -c 5 -i 0.3 -W 20 192.168.77.2", timeout=120)
    assert " 0% packet loss" in ping
    assert " 0% packet loss" in nest.ask_leaf("ping -q -c 5 -W 20 192.168.77.1")
    used = nest.inner.run("ip -s xfrm state list spi 0x1001")  # five questions and five answers
    assert re.search(r"10\(packets\)", used), used


def test_nobody_finds_anything_to_mend(nest: Nest) -> None:
    assert "nothing to do" in nest.world.host.sh("loopnet plan")
    assert "nothing to do" in nest.inner.run("loopnet plan", timeout=200)


def test_inner_host_is_left_as_it_was(nest: Nest) -> None:
    """Last: the networks stop from the inside out."""
    nest.inner.run(f"{LXC} destroy leaf; virsh -q net-destroy loopnet", timeout=200)
    assert "127.0.0.1/8 " in nest.inner.run("ip -4 address show dev lo")
    assert nest.inner.run("nft list tables | grep loopnet || true") == ""
    page = nest.world.host.sh("curl -sS --max-time 60 http://127.1.0.2/", timeout=70)
    assert page == "hello from inner\n"
