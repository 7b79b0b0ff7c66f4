"""Debian systems on disks for guests, made from packages by mmdebstrap and kept in the cache.

Every system is plain Debian as stacks.py says, and beside it what a test needs: the command channel of the small test
guest on the second serial line, and a key for ssh.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from tests.sandbox.cache import BuildError, built_once, command
from tests.sandbox.cpio import CpioWriter
from tests.sandbox.image import (
    ROOTFS,
    guest_image,
    module_directory,
    modules_in_load_order,
    unpack_kernel,
    write_modules,
)

from .bootstrap import bootstrap, os_release
from .stacks import SYSTEMS, Stack

DISK_SECONDS = 1200.0

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
    """The system called ``name`` in SYSTEMS; made when the cache has none by this recipe, in some two minutes.

    Raises BuildError when packages cannot be had.
    """
    stack = SYSTEMS[name]
    # The same one may be prepared in two ways.
    name = next(each for each in SYSTEMS if SYSTEMS[each] == stack)
    recipe = (Path(__file__).read_text(), stack, guest_image().kernel.parent.name)
    made = built_once(f"system-{name}", recipe, lambda place: _build(stack, place), forget_unused=True)
    return System(made / "vmlinuz", made / "initramfs", made / "tree", made / "disk", made / "key")


def _build(stack: Stack, directory: Path) -> Path:
    result = directory / "result"
    tree = result / "tree"
    result.mkdir()
    _bootstrap(stack, tree)
    command(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "sandbox", "-f", str(result / "key")])
    if stack.own_kernel:
        for part, pattern in (("vmlinuz", "vmlinuz-*"), ("initramfs", "initrd.img-*")):
            shutil.copyfile(next((tree / "boot").glob(pattern)), result / part)
    else:
        shutil.copyfile(guest_image().vmlinuz, result / "vmlinuz")
        unpack_kernel(directory / "kernel")
        _write_initramfs(result / "initramfs", directory / "kernel", tree)
        _install_modules(directory / "kernel", tree)
    files = {
        "/etc/hostname": "guest\n",
        "/etc/guest.sh": (ROOTFS / "etc/guest.sh").read_text(),
        "/usr/local/sbin/channel": (ROOTFS / "sbin/channel").read_text(),
        "/etc/systemd/system/channel.service": CHANNEL_UNIT,
        "/root/.ssh/authorized_keys": (result / "key.pub").read_text(),
        **dict(stack.files),
    }
    for path, text in files.items():
        put(tree, path, text)
    (tree / "root/.ssh").chmod(0o700)
    command(["systemctl", f"--root={tree}", "--quiet", "enable", "channel.service", *stack.enable])
    # A login prompt would only share the console with what is logged there.
    command(["systemctl", f"--root={tree}", "--quiet", "mask", "serial-getty@ttyS0.service", *stack.mask])
    if stack.script:
        command(["chroot", str(tree), "sh", "-euc", stack.script])
    make_disk(tree, result / "disk", stack.disk_size)
    return result


def put(tree: Path, path: str, text: str, mode: int = 0o644) -> None:
    """Writes a file of a system, in place of what was there: the old one may be another tree's as well."""
    file = tree / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    file.write_text(text)
    file.chmod(mode)


def make_disk(tree: Path, disk: Path, size: str) -> None:
    """An ext4 image of a root file system."""
    with disk.open("wb") as file:
        file.truncate(0)
    command(["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-E", "lazy_itable_init=1",
             "-d", str(tree), str(disk), size], timeout=DISK_SECONDS)  # fmt: skip


def _bootstrap(stack: Stack, tree: Path) -> None:
    suite = stack.suite or os_release("VERSION_CODENAME")
    if not suite:
        raise BuildError("/etc/os-release has no VERSION_CODENAME; is this Debian?")
    bootstrap(
        suite, COMMON + stack.packages, tree,
        *(f"--dpkgopt=path-exclude=/usr/share/{what}/*" for what in LEAN),
    )  # fmt: skip
    shutil.rmtree(tree / "var/lib/apt/lists", ignore_errors=True)


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
