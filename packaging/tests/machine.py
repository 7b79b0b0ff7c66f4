"""Machines for tests of packages: Debian with its own systemd and libvirtd, in namespaces.

with Machine(root("trixie")) as machine:      # boots in about three seconds
    machine.run("apt-get -q install /tmp/x.deb")

All that is written goes into a temporary directory; the real machine's network, processes and
kernel settings are out of reach. Root file systems are made once, from Debian's archive, and kept.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Optional, Type

import pytest

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "libvirt-loopnet/machines"
BASE = ("systemd-sysv", "dbus", "libvirt-clients", "rpm")
"""What a machine has beside what the package depends on."""
UNWANTED = ("systemd-udevd.service", "systemd-udevd-control.socket", "systemd-udevd-kernel.socket",
            "systemd-udev-trigger.service", "systemd-modules-load.service", "modprobe@.service",
            "getty.target", "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_reap.service",
            "systemd-logind.service", "dnsmasq.service")  # fmt: skip
"""Units that a test needs as little as they can do in a namespace."""
NAMESPACES = ("--mount", "--net", "--pid", "--uts", "--ipc", "--cgroup")


class CommandError(Exception):
    """A command in a machine did not end as expected; the message has all that it printed."""


class Machine:
    """A machine that runs off ``lower``; with ``boot=False`` a chroot instead, without any process.

    ``disk`` is a directory for what is written, to be kept from one machine to the next; without it,
    it is forgotten.
    """

    def __init__(self, lower: Path, *, boot: bool = True, disk: Optional[Path] = None) -> None:
        self._lower = lower
        self._boot = boot
        self._own_disk = None if disk else tempfile.mkdtemp(prefix="loopnet-machine-")
        self._disk = disk or Path(self._own_disk or "")
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._pid = 0
        self._cgroup: Optional[Path] = None

    def __enter__(self) -> Machine:
        try:
            self._start()
            if self._boot:
                self._wait_booted()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if isinstance(error, Exception) and self._boot and self._pid:
            with suppress(CommandError):
                print(self.run("journalctl --no-pager -q -n 80 -o short-monotonic"))
            print(self._log().read_text(errors="replace")[-2000:])
        if self._process:
            self._process.kill()  # unshare takes its child, and so the whole namespace, along
            self._process.wait()
            _wait_gone(self._pid)
        if self._cgroup:
            _remove_cgroup(self._cgroup)
        if self._own_disk:
            shutil.rmtree(self._own_disk, ignore_errors=True)

    def run(
        self, script: str, *, status: int = 0, input: str = "", timeout: float = 120, stderr: bool = True
    ) -> str:
        """Run a shell script as root; what it printed, both streams together unless told otherwise.

        Raises CommandError when its exit status isn't ``status``.
        """
        enter = ["nsenter", f"--target={self._pid}", "--all", "--root", "--wd"]
        if not self._boot:
            enter += ["chroot", str(self._disk / "root")]
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root",
            "DEBIAN_FRONTEND": "noninteractive", "TERM": "dumb",
        }  # fmt: skip
        try:
            done = subprocess.run(
                [*enter, "sh", "-euc", script], env=environment, input=input, text=True, timeout=timeout,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT if stderr else subprocess.PIPE,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise CommandError(f"{script}: not done in {timeout} s\n{error.output!r}") from None
        if done.returncode != status:
            raise CommandError(f"{script}: exit status {done.returncode}\n{done.stdout}{done.stderr or ''}")
        return done.stdout

    def path(self, inside: str) -> Path:
        """A path in the machine as one for this process; no absolute links on the way."""
        root = f"/proc/{self._pid}/root"
        return Path(root + inside) if self._boot else Path(f"{root}{self._disk}/root{inside}")

    def copy(self, file: Path, inside: str) -> None:
        """Copy a file in."""
        self.path(inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, self.path(inside))

    def _log(self) -> Path:
        return self._disk / "console"

    def _start(self) -> None:
        for name in ("upper", "work", "root"):
            (self._disk / name).mkdir(exist_ok=True)
        self._cgroup = _make_cgroup() if self._boot else None
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LOWER": str(self._lower), "BOOT": str(int(self._boot)),
            "UPPER": str(self._disk / "upper"), "WORK": str(self._disk / "work"), "ROOT": str(self._disk / "root"),
        }  # fmt: skip
        argv = [
            "unshare",
            *NAMESPACES,
            "--fork",
            "--kill-child=SIGKILL",
            "sh",
            "-eu",
            str(HERE / "machine.sh"),
        ]
        enter = 'echo $$ >"$0/cgroup.procs"; ' if self._cgroup else ""
        with self._log().open("wb") as log:
            # dies with us, too
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "SIGKILL", "sh", "-euc", enter + 'exec "$@"', str(self._cgroup), *argv],
                env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        last = "systemd" if self._boot else "sleep"
        for _ in _polls(10):
            self._pid = _child(self._process.pid)
            with suppress(OSError):
                if self._pid and Path(f"/proc/{self._pid}/comm").read_text().strip() == last:
                    return
            if self._process.poll() is not None:
                break
        raise CommandError(f"no machine:\n{self._log().read_text(errors='replace')}")

    def _wait_booted(self) -> None:
        for _ in _polls(60):
            with suppress(CommandError):
                state = self.run("systemctl is-system-running || true", timeout=60).strip()
                if state in ("running", "degraded"):
                    return
        raise CommandError(f"systemd is not up:\n{self._log().read_text(errors='replace')}")


# --- root file systems ---------------------------------------------------------------------------


def root(suite: str, packages: Sequence[str]) -> Path:
    """The root file system of a Debian ``suite`` with ``packages``; made when it isn't there yet."""
    wanted = sorted({*BASE, *packages})
    key = hashlib.sha256(" ".join(wanted).encode()).hexdigest()[:12]
    place = CACHE / f"{suite}-{key}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{suite}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            for old in CACHE.glob(f"{suite}-*"):
                shutil.rmtree(old)
            _make_root(suite, wanted, place)
    return place


