"""A guest that is a whole host: Debian with systemd, libvirtd, QEMU and what loopnet needs, on a disk.

Made once from Debian's archive with mmdebstrap (about two minutes), and kept in the user's cache. The
checkout and what the innermost guest needs are not in it: a second disk brings them, as a tar archive.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Union

from tests.machines.bootstrap import bootstrap
from tests.sandbox import CHECKOUT
from tests.sandbox.image import ROOTFS, cache_directory, command

SUITE = "trixie"
PACKAGES = (
    "systemd-sysv", "systemd-resolved", "udev", "dbus", "procps", "linux-image-cloud-amd64",
    "initramfs-tools", "iproute2", "nftables", "dnsmasq-base", "iputils-ping", "curl", "make",
    "busybox-static", "python3", "python3-libvirt", "python3-lxml", "python3-pyroute2",
    "libvirt-daemon-system", "libvirt-clients", "libvirt-daemon-driver-qemu", "libvirt-daemon-driver-lxc",
    "qemu-system-x86", "apparmor", "apparmor-profiles",
)  # fmt: skip
UNWANTED = (
    "getty.target", "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_reap.service",
    "systemd-logind.service", "libvirt-guests.service", "dpkg-db-backup.timer",
)  # fmt: skip
"""Units that cost time when every instruction is emulated, and do nothing for the test."""
FILES = {
    "etc/hostname": "inner\n",
    "etc/hosts": "127.0.0.1\tlocalhost\n127.0.1.1\tinner\n",
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/fstab": "",
    "etc/systemd/network/50-uplink.network": "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\n",
    "etc/systemd/system/channel.service": "[Unit]\nAfter=libvirtd.socket systemd-networkd.service\n"
    "[Service]\nExecStart=/usr/local/sbin/channel\nRestart=always\n[Install]\nWantedBy=multi-user.target\n",
}
CONFINED = ("usr.sbin.dnsmasq", "usr.sbin.libvirtd", "usr.lib.libvirt.virt-aa-helper")
"""AppArmor's profiles of what is run here; to compile all others takes the emulated machine minutes at each boot."""
SCRIPTS = {"usr/local/sbin/channel": "sbin/channel", "etc/guest.sh": "etc/guest.sh"}
"""From the rootfs of the small test guest: the line that commands come over is the same."""
DISK_SIZE = "3G"
SECONDS = 1200.0
Files = Mapping[str, Union[Path, str]]
"""Names in an archive; files to copy, or texts."""


class HostImage(NamedTuple):
    """What the inner host boots: paths."""

    kernel: Path
    initrd: Path
    disk: Path
    """A raw ext4 file system; not to be written to."""


def host_image() -> HostImage:
    """The image; built when the cache has none made by this recipe. Raises ImageError."""
    cache = cache_directory()
    directory = cache / f"host-{_recipe_digest()}"
    image = HostImage(directory / "vmlinuz", directory / "initrd", directory / "disk")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "host.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.is_dir():
            with tempfile.TemporaryDirectory(prefix="build-", dir=cache) as name:
                _build(Path(name))
                (Path(name) / "result").rename(directory)
    return image


def checkout() -> Files:
    """What git tracks, tests apart, as files of payload()."""
    tracked = command(["git", "-C", str(CHECKOUT), "ls-files", "-z"]).split("\0")
    wanted = [name for name in filter(None, tracked) if not name.startswith("tests/")]
    return {f"checkout/{name}": CHECKOUT / name for name in wanted if (CHECKOUT / name).exists()}


def payload(path: Path, files: Files) -> None:
    """Writes the second disk, a tar archive of `files`: copies of a path's file, or the text itself."""
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            if isinstance(content, Path):
                archive.add(content, name)
            else:
                _add(archive, name, content.encode(), 0o644)
    with path.open("ab") as file:  # a disk has whole sectors
        file.truncate(-(-path.stat().st_size // 4096) * 4096)


def _recipe_digest() -> str:
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for source in SCRIPTS.values():
        digest.update((ROOTFS / source).read_bytes())
    return digest.hexdigest()[:12]


def _build(build: Path) -> None:
    overlay, root, result = build / "overlay.tar", build / "root", build / "result"
    result.mkdir()
    with tarfile.open(overlay, "w") as archive:
        for name, text in FILES.items():
            _add(archive, name, text.encode(), 0o644)
        for name, source in SCRIPTS.items():
            _add(archive, name, (ROOTFS / source).read_bytes(), 0o755)
    units = " ".join(UNWANTED)
    enabled = "systemd-networkd.service systemd-resolved.service channel.service libvirtd.socket"
    bootstrap(
        SUITE, PACKAGES, root,
        *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "locale")),
        f"--customize-hook=tar -C $1 -xf {overlay}",
        f"--customize-hook=systemctl --quiet --root=$1 mask {units}",
        f"--customize-hook=systemctl --quiet --root=$1 enable {enabled}",
    )  # fmt: skip
    for profile in (root / "etc/apparmor.d").iterdir():
        if profile.is_file() and profile.name not in CONFINED:
            (root / "etc/apparmor.d/disable" / profile.name).symlink_to(f"/etc/apparmor.d/{profile.name}")
    resolv = root / "etc/resolv.conf"
    resolv.unlink(missing_ok=True)
    resolv.symlink_to("../run/systemd/resolve/stub-resolv.conf")
    for part, pattern in (("vmlinuz", "vmlinuz-*"), ("initrd", "initrd.img-*")):
        shutil.copyfile(next((root / "boot").glob(pattern)), result / part)
    command(["mke2fs", "-q", "-t", "ext4", "-d", str(root), str(result / "disk"), DISK_SIZE], timeout=SECONDS)


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))
