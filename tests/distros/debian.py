"""Disks of Debian systems, made from packages by mmdebstrap and kept in the cache of the guest image.

Every system is plain Debian with one way to configure its network, as its packages set that up, and beside
it what a test needs: the command channel on the second serial line and a key for ssh.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.machines.bootstrap import bootstrap
from tests.sandbox.cpio import CpioWriter
from tests.sandbox.image import (
    ROOTFS,
    ImageError,
    cache_directory,
    command,
    guest_image,
    locked,
    module_directory,
    modules_in_load_order,
    unpack_kernel,
    write_modules,
)

from .stacks import SYSTEMS, Stack

DISK_SIZE = "2G"
DISK_SECONDS = 900.0

COMMON = (
    "systemd-sysv",
    "udev",
    "dbus",
    "iproute2",
    "openssh-server",
    "iputils-ping",
    "busybox-static",
    "kmod",
)
"""What a small server has, whatever configures its network."""
LEAN = ("man", "locale", "doc", "info", "lintian")
BOOT_MODULES = ("virtio_pci", "virtio_blk")
SYSTEM_MODULES = ("virtio_net", "virtio_console", "isofs")

INIT = """\
#!/bin/sh
mount -t proc proc /proc
mount -t devtmpfs devtmpfs /dev
while read -r module; do
    insmod "/lib/modules/$module"
done </lib/modules/order
until [ -b /dev/vda ]; do sleep 0.1; done
mount -t ext4 -o noatime /dev/vda /root
umount /proc
mount --move /dev /root/dev
exec switch_root /root /sbin/init
"""

CHANNEL_UNIT = """\
[Unit]
Description=Commands over the second serial line

[Service]
ExecStart=/bin/sh /usr/local/sbin/channel
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
"""


class System(NamedTuple):
    """What a guest boots, and the key that opens it."""

    kernel: Path
    initramfs: Path
    tree: Path
    """The root file system, as files."""
    disk: Path
    """The same as an ext4 image; read only, guests write to an overlay."""
    key: Path


def system(name: str) -> System:
    """The system called ``name`` in SYSTEMS; built when the cache has none made by this recipe.

    Raises ImageError when packages cannot be had.
    """
    stack = SYSTEMS[name]
    cache = cache_directory()
    digest = hashlib.sha256(Path(__file__).read_bytes() + repr(stack).encode())
    digest.update(guest_image().kernel.parent.name.encode())
    name = next(
        each for each in SYSTEMS if SYSTEMS[each] == stack
    )  # the same one may be prepared in two ways
    directory = cache / f"system-{name}-{digest.hexdigest()[:12]}"
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / "systems.lock"):
        if not directory.is_dir():
            _forget_old(cache, name)
            with tempfile.TemporaryDirectory(prefix="build-", dir=cache) as temporary:
                result = Path(temporary) / "result"
                result.mkdir()
                _build(stack, result)
                result.rename(directory)
    os.utime(directory)
    return System(
        guest_image().kernel,
        directory / "initramfs",
        directory / "tree",
        directory / "disk",
        directory / "key",
    )


def _forget_old(cache: Path, name: str) -> None:
    """Takes systems away that older recipes made and that nobody, in another checkout say, has used for a day."""
    for old in cache.glob(f"system-{name}-*"):
        if time.time() - old.stat().st_mtime > 24 * 3600:
            shutil.rmtree(old)


def _build(stack: Stack, result: Path) -> None:
    tree = result / "tree"
    _bootstrap(stack, tree)
    command(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "sandbox", "-f", str(result / "key")])
    unpacked = result / "kernel"
    unpack_kernel(unpacked)
    _write_initramfs(result / "initramfs", unpacked, tree)
    _install_modules(unpacked, tree)
    shutil.rmtree(unpacked)
    files = {
        **dict(stack.files),
        "/etc/hostname": "guest\n",
        "/etc/guest.sh": (ROOTFS / "etc/guest.sh").read_text(),
        "/usr/local/sbin/channel": (ROOTFS / "sbin/channel").read_text(),
        "/etc/systemd/system/channel.service": CHANNEL_UNIT,
        "/root/.ssh/authorized_keys": (result / "key.pub").read_text(),
    }
    for path, text in files.items():
        put(tree, path, text)
    (tree / "root/.ssh").chmod(0o700)
    command(["systemctl", f"--root={tree}", "--quiet", "enable", "channel.service", *stack.enable])
    # A login prompt would only share the console with what is logged there.
    command(["systemctl", f"--root={tree}", "--quiet", "mask", "serial-getty@ttyS0.service"])
    make_disk(tree, result / "disk")


def put(tree: Path, path: str, text: str, mode: int = 0o644) -> None:
    """Writes a file of a system, in place of what was there: the old one may be another tree's as well."""
    file = tree / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    file.write_text(text)
    file.chmod(mode)


def make_disk(tree: Path, disk: Path) -> None:
    """An ext4 image of a root file system."""
    with disk.open("wb") as file:
        file.truncate(0)
    command(["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-E", "lazy_itable_init=1",
             "-d", str(tree), str(disk), DISK_SIZE], timeout=DISK_SECONDS)  # fmt: skip


def _bootstrap(stack: Stack, tree: Path) -> None:
    bootstrap(
        stack.suite or _codename(), COMMON + stack.packages, tree,
        *(f"--dpkgopt=path-exclude=/usr/share/{what}/*" for what in LEAN),
    )  # fmt: skip
    shutil.rmtree(tree / "var/lib/apt/lists", ignore_errors=True)


def _codename() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.partition("=")[2].strip('"')
    raise ImageError("/etc/os-release has no VERSION_CODENAME; is this Debian?")


def _write_initramfs(target: Path, unpacked: Path, tree: Path) -> None:
    modules = modules_in_load_order(unpacked, BOOT_MODULES)
    with target.open("wb") as file, CpioWriter(file) as archive:
        for name in ("dev", "proc", "root", "sys"):
            archive.directory(name)
        archive.character_device("dev/console", 5, 1)
        busybox = next(path for path in (tree / "usr/bin/busybox", tree / "bin/busybox") if path.is_file())
        archive.file("bin/busybox", busybox.read_bytes(), 0o755)
        for applet in ("sh", "mount", "umount", "insmod", "sleep", "switch_root", "["):
            archive.symlink(f"bin/{applet}", "busybox")
        write_modules(archive, modules)
        archive.file("init", INIT.encode(), 0o755)


def _install_modules(unpacked: Path, tree: Path) -> None:
    """The few modules that the system itself loads."""
    source = module_directory(unpacked)
    target = tree / "usr/lib/modules" / source.name
    for path in modules_in_load_order(unpacked, SYSTEM_MODULES):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        shutil.copyfile(source / name, target / name)
    command(["chroot", str(tree), "depmod", source.name])
