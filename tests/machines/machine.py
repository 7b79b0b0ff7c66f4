"""Machines that run off a root file system, with or without their own systemd, in namespaces.

All that is written goes into a temporary directory; the real machine's network, processes and
kernel settings are out of reach.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Iterator, List, Optional

from tests.sandbox.cgroups import Hierarchy, as_lines, hierarchies, remove

HERE = Path(__file__).resolve().parent
UNWANTED = ("systemd-udevd.service", "systemd-udevd-control.socket", "systemd-udevd-kernel.socket",
            "systemd-udev-trigger.service", "systemd-modules-load.service", "modprobe@.service",
            "getty.target", "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_reap.service",
            "systemd-logind.service", "dnsmasq.service")  # fmt: skip
"""Units that a test needs as little as they can do in a namespace."""
BOOTS = (
    f"--customize-hook=systemctl --quiet --root=$1 mask {' '.join(UNWANTED)}",
    "--customize-hook=echo 0123456789abcdef0123456789abcdef >$1/etc/machine-id",
)
"""Options for the root file system of a machine that boots."""
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8",
    "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive", "TERM": "dumb",
}  # fmt: skip
GROUP = "loopnet-machine-"
"""What the names of machines' control groups begin with."""
READY = b"machine: ready\n"
NAMESPACES = ("--mount", "--net", "--pid", "--uts", "--ipc", "--cgroup")


class CommandError(Exception):
    """A command in a machine did not end as expected; the message has all that it printed."""


def can_boot() -> bool:
    """Whether systemd would find what it needs: a cgroup2 file system that can be written to."""
    return any(hierarchy.kind == "cgroup2" for hierarchy in _hierarchies())


