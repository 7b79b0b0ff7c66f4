"""Talking to a sandbox's libvirtd from here: no program has to start for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import libvirt

from tests.sandbox import Sandbox
from tests.sandbox.libvirtd import PID_FILE

SOCKET = "/run/libvirt/libvirt-sock"


class Daemon:
    """A sandbox with libvirtd, and a connection to that."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.host = sandbox.host
        libvirt.registerErrorHandler(lambda *_: None, None)  # it would print what is raised anyway
        self.connection: Any = libvirt.open(f"qemu+unix:///system?socket={sandbox.path(SOCKET)}")

    @property
    def processor_seconds(self) -> float:
        """Processor time that libvirtd and all it ran have used; clock ticks, so not for less."""
        pid = self.sandbox.path(PID_FILE).read_text().strip()
        fields = self.sandbox.path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def network(self, xml: str) -> Any:
        """Define a network."""
        return self.connection.networkDefineXML(xml)

    def guest(self, xml: str) -> Any:
        """Define a guest."""
        return self.connection.defineXML(xml)

    def cycle_network(self, network: Any) -> None:
        """Start and stop it."""
        network.create()
        network.destroy()

    def cycle_guest(self, guest: Any) -> None:
        """Start it, its CPU stopped, and end it."""
        guest.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        guest.destroy()


@contextmanager
def daemon(*, hooks: bool) -> Iterator[Daemon]:
    """A sandbox with libvirtd, with our hooks or without."""
    with Sandbox(hooks=hooks, lan_prefix="192.0.2.0/24") as sandbox:
        found = Daemon(sandbox)
        try:
            yield found
        finally:
            found.connection.close()