def _make_root(suite: str, packages: Sequence[str], place: Path) -> None:
    new = place.with_name(place.name + ".new")
    done = subprocess.run(
        ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={','.join(packages)}",
         '--aptopt=APT::Install-Recommends "false"', "--dpkgopt=force-unsafe-io", suite, str(new)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1200,
    )  # fmt: skip
    if done.returncode:
        shutil.rmtree(new, ignore_errors=True)
        raise CommandError(f"mmdebstrap {suite} failed:\n{done.stdout[-3000:]}")
    for unit in UNWANTED:
        link = new / "etc/systemd/system" / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    (new / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    new.rename(place)


# --- bits ----------------------------------------------------------------------------------------


def _make_cgroup() -> Path:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2" and os.access(place, os.W_OK):
            _remove_left_cgroups(Path(place))
            return Path(tempfile.mkdtemp(prefix="loopnet-machine-", dir=place))
    pytest.skip("systemd needs a cgroup2 file system that can be written to")


def _remove_left_cgroups(place: Path) -> None:
    """Those of tests that were killed."""
    for group in place.glob("loopnet-machine-*"):
        with suppress(OSError):  # another test's, just now
            empty = "populated 0" in (group / "cgroup.events").read_text()
            if empty and time.time() - group.stat().st_mtime > 60:
                _remove_cgroup(group)


def _remove_cgroup(group: Path) -> None:
    for directory, _, _ in os.walk(group, topdown=False):
        with suppress(OSError):  # somebody is in it: a machine that runs
            os.rmdir(directory)


def _child(pid: int) -> int:
    """The child of a process that has one, else 0."""
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    return 0


def _wait_gone(pid: int) -> None:
    for _ in _polls(10):
        if not pid or not os.path.exists(f"/proc/{pid}"):
            return


def _polls(seconds: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.05)