class Machine:
    """A machine that runs off ``lower``; with ``boot=False`` it has no process but those that are run in it,
    with ``chroot`` it has not even namespaces of its own that a program could see: an image in the making.

    ``disk`` is a directory for what is written, to be kept from one machine to the next; without it,
    it is forgotten. With ``internet`` it reaches what this machine does, as a machine behind NAT.
    """

    def __init__(
        self,
        lower: Path,
        *,
        boot: bool = True,
        chroot: bool = False,
        disk: Optional[Path] = None,
        internet: bool = False,
    ) -> None:
        self._lower = lower
        self._boot = boot and not chroot
        self._chroot = chroot
        self._internet = internet
        self._router: Optional[subprocess.Popen[bytes]] = None
        self._own_disk = None if disk else tempfile.mkdtemp(prefix="loopnet-machine-")
        self._disk = disk or Path(self._own_disk or "")
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._pid = 0
        self._groups: List[Path] = []

    def __enter__(self) -> Machine:
        try:
            self._start()
            if self._internet:
                self._connect()
            if self._boot:
                self._wait_booted()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(self, _: object, error: object, *__: object) -> None:
        if isinstance(error, Exception) and self._boot and self._pid:
            with suppress(CommandError):
                print(self.run("journalctl --no-pager -q -n 80 -o short-monotonic"))
            print(self._log().read_text(errors="replace")[-2000:])
        if self._router:
            self._router.kill()
            self._router.wait()
        if self._process:
            self._process.kill()  # unshare takes its child, and so the whole namespace, along
            self._process.wait()
            _wait_gone(self._pid)
        for group in self._groups:
            with suppress(OSError):  # a process is in it that this machine can't end
                remove(group)
        if self._own_disk:
            shutil.rmtree(self._own_disk, ignore_errors=True)

    def run(
        self, script: str, *, status: int = 0, input: str = "", timeout: float = 120, stderr: bool = True
    ) -> str:
        """Run a shell script as root; what it printed, both streams together unless told otherwise.

        Raises CommandError when its exit status isn't ``status``.
        """
        try:
            done = subprocess.run(
                self._command(script), env=ENVIRONMENT, input=input, text=True, timeout=timeout,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT if stderr else subprocess.PIPE,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise CommandError(f"{script}: not done in {timeout} s\n{error.output!r}") from None
        if done.returncode != status:
            raise CommandError(f"{script}: exit status {done.returncode}\n{done.stdout}{done.stderr or ''}")
        return done.stdout

    def show(self, script: str, *, timeout: float) -> int:
        """Run a shell script as root, what it prints seen as it comes; its exit status.

        Raises CommandError at the time limit.
        """
        try:
            return subprocess.run(
                self._command(script), env=ENVIRONMENT, stdin=subprocess.DEVNULL, timeout=timeout
            ).returncode
        except subprocess.TimeoutExpired:
            raise CommandError(f"{script}: not done in {timeout:.0f} s") from None

    def path(self, inside: str) -> Path:
        """A path in the machine as one for this process; no absolute links on the way."""
        place = self._disk / "root" if self._chroot else ""
        return Path(f"/proc/{self._pid}/root{place}{inside}")

    def copy(self, file: Path, inside: str) -> None:
        """Copy a file in."""
        self.path(inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, self.path(inside))

    def _command(self, script: str) -> List[str]:
        chroot = ["chroot", str(self._disk / "root")] if self._chroot else []
        enter = ["nsenter", f"--target={self._pid}", "--all", "--root", "--wd", *chroot]
        # systemd puts processes into groups itself
        join = _join([] if self._boot else [_for_processes(group) for group in self._groups])
        return [*join, *enter, "sh", "-euc", script]

    def _connect(self) -> None:
        """A user-mode router: nothing of this machine's own network is changed for it."""
        ready, told = os.pipe()
        argv = ["setpriv", "--pdeathsig", "SIGKILL", "slirp4netns", "--configure", "--disable-host-loopback",
                f"--ready-fd={told}", str(self._pid), "eth0"]  # fmt: skip
        with (self._disk / "router").open("wb") as log:
            self._router = subprocess.Popen(
                argv, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[told],
                start_new_session=True,
            )  # fmt: skip
        os.close(told)
        with open(ready, "rb") as pipe:
            if not pipe.read(1):  # it has ended
                raise CommandError(f"slirp4netns:\n{(self._disk / 'router').read_text(errors='replace')}")
        self.run("rm -f /etc/resolv.conf; echo nameserver 10.0.2.3 >/etc/resolv.conf")

    def _log(self) -> Path:
        return self._disk / "console"

    def _start(self) -> None:
        for name in ("upper", "work", "root"):
            (self._disk / name).mkdir(exist_ok=True)
        mounted = _hierarchies()
        if self._boot:  # systemd's own way
            mounted = [hierarchy for hierarchy in mounted if hierarchy.kind == "cgroup2"][:1]
        self._make_groups(mounted)
        if self._boot:
            mounted = [hierarchy._replace(place="/sys/fs/cgroup") for hierarchy in mounted]
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LOWER": str(self._lower), "HIERARCHIES": as_lines(mounted),
            "BOOT": str(int(self._boot)), "CHROOT": str(int(self._chroot)),
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
        with self._log().open("wb") as log:
            # dies with us, too
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "SIGKILL", *_join(self._groups), *argv],
                env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        for _ in _polls(10):
            self._pid = _child(self._process.pid)
            if self._pid and READY in self._log().read_bytes():
                if not self._boot:
                    self._let_groups_be_made()
                return
            if self._process.poll() is not None:
                break
        raise CommandError(f"no machine:\n{self._log().read_text(errors='replace')}")

    def _make_groups(self, places: List[Hierarchy]) -> None:
        """A control group in each hierarchy, which the machine sees as if it were all there is."""
        name = GROUP + os.urandom(4).hex()
        for hierarchy in places:
            _remove_left_groups(Path(hierarchy.place))
            group = Path(hierarchy.place) / name
            group.mkdir()
            self._groups.append(group)
            for file in ("cpuset.cpus", "cpuset.mems"):
                if hierarchy.kind == "cgroup" and (group / file).exists():
                    (group / file).write_text((group.parent / file).read_text())

    def _let_groups_be_made(self) -> None:
        """With all controllers."""
        for group in self._groups:
            processes = _for_processes(group)
            if processes != group:
                processes.mkdir()
                for pid in (group / "cgroup.procs").read_text().split():
                    (processes / "cgroup.procs").write_text(pid)
                controllers = (group / "cgroup.controllers").read_text().split()
                (group / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))

    def _wait_booted(self) -> None:
        for _ in _polls(60):
            with suppress(CommandError):
                state = self.run("systemctl is-system-running || true", timeout=60).strip()
                if state in ("running", "degraded"):
                    return
        raise CommandError(f"systemd is not up:\n{self._log().read_text(errors='replace')}")


# --- bits ----------------------------------------------------------------------------------------


def _hierarchies() -> List[Hierarchy]:
    """Those of control groups, of either version, in which groups can be made."""
    return [hierarchy for hierarchy in hierarchies() if os.access(hierarchy.place, os.W_OK)]


def _join(groups: List[Path]) -> List[str]:
    """What a command begins with that is to run in these."""
    lines = "".join(f"echo $$ >{group}/cgroup.procs\n" for group in groups)
    return ["sh", "-euc", lines + 'exec "$@"', "join"]


def _for_processes(group: Path) -> Path:
    """Where a machine's processes are; a group of the second version has either these or groups with controllers."""
    return group / "init" if (group / "cgroup.subtree_control").exists() else group


def _remove_left_groups(place: Path) -> None:
    """Those of tests that were killed."""
    for group in place.glob(f"{GROUP}*"):
        with suppress(OSError):  # another test's, just now
            if time.time() - group.stat().st_mtime > 60 and _is_empty(group):
                remove(group)


def _is_empty(group: Path) -> bool:
    return not any((Path(each) / "cgroup.procs").read_text() for each, _, _ in os.walk(group))


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
