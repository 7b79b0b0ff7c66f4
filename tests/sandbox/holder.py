"""The process that holds a sandbox's namespaces, and how to enter them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import shlex
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Callable, List, Mapping, Optional, Sequence, TypeVar

PATH = "/run/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CLONE_FS = 0x200
LIBC = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


class CommandError(Exception):
    """A command did not end as expected; the message has command, status and all output.

    `status` is the exit status (negative: a signal), None when the time limit was reached.
    """

    def __init__(self, argv: Sequence[str], status: Optional[int], output: str, why: str) -> None:
        super().__init__(f"{shlex.join(argv)}: {why}\n{output.strip()}".rstrip())
        self.argv = list(argv)
        self.status = status
        self.output = output


class Holder:
    """Holds namespaces open by one process, which dies with the process that started it.

    `script` is a shell script that sets the namespaces up and ends as a process which prints
    "ready" and stays until its standard input ends.
    """

    def __init__(self, script: Path, environment: Mapping[str, str]) -> None:
        self._script = script
        self._environment = environment
        self._unshare: Optional[subprocess.Popen[str]] = None
        self._pid = 0
        self._commands: List[subprocess.Popen[str]] = []

    @property
    def pid(self) -> int:
        """The first process of the PID namespace, as numbered outside of it."""
        return self._pid

    def start(self, timeout: float = 20.0) -> None:
        """Makes the namespaces and waits until the script is done."""
        argv = ["unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--propagation=private",
                "--fork", "--kill-child=SIGKILL", "sh", "-eu", str(self._script)]  # fmt: skip
        with tempfile.TemporaryFile("w+") as errors:
            # A session of its own: Ctrl-C is for us, who then stop the holder in good order.
            process = subprocess.Popen(
                argv, env={"PATH": PATH, "LC_ALL": "C", **self._environment}, cwd="/", text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                start_new_session=True,
            )  # fmt: skip
            self._unshare = process
            line = _first_line(process, timeout)
            if line != "ready":
                self.stop()
                errors.seek(0)
                why = "no answer" if line is None else f"exit status {process.returncode}"
                raise CommandError(argv, process.returncode, errors.read(), why)
        self._pid = _only_child(process.pid)

    def start_inside(self, network: str, start: Callable[[], subprocess.Popen[str]]) -> subprocess.Popen[str]:
        """Calls `start` so that the process it starts is in the namespaces, but for the network's, whose path is given.

        nsenter would have to fork for PIDs. To kill nsenter would not kill the command, and a command that
        nsenter leaves behind becomes a zombie of the real machine's init.
        """
        paths = namespace_paths(self._pid, network)

        def start_and_keep() -> subprocess.Popen[str]:
            process = start()
            self._commands.append(process)
            return process

        self._commands = [old for old in self._commands if old.returncode is None]
        return in_thread(lambda: enter(*paths), start_and_keep)

    def stop(self, timeout: float = 10.0) -> None:
        """Ends every process inside; returns when the last is gone."""
        process, self._unshare = self._unshare, None
        if process is None:
            return
        if process.stdin:
            process.stdin.close()
        end = time.monotonic() + timeout
        while process.poll() is None:
            # The kernel keeps the PID namespace until our own children in it are reaped. Look
            # each time: after Ctrl-C a thread may only now be starting one.
            for command in list(self._commands):
                command.poll()
            if time.monotonic() > end:
                process.kill()
                process.wait(timeout)
            time.sleep(0.005)
        if process.stdout:
            process.stdout.close()


def in_thread(enter: Callable[[], None], function: Callable[[], T]) -> T:
    """Calls both in a new thread, as namespaces are joined for good; the result of `function`."""
    result: List[T] = []
    errors: List[BaseException] = []

    def enter_and_call() -> None:
        try:
            enter()
            result.append(function())
        except BaseException as error:  # raised again in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=enter_and_call, daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return result[0]


def namespace_paths(pid: int, network: str) -> List[str]:
    """Paths of a process's namespaces, for enter(); the network's is given."""
    return [network, *(f"/proc/{pid}/ns/{kind}" for kind in ("pid", "uts", "ipc", "mnt"))]


def enter(*paths: str) -> None:
    """Moves the calling thread (for PIDs: its future children) into the namespaces of these paths."""
    with contextlib.ExitStack() as stack:
        opened = []
        for path in paths:  # all before the first: in another mount namespace there are other paths
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            opened.append(descriptor)
        # Who shares root and working directory with other threads can't have mounts of its own (setns(2)).
        if LIBC.unshare(CLONE_FS) != 0 or any(LIBC.setns(descriptor, 0) != 0 for descriptor in opened):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), " ".join(paths))


def _first_line(process: subprocess.Popen[str], timeout: float) -> Optional[str]:
    """The first line a process prints, "" when it prints none, None at the time limit."""
    assert process.stdout is not None
    end = time.monotonic() + timeout
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(max(0.0, end - time.monotonic())):
            return None
    return process.stdout.readline().rstrip("\n")


def _only_child(pid: int) -> int:
    """The child of a process that has exactly one."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            return int(entry.parent.name)
    raise ProcessLookupError(f"process {pid} has no child")
