"""Running things inside a namespace of a sandbox."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import subprocess
from typing import IO, Callable, Dict, Mapping, Optional, Sequence, TypeVar, Union

from .holder import LIBC, PATH, CommandError, Holder, enter, in_thread

PYTHON = "/usr/bin/python3"
SETRESUID, SETRESGID = (117, 119) if platform.machine() == "x86_64" else (147, 149)
"""Numbers of system calls: x86's own, and the generic ones (asm-generic/unistd.h)."""

File = Union[None, int, IO[str]]
T = TypeVar("T")


class Namespace:
    """A network namespace of a sandbox, together with the sandbox's files and processes.

    `network` is the path, inside the sandbox, of the network namespace; None means the holder's.
    """

    def __init__(self, holder: Holder, environment: Mapping[str, str], network: Optional[str] = None) -> None:
        self._holder = holder
        self._environment = {"PATH": PATH, "LC_ALL": "C", "HOME": "/run/home", **environment}
        self._network = network

    @property
    def environment(self) -> Dict[str, str]:
        """The whole environment that commands get."""
        return dict(self._environment)

    def run(
        self,
        argv: Sequence[str],
        *,
        input: Optional[str] = None,
        check: bool = True,
        timeout: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end, at most `timeout` seconds; gives status and output.

        Without `input` it reads from /dev/null. Raises CommandError at the time limit, and with
        `check` when the status is not 0.
        """
        stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
        with self.popen(argv, stdin=stdin, stderr=subprocess.PIPE) as process:
            try:
                out, err = process.communicate(input, timeout)
            except BaseException as error:
                # Children of the command hold the pipes as well: end the whole group.
                os.killpg(process.pid, signal.SIGKILL)
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                try:
                    out, err = process.communicate(timeout=5)
                except subprocess.TimeoutExpired:
                    out, err = "", ""
                raise CommandError(argv, None, out + err, f"not done in {timeout} s") from None
        status = process.returncode
        if check and status != 0:
            raise CommandError(argv, status, out + err, f"exit status {status}")
        return subprocess.CompletedProcess(list(argv), status, out, err)

    def popen(
        self,
        argv: Sequence[str],
        *,
        stdin: File = subprocess.DEVNULL,
        stdout: File = subprocess.PIPE,
        stderr: File = subprocess.STDOUT,
    ) -> subprocess.Popen[str]:
        """Starts a command, in a session of its own, and returns at once."""
        return self._holder.start_inside(
            self._network_path(),
            lambda: subprocess.Popen(
                argv, env=self._environment, stdin=stdin, stdout=stdout,
                stderr=stderr, text=True, errors="replace", start_new_session=True,
            ),
        )  # fmt: skip

    def interactive(self, argv: Sequence[str]) -> int:
        """Runs a command on the user's own terminal; its exit status."""
        environment = {**self._environment, "TERM": os.environ.get("TERM", "dumb")}
        process = self._holder.start_inside(
            self._network_path(), lambda: subprocess.Popen(argv, env=environment, text=True)
        )
        return process.wait()

    def sh(self, script: str, *, timeout: float = 60.0) -> str:
        """Runs a shell script, which ends at its first failing command; its standard output."""
        return self.run(["sh", "-euc", script], timeout=timeout).stdout

    def python(self, code: str, *arguments: str, timeout: float = 60.0) -> str:
        """Runs Python code, with `arguments` in sys.argv[1:]; its standard output."""
        return self.run([PYTHON, "-I", "-c", code, *arguments], timeout=timeout).stdout

    def call(self, function: Callable[[], T]) -> T:
        """Calls `function` in a thread of this process that is in the network namespace.

        Only the network is changed, not files; a socket made in there stays in there, so
        `call(lambda: socket.create_connection(...))` gives one to use from anywhere.
        """
        return in_thread(lambda: enter(self._network_path()), function)

    @staticmethod
    def drop_privileges(identity: int = 65534) -> None:
        """The calling thread is another user from now on, for good: only of use inside of `call`.

        The bare system calls, as glibc's wrappers change all threads of a process (nptl(7)).
        """
        for number in (SETRESGID, SETRESUID):
            if LIBC.syscall(number, identity, identity, identity) != 0:
                raise OSError(ctypes.get_errno(), "can't become another user")

    def _network_path(self) -> str:
        process = f"/proc/{self._holder.pid}"
        return f"{process}/root{self._network}" if self._network else f"{process}/ns/net"
