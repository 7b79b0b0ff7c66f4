"""Debian 13 with AppArmor enforcing, libvirtd and dnsmasq both confined, and the .deb: all works, nothing is denied.

AppArmor is the kernel's own here, in a machine that is a guest. To boot a guest in it, emulated by what is emulated,
takes half an hour: one is started, confined as QEMU is, with its CPU stopped; a container beside it does what takes
a running system. Debian's profile for dnsmasq comes in complain mode (openSUSE's doesn't): it is enforced first, as
aa-enforce does.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Iterator

import pytest

from tests.machines.guest import SystemGuest
from tests.sandbox import CHECKOUT
from tests.sandbox.cache import cache_directory
from tests.sandbox.world import MAPPED, World, wait

from .hostguest import LEAF_MAC, LXC, START_LEAF, Files, boot, leaf_files

pytestmark = pytest.mark.timeout(5400)  # the image may have to be built, and nothing is fast

SLOW = 900.0  # on a busy machine the package alone takes five minutes
STILL = """\
<domain type='qemu'>
  <name>still</name>
  <memory unit='MiB'>32</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <interface type='network'>
      <source network='loopnet'/>
      <model type='virtio'/>
      <rom enabled='no'/>
    </interface>
  </devices>
</domain>
"""
ENFORCE = """\
sed -i 's/flags=(complain,/flags=(/; s/ flags=(complain)//' /etc/apparmor.d/usr.sbin.dnsmasq
apparmor_parser -r /etc/apparmor.d/usr.sbin.dnsmasq
"""
INSTALL = """\
cd /srv
tar -xf /dev/vdb
dpkg -i loopnet.deb
"""
START = """\
virsh -q net-start loopnet
virsh -q define /srv/still.xml
virsh -q start --paused still
"""
LEASES = "virsh -q net-dhcp-leases loopnet | tr -s ' '"
"""How wide its columns are depends on what is in them, and with -q not on their headings."""
DENIED = "journalctl -b -o cat --no-pager | grep 'apparmor=\"DENIED\"' || true"
"""The kernel's log, and the audit messages that journald takes from it."""
RESERVATIONS_ALONE = """\
echo '/var/lib/libvirt/dnsmasq/*.loopnet/{,*} r,' >>/etc/apparmor.d/local/usr.sbin.dnsmasq
apparmor_parser -r /etc/apparmor.d/usr.sbin.dnsmasq
"""
OCCUPY = """\
cat >/run/occupy <<'END'
import fcntl, time
file = open("/run/leaseshelper.pid", "a")
fcntl.lockf(file, fcntl.LOCK_EX)
open("/run/occupied", "w")
time.sleep(3600)
END
python3 /run/occupy </dev/null >/dev/null 2>&1 &
echo $! >/run/occupier
until [ -e /run/occupied ]; do sleep 1; done
pkill -HUP dnsmasq
"""
"""libvirt's lease helper waits for this file, for as long as another has it."""
FORBIDDEN = "aa-exec -p dnsmasq -- /bin/sh -c ': </etc/shadow' 2>&1 || true"


@pytest.fixture(scope="module")
def inner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemGuest]:
    packages = tmp_path_factory.mktemp("deb")
    build = [str(CHECKOUT / "packaging/build"), "deb", str(packages)]
    subprocess.run(build, check=True, timeout=300)
    files: Files = {
        "loopnet.deb": next(packages.glob("libvirt-loopnet_*.deb")),
        **leaf_files(),
        "still.xml": STILL,
    }
    with tempfile.TemporaryDirectory(prefix="run-", dir=cache_directory()) as name, World() as world:
        world.start(MAPPED)
        machine = boot(world, Path(name), files)
        for script in (ENFORCE, INSTALL, START, START_LEAF):
            print(machine.run(f"set -e\n{script}", timeout=SLOW))
        try:
            yield machine
        finally:
            print(machine.run(DENIED, timeout=SLOW))


def poll(machine: SystemGuest, command: str, wanted: str, timeout: float = SLOW) -> str:
    """What ``command`` prints once ``wanted`` is in it; each time costs the emulated machine seconds."""

    def found() -> str:
        told = machine.run(command, check=False, timeout=100)
        time.sleep(1)
        return told if wanted in told else ""

    return wait(found, f"{wanted!r} of {command}", timeout)


def test_they_are_confined(inner: SystemGuest, capsys: pytest.CaptureFixture[str]) -> None:
    status = inner.run("aa-status", timeout=SLOW)
    with capsys.disabled():
        print(f"\n{status}")
    processes = status[status.index("processes are in enforce mode") :].partition(
        "processes are in complain"
    )[0]
    assert re.search(r"/usr/sbin/libvirtd \(\d+\) libvirtd\n", processes), status
    assert re.search(r"/usr/sbin/dnsmasq \(\d+\) (/usr/sbin/)?dnsmasq\n", processes), status
    assert re.search(r"/usr/bin/qemu-system-x86_64 \(\d+\) libvirt-[0-9a-f-]{36}\n", processes), status


