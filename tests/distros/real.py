"""A Debian system as a guest of the sandbox."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Optional, Sequence
from xml.sax.saxutils import escape

from tests.sandbox import Guest, GuestError, Sandbox
from tests.sandbox.domain import interface_xml
from tests.sandbox.image import command

from .debian import System

BOOT_SECONDS = 400.0
"""Emulated, on a machine that does other things: a minute is usual."""
POLL_SECONDS = 0.5
CMDLINE = "console=ttyS0 nokaslr mitigations=off net.ifnames=0 systemd.show_status=0 panic=-1"

DOMAIN = """\
<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>512</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initramfs}</initrd>
    <cmdline>{cmdline}</cmdline>
  </os>
  <features><acpi/></features>
  <on_reboot>destroy</on_reboot>
  <devices>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='unsafe'/>
      <source file='{base}.qcow2'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    {seed}
    <serial type='pty'>
      <log file='{base}.console' append='on'/>
      <target port='0'/>
    </serial>
    <serial type='unix'>
      <source mode='bind' path='{base}.channel'/>
      <target port='1'/>
    </serial>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    {interfaces}
    {devices}
  </devices>
</domain>
"""

SEED = """\
<disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{file}'/>
      <target dev='vdb' bus='virtio'/>
      <readonly/>
    </disk>"""


class RealGuest(Guest):
    """A guest with a disk. `disk` is its backing file, `seed` an image for cloud-init, `devices` are further ones."""

    def __init__(
        self,
        sandbox: Sandbox,
        name: str,
        networks: Sequence[str],
        system: System,
        *,
        disk: Optional[Path] = None,
        seed: Optional[Path] = None,
        cmdline: str = "",
        devices: str = "",
    ) -> None:
        super().__init__(sandbox, name, networks, cmdline=cmdline, devices=devices)
        self._system = system
        self._seed = seed
        overlay = sandbox.path(f"{self._base}.qcow2")
        backing = disk or system.disk
        command(["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(backing), "-F", "raw", str(overlay)])
        self.define()

    def xml(self) -> str:
        return DOMAIN.format(
            name=escape(self.name),
            uuid=self.uuid,
            kernel=self._system.kernel,
            initramfs=self._system.initramfs,
            cmdline=escape(f"{CMDLINE} {self._cmdline}".rstrip()),
            base=self._base,
            seed=SEED.format(file=self._seed) if self._seed else "",
            interfaces="".join(interface_xml(mac, net) for mac, net in zip(self.macs, self.networks)),
            devices=self._devices,
        )

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
