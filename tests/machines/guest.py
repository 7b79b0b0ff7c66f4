"""A Debian system on a disk as a guest of the sandbox."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Optional, Sequence

from tests.sandbox import Guest, GuestError, GuestImage, Sandbox
from tests.sandbox.cache import command

from .systems import System

BOOT_SECONDS = 600.0
"""Emulated, on a machine that does other things: a minute is usual."""
POLL_SECONDS = 0.5
ARGUMENTS = "root=/dev/vda rw net.ifnames=0 systemd.show_status=0"
CMDLINE = f"console=ttyS0 nokaslr mitigations=off panic=-1 {ARGUMENTS}"
"""For who describes such a guest himself."""

DISK = """\
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='unsafe'/>
      <source file='{file}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
"""
SECOND_DISK = """\
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{file}'/>
      <target dev='vdb' bus='virtio'/>
      <readonly/>
    </disk>
"""
RANDOM = "    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>\n"


class SystemGuest(Guest):
    """A guest that runs off a disk. `disk` is its backing file, `overlay` where it writes, `second` a disk to read."""

    def __init__(
        self,
        sandbox: Sandbox,
        name: str,
        networks: Sequence[str],
        system: System,
        *,
        disk: Optional[Path] = None,
        overlay: Optional[Path] = None,
        second: Optional[Path] = None,
        devices: str = "",
        arguments: str = "",
        memory_mib: int = 512,
        vcpus: int = 1,
    ) -> None:
        file = overlay or Path(f"/run/sandbox/guests/{name}.qcow2")
        devices += DISK.format(file=file) + (SECOND_DISK.format(file=second) if second else "") + RANDOM
        super().__init__(
            sandbox, name, networks, image=GuestImage(system.kernel, system.kernel, system.initramfs),
            cmdline=f"{ARGUMENTS} {arguments}", devices=devices, memory_mib=memory_mib, vcpus=vcpus,
        )  # fmt: skip
        self._system = system
        command(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(disk or system.disk), "-F", "raw",
             str(overlay or sandbox.path(str(file)))]
        )  # fmt: skip
        self.define()

    def wait_boot(self, timeout: float = BOOT_SECONDS) -> None:
        super().wait_boot(timeout)

    def wait_lease(self, nic: int = 0, timeout: float = BOOT_SECONDS) -> str:
        """Waits until ethN has an address; that."""
        end = time.monotonic() + timeout
        while True:
            found = re.search(r"inet ([\d.]+)/", self.run(f"ip -4 -o address show dev eth{nic}", check=False))
            if found:
                return found.group(1)
            if time.monotonic() > end:
                raise GuestError(f"{self.name}: eth{nic} has no address after {timeout} s\n{self.journal()}")
            time.sleep(POLL_SECONDS)

    def go_down(self) -> None:
        """Lets the system go down for a reboot, and waits for that; `start` boots it again.

        Not by a reset of the machine: emulated, its BIOS then takes a minute to load the kernel.
        """
        # In a moment: a fast machine is gone before it has answered.
        self.run("setsid sh -c 'sleep 1; systemctl reboot' >/dev/null 2>&1 </dev/null &")
        end = time.monotonic() + BOOT_SECONDS
        while self._sandbox.virsh("domstate", self.name).strip() != "shut off":
            if time.monotonic() > end:
                raise GuestError(f"{self.name}: does not go down\n{self.console()[-4000:]}")
            time.sleep(POLL_SECONDS)

    def journal(self) -> str:
        """The end of the system's own log."""
        return self.run("journalctl --no-pager -b -n 60", check=False, timeout=120)

    def ssh(self, target: str, script: str, *, timeout: float = 120.0) -> str:
        """What a command prints that the host runs by ssh as the guest's root at `target`."""
        argv = [
            "ssh", "-n", "-i", str(self._system.key), "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes",
            "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=60",
            f"root@{target}", script,
        ]  # fmt: skip
        return self._sandbox.host.run(argv, timeout=timeout).stdout
