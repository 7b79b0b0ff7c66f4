"""Two worlds with a wire between them, so that guests can go from one to the other."""

from __future__ import annotations

import contextlib
import subprocess
from types import TracebackType
from typing import Optional, Type

from .libvirtd import PID_FILE
from .sandbox import Sandbox
from .world import World, wait

WIRE = "wire0"
TARGET = "192.0.2.2"
PORT = 16509
LISTEN = """\
listen_tls = 0
listen_tcp = 1
auth_tcp = "none"
host_uuid = "6b1ec1f0-52c8-4d2c-9a35-0c2d1c4b7f02"
"""


class TwoHosts:
    """As a context manager: `source` and `target`, whose libvirtd listens at `TARGET`.

    libvirt refuses to migrate to a host of the same name or UUID, so the target has its own.
    """

    def __init__(self) -> None:
        self.source, self.target = World(), World()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> TwoHosts:
        with self._stack:
            self._stack.enter_context(self.source)
            self._stack.enter_context(self.target)
            self._connect()
            self._stack.callback(self._disconnect)
            self._listen()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def migrate(self, name: str, *flags: str, check: bool = True) -> str:
        """Migrates a guest from source to target; what virsh prints."""
        where = [f"qemu+tcp://{TARGET}/system", "--migrateuri", f"tcp://{TARGET}"]
        argv = ["virsh", "-q", "migrate", name, *where, *flags]
        done = self.source.host.run(argv, check=check, timeout=120)
        return done.stdout + done.stderr

    def _connect(self) -> None:
        # Made in the two namespaces: the real machine never has it.
        source, target = (str(world.sandbox.pid) for world in (self.source, self.target))
        wire = ["netns", source, "type", "veth", "peer", "name", WIRE, "netns", target]
        subprocess.run(["ip", "link", "add", WIRE, *wire], check=True, timeout=20)
        for sandbox, address in ((self.source.sandbox, "192.0.2.1"), (self.target.sandbox, TARGET)):
            sandbox.host.sh(f"ip address add {address}/24 dev {WIRE}; ip link set {WIRE} up")
        self._name(self.target.sandbox, "other-laptop")

    def _disconnect(self) -> None:
        self.source.host.sh(f"ip link delete {WIRE}")
        self._name(self.target.sandbox, "laptop")

    @staticmethod
    def _name(sandbox: Sandbox, name: str) -> None:
        sandbox.host.sh(f"echo {name} >/proc/sys/kernel/hostname")

    def _listen(self) -> None:
        sandbox = self.target.sandbox
        sandbox.stop_libvirtd()
        with sandbox.path("/etc/libvirt/libvirtd.conf").open("a") as file:
            file.write(LISTEN)
        sandbox.host.run(["libvirtd", "--daemon", "--listen", "--pid-file", PID_FILE])
        ask = ["virsh", "-c", f"qemu+tcp://{TARGET}/system", "list"]
        wait(lambda: self.source.host.run(ask, check=False).returncode == 0, "libvirtd of the target")
