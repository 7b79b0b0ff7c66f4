"""Runs the tools of iproute2 and nftables. posix_spawn, because importing subprocess costs more than
running them."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Sequence

from .errors import HostError, LoopnetError
from .records import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

PATH = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")
_PACKAGES = {
    "nft": "nftables",
    "ip": "iproute2",
    "iptables": "iptables",
    "unshare": "util-linux",
    "busctl": "systemd",
}
TIMEOUT = 30.0
"""Seconds; these tools answer in milliseconds, or something is very wrong."""


class Result(NamedTuple):
    status: int
    stdout: bytes
    stderr: bytes

    @property
    def complaint(self) -> str:
        """The first line that it wrote as an error."""
        return (self.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"])[0]


def find(program: str) -> str:
    """The full path of ``program``. Raises HostError when it isn't installed."""
    for directory in PATH:
        path = f"{directory}/{program}"
        if os.access(path, os.X_OK):
            return path
    package = _PACKAGES.get(program.partition("-")[0], program)
    raise HostError(f"{program} is not installed; install the package {package}")


def run(argv: Sequence[str], stdin: bytes = b"", timeout: float = TIMEOUT) -> Result:
    """Run ``argv`` to its end and return what it said.

    Files in memory stand in for its standard streams, so that no pipe can fill up.
    Raises HostError when it can't be started or takes longer than ``timeout`` seconds.
    """
    program = find(argv[0])
    streams = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
    try:
        _write(streams[0], stdin)
        os.lseek(streams[0], 0, os.SEEK_SET)
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(streams)]
        environment = {"PATH": ":".join(PATH), "LC_ALL": "C"}
        pid = os.posix_spawn(program, [program, *argv[1:]], environment, file_actions=actions)
        status = _wait(pid, argv[0], timeout)
        return Result(status, _read(streams[1]), _read(streams[2]))
    except OSError as error:
        raise HostError(f"{argv[0]} could not be run: {error.strerror}") from None
    finally:
        for fd in streams:
            os.close(fd)


def fork(function: Callable[[], bytes], name: str, timeout: float = TIMEOUT) -> Result:
    """Call ``function`` in a fork of this process, for what must not change this one, and return what it returns;
    or status 1 and the LoopnetError that it raises.

    ``name`` is for people. Raises HostError when it can't be started or takes longer than ``timeout`` seconds.
    """
    stream = os.memfd_create("told")
    try:
        pid = os.fork()
        if not pid:
            _call(function, stream)
        status = _wait(pid, name, timeout)
        told = _read(stream)
        return Result(status, b"" if status else told, told if status else b"")
    except OSError as error:
        raise HostError(f"{name} could not be run: {error.strerror}") from None
    finally:
        os.close(stream)


def _call(function: Callable[[], bytes], stream: int) -> NoReturn:
    status = 1
    try:
        _write(stream, function())
        status = 0
    except LoopnetError as error:
        _write(stream, str(error).encode())
    finally:
        os._exit(status)


def _wait(pid: int, name: str, timeout: float) -> int:
    in_time = _wait_for_end(pid, timeout)
    if not in_time:
        os.kill(pid, 9)
    _, status = os.waitpid(pid, 0)
    if not in_time:
        raise HostError(f"{name} did not answer within {timeout:.0f} s; try again: loopnet sync")
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def _wait_for_end(pid: int, timeout: float) -> bool:
    """Sleep until the child ends, at most ``timeout`` seconds; did it? It stays a zombie."""
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(timeout * 1000))
    finally:
        os.close(descriptor)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _read(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)
