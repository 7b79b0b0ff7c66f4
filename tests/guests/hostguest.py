"""A host that is a guest: Debian with systemd and libvirt, off a disk of its own, emulated."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.sandbox import Guest, Sandbox
from tests.sandbox.domain import KERNEL_ARGUMENTS, SMALL_GUEST
from tests.sandbox.image import guest_image
from tests.sandbox.world import MAPPED, World

from .hostimage import Files, HostImage, host_image, payload

DISKS = """\
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='unsafe'/>
      <source file='{disk}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{payload}'/>
      <target dev='vdb' bus='virtio'/>
      <readonly/>
    </disk>
"""
ARGUMENTS = "root=/dev/vda rw net.ifnames=0 systemd.show_status=0"
BOOT_SECONDS = 600.0

LEAF_INIT = """\
#!/bin/sh
export PATH=/bin:/sbin
ip link set lo up
ip link set eth0 up
echo hello from leaf >/www/index.html
httpd -p 80 -h /www
exec udhcpc -f -i eth0 -t 1000 -T 3 -s /sbin/dhcp-event </dev/null >/log 2>&1
"""
"""First process of a container whose root file system is that of the small test guest."""


class HostGuest(Guest):
    """A guest that runs off a disk and is a host itself; `arguments` are further ones of its kernel."""

    def __init__(
        self, sandbox: Sandbox, name: str, network: str, image: HostImage, disks: str, arguments: str
    ) -> None:
        super().__init__(sandbox, name, [network], memory_mib=1536, devices=disks)
        self._image = image
        self._arguments = arguments

    def xml(self) -> str:
        small, text = guest_image(), super().xml()
        text = text.replace(str(small.kernel), str(self._image.kernel))
        text = text.replace(str(small.initramfs), str(self._image.initrd))
        text = text.replace(SMALL_GUEST, "")
        text = text.replace(KERNEL_ARGUMENTS, f"{KERNEL_ARGUMENTS} {ARGUMENTS} {self._arguments}".rstrip())
        return text.replace("<vcpu>1</vcpu>", "<vcpu>2</vcpu>")


def boot(world: World, directory: Path, files: Files, arguments: str = "") -> HostGuest:
    """Boots the guest `inner` on the network loopnet, which is up; `files` are in an archive on /dev/vdb.

    Its disk is written in `directory`. Raises ImageError, GuestError.
    """
    image = host_image()
    disk, archive = directory / "disk", directory / "payload"
    subprocess.run(["cp", "--sparse=always", str(image.disk), str(disk)], check=True, timeout=300)
    payload(archive, files)
    disks = DISKS.format(disk=disk, payload=archive)
    inner = HostGuest(world.sandbox, "inner", MAPPED.name, image, disks, arguments)
    inner.define()
    inner.start()
    inner.wait_boot(timeout=BOOT_SECONDS)
    return inner
