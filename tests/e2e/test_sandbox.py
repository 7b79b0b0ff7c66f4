"""The sandbox itself: nothing of it stays, and its options are what they say, or other tests would show nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import List, Set

import pytest

from tests.sandbox import CHECKOUT, INTERNET, Sandbox

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")

NAMESPACES = ("mnt", "net", "pid", "uts", "ipc")


def namespaces(pid: int) -> Set[str]:
    """The namespaces a process is in, but not those of this process."""
    links = {os.readlink(f"/proc/{pid}/ns/{kind}") for kind in NAMESPACES}
    return links - {os.readlink(f"/proc/self/ns/{kind}") for kind in NAMESPACES}


def processes_in(wanted: Set[str]) -> List[str]:
    """The command lines of all processes that are in one of the namespaces."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(process / "ns" / kind) in wanted for kind in NAMESPACES):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def machine() -> List[str]:
    """What a sandbox could leave on the real machine."""
    directories = ("/run", "/run/netns", "/etc/libvirt", "/var/lib", "/var/lib/libvirt", "/var/log")
    # Any mount command on the machine makes /run/mount, at any time.
    listings = [
        f"{path}: {sorted(set(os.listdir(path)) - {'mount'})}" for path in directories if Path(path).exists()
    ]
    return [
        Path("/proc/self/mountinfo").read_text(),
        Path("/proc/net/route").read_text(),
        Path("/proc/sys/net/ipv4/ip_forward").read_text(),
        str(socket.if_nameindex()),
        *listings,
    ]


SLOW_HOOK = """\
#!/bin/sh
[ "$2" != reconnect ] || sleep 3
"""


@pytest.mark.parametrize("daemons", ["libvirtd", "modular"])
def test_a_guest_can_be_destroyed_once_the_daemon_runs_again(daemons: str) -> None:
    """However long its hook takes."""
    with Sandbox(hooks=False, daemons=daemons) as sandbox:
        hook = sandbox.path("/etc/libvirt/hooks/qemu")
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(SLOW_HOOK)
        hook.chmod(0o755)
        sandbox.virsh("net-start", "default")
        guest = sandbox.guest("vm1", ["default"], memory_mib=32)
        guest.start(paused=True)
        for _ in range(2):  # no daemon runs a hook that wasn't there when it began
            sandbox.stop_libvirtd()
            sandbox.start_libvirtd()
        guest.destroy()


def test_two_at_once_and_nothing_is_left() -> None:
    before = machine()
    with Sandbox(hooks=False) as one, Sandbox(hooks=False, lan_prefix="192.168.7.0/24") as two:
        used = namespaces(one.pid) | namespaces(two.pid)
        assert len(used) == 2 * len(NAMESPACES)
        for sandbox in (one, two):
            sandbox.virsh("net-start", "default")
            page = sandbox.host.sh(f"curl -sS http://{INTERNET}/")
            assert page == f"hello from the internet; you are {sandbox.host_address}\n"
            used.add(f"net:[{os.stat(sandbox.path('/run/netns/lan')).st_ino}]")
        one.host.popen(["setsid", "sleep", "600"])
        assert len(processes_in(used)) >= 8
    assert two.host_address == "192.168.7.77"
    assert processes_in(used) == []
    assert machine() == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_of_a_test_that_is_killed(number: signal.Signals) -> None:
    before = machine()
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from tests.sandbox import Sandbox\n"
        "with Sandbox(hooks=False) as sandbox:\n"
        "    sandbox.virsh('net-start', 'default')\n"
        "    print(sandbox.pid, flush=True)\n"
        "    sandbox.host.run(['sleep', '600'], timeout=600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(CHECKOUT)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        used = namespaces(int(process.stdout.readline()))
        assert processes_in(used)
        process.send_signal(number)
        process.wait(30)
    end = time.monotonic() + 30
    while processes_in(used) and time.monotonic() < end:
        time.sleep(0.02)
    assert processes_in(used) == []
    assert machine() == before


SHARED_RUN = """
import time
import pytest
from tests.sandbox import Sandbox

@pytest.mark.parametrize("number", [1, 2])
def test(number):
    with Sandbox(libvirtd=False) as sandbox:
        (HERE / f"pid{number}").write_text(str(sandbox.pid))
        time.sleep(200)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_of_a_run_that_is_killed(number: signal.Signals, tmp_path: Path) -> None:
    """Of what its two workers were at."""
    (tmp_path / "test_it.py").write_text(
        f"from pathlib import Path\nHERE = Path({str(tmp_path)!r})\n{SHARED_RUN}"
    )
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n2", "-c", "/dev/null",
            "-o", f"pythonpath={CHECKOUT}", f"--rootdir={tmp_path}", str(tmp_path)]  # fmt: skip
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        pids = [wait_for_number(tmp_path / f"pid{worker}") for worker in (1, 2)]
        used = {namespace for pid in pids for namespace in namespaces(pid)}
        assert processes_in(used)
        process.send_signal(number)
        process.wait(30)
    end = time.monotonic() + 30
    while processes_in(used) and time.monotonic() < end:
        time.sleep(0.02)
    assert processes_in(used) == []


def wait_for_number(file: Path) -> int:
    end = time.monotonic() + 60
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return int(file.read_text())


def test_options() -> None:
    with Sandbox(libvirtd=False, bridge_nf=True, ip_rule=True, rp_filter=True, ip_forward=True) as sandbox:
        state = sandbox.host.sh(
            "cd /proc/sys/net; cat bridge/bridge-nf-call-iptables ipv4/conf/all/rp_filter "
            "ipv4/ip_forward; ip rule; ip route show table 51820"
        )
        assert state.startswith("1\n1\n1\n")
        assert "not from all fwmark 0xca6c lookup 51820" in state
        assert state.endswith("default via 10.127.1.1 dev uplink0 \n")
        assert INTERNET in sandbox.lan.sh("ip address show dev lo")
        assert sandbox.host.sh(f"curl -sS http://{INTERNET}/").startswith("hello")
    with Sandbox(libvirtd=False) as sandbox:
        assert sandbox.host.sh("cat /proc/sys/net/bridge/bridge-nf-call-iptables") == "0\n"
