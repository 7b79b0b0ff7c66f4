"""Hooks, `loopnet` and other uses of the package as forks of a process that has it imported.

Most of what a start of Python takes is imports, and tests call these thousands of times. A fork gets what libvirt or
a shell would give: arguments, streams, environment, namespaces, a session. What only a start can show is left to
labs that ask for starts, and to e2e, where everything is started.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from types import ModuleType

import libvirt_loopnet
from tests.sandbox import CHECKOUT, CommandError, Namespace
from tests.sandbox.holder import enter, namespace_paths
from tests.sandbox.namespaces import PYTHON

HOOK = "import sys; from libvirt_loopnet.hook import main; sys.exit(main())"
COMMAND = "import sys; from libvirt_loopnet.cli import main; sys.exit(main())"
SERVER = "import sys; sys.path.insert(0, sys.argv[1]); from tests.netns.forks import serve; serve()"
REQUEST_BYTES = 1 << 16


class Forked(Namespace):
    """A namespace in which `loopnet` is forked, and Python code is."""

    def run(
        self, argv: Sequence[str], *, input: str | None = None, check: bool = True, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        if argv[0] != "loopnet":
            return super().run(argv, input=input, check=check, timeout=timeout)
        return self.fork(COMMAND, argv, self.environment, input or "", check=check, timeout=timeout)

    def python(self, code: str, *arguments: str, timeout: float = 60.0) -> str:
        return self.fork(code, ["-c", *arguments], self.environment, timeout=timeout).stdout

    def fork(
        self,
        code: str,
        argv: Sequence[str],
        environment: Mapping[str, str],
        input: str = "",
        *,
        check: bool = True,
        timeout: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """As run(), but runs ``code`` with ``argv`` in sys.argv."""
        with contextlib.ExitStack() as stack:
            streams = [
                stack.enter_context(open(os.memfd_create(name), "w+", errors="replace"))
                for name in ("stdin", "stdout", "stderr")
            ]
            streams[0].write(input)
            streams[0].seek(0)
            here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.enter_context(here)
            with there:
                paths = namespace_paths(self._holder.pid, self._network_path())
                request = json.dumps([code, list(argv), dict(environment), paths]).encode()
                files = [*(stream.fileno() for stream in streams), there.fileno()]
                socket.send_fds(_server(), [request], files)
            status = _status(here, argv, timeout)
            told = []
            for stream in streams[1:]:
                stream.seek(0)
                told.append(stream.read())
        if status is None:
            raise CommandError(argv, None, "".join(told), f"not done in {timeout} s")
        if check and status != 0:
            raise CommandError(argv, status, "".join(told), f"exit status {status}")
        return subprocess.CompletedProcess(list(argv), status, *told)


def _status(reply: socket.socket, argv: Sequence[str], timeout: float) -> int | None:
    """What a fork ends with; None at the time limit, when it is killed. Raises CommandError if there is none."""
    reply.settimeout(timeout)
    pid = reply.recv(32)
    if not pid:
        raise CommandError(argv, None, "", "could not be forked")
    try:
        return int(reply.recv(32))
    except socket.timeout:
        os.killpg(int(pid), signal.SIGKILL)
        return None


@cache
def _server() -> socket.socket:
    """A socket that leads to serve(), in a process that ends with this one."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with there:
        argv = [PYTHON, "-I", "-c", SERVER, str(CHECKOUT)]
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
        subprocess.Popen(argv, stdin=there.fileno(), env=environment, cwd="/", start_new_session=True)
    return here


# --- the process that is forked -------------------------------------------------------------------


def serve() -> None:
    """Forks for each request on stdin; returns at its end."""
    _import_all(libvirt_loopnet)
    with contextlib.suppress(ImportError):
        importlib.import_module("libvirt")
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for forks
    requests = socket.socket(fileno=0)
    while True:
        request, files, _, _ = socket.recv_fds(requests, REQUEST_BYTES, 4)
        if not request:
            return
        if os.fork() == 0:
            code, argv, environment, paths = json.loads(request)
            _fork(code, argv, environment, paths, files)
        for descriptor in files:
            os.close(descriptor)


def _import_all(package: ModuleType) -> None:
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)


def _fork(
    code: str, argv: list[str], environment: dict[str, str], paths: list[str], files: list[int]
) -> None:
    """Goes into the namespaces, forks there, and tells of that process its number and its status. Does not return."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        enter(*paths)
        pid = os.fork()
        if pid == 0:
            os._exit(_program(code, argv, environment, files))
        reply = socket.socket(fileno=files[3])
        reply.send(str(pid).encode())
        reply.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
    finally:
        os._exit(0)


def _program(code: str, argv: list[str], environment: dict[str, str], files: list[int]) -> int:
    """What Python does after its start; the exit status."""
    os.setsid()
    for number, descriptor in enumerate(files[:3]):
        os.dup2(descriptor, number)
    os.closerange(3, max(files) + 1)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = argv
    try:
        exec(code, {"__name__": "__main__"})
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status