def test_guest_is_reached(inner: SystemGuest) -> None:
    poll(inner, "curl -sS --max-time 20 http://127.1.0.3/", "hello from leaf\n")
    names = inner.run("getent ahostsv4 leaf.loopnet; getent ahostsv4 still.loopnet", timeout=100)
    assert {line.split()[0] for line in names.splitlines()} == {"127.1.0.2", "127.1.0.3"}
    assert "hello from leaf\n" in inner.run("curl -sS --max-time 60 http://leaf.loopnet/", timeout=70)


def test_libvirt_lists_the_loop_address(inner: SystemGuest) -> None:
    poll(inner, LEASES, f" {LEAF_MAC} ipv4 127.1.0.3/24 leaf ")


def test_a_network_that_starts_again(inner: SystemGuest) -> None:
    """dnsmasq begins with the list of leases that libvirt has; guests that run are plugged in again."""
    inner.run(f"{LXC} destroy leaf; virsh -q net-destroy loopnet", timeout=SLOW)
    inner.run(f"set -e; virsh -q net-start loopnet; {LXC} start leaf", timeout=SLOW)
    poll(inner, "curl -sS --max-time 20 http://127.1.0.3/", "hello from leaf\n")
    poll(inner, LEASES, " 127.1.0.3/24 ")
    poll(inner, "loopnet list | grep ^still", " up")


def test_what_was_taken_away_comes_back(inner: SystemGuest) -> None:
    """By the service that watches; and by hand."""
    assert inner.run("systemctl is-active loopnet-watch").strip() == "active"
    assert "nothing to do" in inner.run("loopnet plan", timeout=SLOW)
    inner.run("nft flush ruleset", timeout=100)
    poll(inner, "nft list tables", "table bridge loopnet")
    poll(inner, "loopnet plan", "nothing to do")
    inner.run("systemctl stop loopnet-watch; nft delete table bridge loopnet", timeout=SLOW)
    inner.run("loopnet sync", timeout=SLOW)
    assert "nothing to do" in inner.run("loopnet plan", timeout=SLOW)
    assert "hello from leaf\n" in inner.run("curl -sS --max-time 60 http://127.1.0.3/", timeout=70)


def test_reservations_reach_dnsmasq(inner: SystemGuest) -> None:
    """New ones, which it reads by itself, and changed ones, for which it gets a signal."""
    inner.run(
        f"set -e; {LXC} destroy leaf; loopnet reserve {LEAF_MAC} 127.1.0.20; {LXC} start leaf", timeout=SLOW
    )
    poll(inner, "curl -sS --max-time 20 http://127.1.0.20/", "hello from leaf\n")
    poll(inner, LEASES, " 127.1.0.20/24 ")


def test_the_script_may_log(inner: SystemGuest) -> None:
    """What is wrong with its own file is told, and the lease goes on."""
    plan = "/var/lib/libvirt/dnsmasq/*.loopnet-leases"
    inner.run(f"for plan in {plan}; do echo nonsense >$plan; done; pkill -HUP dnsmasq", timeout=100)
    poll(inner, "journalctl --no-pager -b -t libvirt-loopnet", "is missing or damaged")
    inner.run("loopnet sync", timeout=SLOW)
    poll(inner, LEASES, " 127.1.0.20/24 ")


def test_a_helper_that_hangs_is_ended(inner: SystemGuest) -> None:
    """timeout(1), confined itself, may signal it."""
    inner.run(OCCUPY, timeout=SLOW)
    poll(inner, "journalctl --no-pager -b -t libvirt-loopnet", "ended with status 124")
    assert inner.run("pgrep -x libvirt_leasesh", check=False, timeout=100) == ""
    inner.run("kill $(cat /run/occupier); pkill -HUP dnsmasq", timeout=100)
    poll(inner, LEASES, " 127.1.0.20/24 ")


def test_doctor_has_nothing_to_say_of_it(inner: SystemGuest) -> None:
    assert "AppArmor" not in inner.run("loopnet doctor 2>&1", check=False, timeout=SLOW)


def test_nothing_was_denied(inner: SystemGuest) -> None:
    assert inner.run(DENIED, timeout=SLOW) == ""
    inner.run(FORBIDDEN, timeout=100)
    assert "/etc/shadow" in inner.run(DENIED, timeout=SLOW)  # had there been any, this would have them


def test_without_our_rules(inner: SystemGuest) -> None:
    """Last. Where dnsmasq couldn't read what it needs, the network doesn't start; where it could do all but run the
    script, `doctor` tells. Each has the remedy."""
    rules = "/usr/libexec/libvirt-loopnet/apparmor-rules"
    end = f"{LXC} destroy leaf; virsh -q destroy still; virsh -q net-destroy loopnet"
    inner.run(f"{end}; {rules} remove", check=False, timeout=SLOW)
    refused = inner.run("virsh -q net-start loopnet 2>&1", check=False, timeout=SLOW)
    assert f"AppArmor keeps dnsmasq from reading the reservations; fix it: {rules} add" in refused
    inner.run(f"set -e\n{RESERVATIONS_ALONE}virsh -q net-start loopnet; {LXC} start leaf", timeout=SLOW)
    poll(inner, LEASES, " 10.127.1.20/24 ")
    assert f"{rules} add" in inner.run("loopnet doctor 2>&1", check=False, timeout=SLOW)
    inner.run(f"{end}; {rules} add; virsh -q net-start loopnet; {LXC} start leaf", timeout=SLOW)
    poll(inner, LEASES, " 127.1.0.20/24 ")
