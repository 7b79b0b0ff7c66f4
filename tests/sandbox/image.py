"""The test guest's kernel and initramfs, made from Debian packages and kept in a cache.

Nothing is installed: packages are downloaded with `apt-get download` and unpacked into a temporary
directory. What ends up in the initramfs is busybox, a bare perl (for UDP), the virtio network
modules and the files in `rootfs/`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, List, NamedTuple, Sequence, Tuple

from .cpio import CpioWriter

ROOTFS = Path(__file__).with_name("rootfs")
PACKAGES = ("busybox-static", "perl-base", "libc6", "libcrypt1")
PROGRAMS = ("usr/bin/perl",)
DOWNLOAD_SECONDS = 300.0


class Kernel(NamedTuple):
    """The package that depends on the latest kernel of its kind, how those are called, modules to load."""

    package: str
    stem: str
    modules: Tuple[str, ...]


CLOUD = Kernel("linux-image-cloud-amd64", "linux-image-[0-9]*-cloud-amd64", ("virtio_pci", "virtio_net"))
"""Small, and boots soon."""
GENERIC = Kernel(
    "linux-image-amd64",
    "linux-image-[0-9]*[0-9]-amd64",
    ("virtio_pci", "virtio_net", "e1000", "e1000e", "8139cp", "vmxnet3"),
)
"""Knows the NICs that QEMU has besides virtio."""


class ImageError(Exception):
    """The guest image could not be built; the message says what failed and how."""


@dataclass(frozen=True)
class GuestImage:
    """What a guest boots: paths of the kernel and of the initramfs."""

    kernel: Path
    initramfs: Path


def cache_directory() -> Path:
    """The directory that keeps images and packages: libvirt-loopnet in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "libvirt-loopnet"


def guest_image(kernel: Kernel = CLOUD) -> GuestImage:
    """The guest image; built when the cache has none made by this recipe (some 10 seconds).

    Processes that ask at the same time wait for the first one.
    Raises ImageError when packages cannot be had.
    """
    cache = cache_directory()
    directory = cache / f"guest-{_recipe_digest(kernel)}"
    image = GuestImage(directory / "vmlinuz", directory / "initramfs")
    if directory.is_dir():
        return image
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / "lock"):
        if not directory.is_dir():
            with tempfile.TemporaryDirectory(prefix="build-", dir=cache) as name:
                build = Path(name)
                result = build / "result"
                result.mkdir()
                _build(kernel, cache / "packages", build / "unpacked", result)
                result.rename(directory)
    return image


def _recipe_digest(kernel: Kernel) -> str:
    """Changes whenever anything does that decides what an image contains."""
    digest = hashlib.sha256(repr(kernel).encode())
    code = (Path(__file__), Path(__file__).with_name("cpio.py"))
    sources = [*code, *(path for path in sorted(ROOTFS.rglob("*")) if path.is_file())]
    for path in sources:
        digest.update(f"{path.name} {stat.S_IMODE(path.stat().st_mode)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(kernel: Kernel, packages: Path, unpacked: Path, result: Path) -> None:
    for package in _download(kernel, packages):
        command(["dpkg-deb", "--extract", str(package), str(unpacked)])
    kernels = list(unpacked.glob("boot/vmlinuz-*"))
    if len(kernels) != 1:
        raise ImageError(f"{kernel.package}: expected one kernel, found {len(kernels)}")
    shutil.copyfile(kernels[0], result / "vmlinuz")
    with (result / "initramfs").open("wb") as file, CpioWriter(file) as archive:
        _write_initramfs(archive, unpacked, kernel)


def _download(kernel: Kernel, directory: Path) -> List[Path]:
    """The packages as files; they stay in the cache, so a new recipe needs no network."""
    directory.mkdir(exist_ok=True)
    stems = [kernel.stem, *PACKAGES]
    found = [sorted(directory.glob(f"{stem}_*.deb")) for stem in stems]
    if not all(found):
        try:
            _download_now(kernel, directory)
        except ImageError:
            # Old package lists name files that the mirror no longer has.
            command(["apt-get", "update", "-q"])
            _download_now(kernel, directory)
        found = [sorted(directory.glob(f"{stem}_*.deb")) for stem in stems]
    return [files[-1] for files in found]


def _download_now(kernel: Kernel, directory: Path) -> None:
    depends = command(["apt-cache", "depends", "--important", kernel.package])
    found = re.search(r"Depends: (linux-image-\S+)", depends)
    if found is None:
        raise ImageError(f"{kernel.package}: no kernel package known; is this Debian?")
    with tempfile.TemporaryDirectory(dir=directory) as name:
        names = [found.group(1), *PACKAGES]
        # _apt, the user apt would switch to, cannot write into root's cache directory.
        command(["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", *names], name)
        for path in Path(name).glob("*.deb"):
            path.rename(directory / path.name)


def _write_initramfs(archive: CpioWriter, unpacked: Path, kernel: Kernel) -> None:
    for name in ("dev", "etc", "proc", "root", "run", "sys", "tmp"):
        archive.directory(name)
    # The kernel opens it for init before init could mount anything on /dev.
    archive.character_device("dev/console", 5, 1)

    busybox = next(unpacked.glob("*bin/busybox"), unpacked / "usr/bin/busybox")
    archive.file("bin/busybox", busybox.read_bytes(), 0o755)
    for applet in command([str(busybox), "--list"]).split():
        if applet != "busybox":
            archive.symlink(f"bin/{applet}", "busybox")

    for name in PROGRAMS:
        archive.file(f"bin/{Path(name).name}", (unpacked / name).read_bytes(), 0o755)
    for library in ("libc.so.6", "libm.so.6", "libcrypt.so.1", "ld-linux-x86-64.so.2"):
        path = next(path for path in unpacked.rglob(library) if path.is_file())
        folder = "lib64" if library.startswith("ld-") else "lib"
        archive.file(f"{folder}/{library}", path.read_bytes(), 0o755)

    modules = modules_in_load_order(unpacked, kernel.modules)
    for module in modules:
        archive.file(f"lib/modules/{module.name}", module.read_bytes(), 0o644)
    order = "".join(f"{module.name}\n" for module in modules)
    archive.file("lib/modules/order", order.encode(), 0o644)

    for path in sorted(ROOTFS.rglob("*")):
        if path.is_file():
            mode = 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644
            archive.file(str(path.relative_to(ROOTFS)), path.read_bytes(), mode)


def modules_in_load_order(unpacked: Path, names: Sequence[str]) -> List[Path]:
    """Module files, each after those it depends on.

    The dependencies are in the modules themselves; modules.dep is only made at installation.
    """
    files = {path.stem.replace("-", "_"): path for path in unpacked.glob("lib/modules/**/*.ko")}
    order: List[Path] = []

    def add(name: str) -> None:
        path = files.get(name.replace("-", "_"))
        if path is None:
            raise ImageError(f"the kernel has no module {name}")
        match = re.search(rb"\0depends=([^\0]*)\0", path.read_bytes())
        for dependency in match.group(1).decode().split(",") if match else []:
            if dependency:
                add(dependency)
        if path not in order:
            order.append(path)

    for name in names:
        add(name)
    return order


def command(argv: Sequence[str], directory: str = "/") -> str:
    """Runs a command; its standard output. Raises ImageError with what it printed."""
    try:
        done = subprocess.run(
            argv, cwd=directory, env={**os.environ, "LC_ALL": "C"}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ImageError(f"{argv[0]}: {error}") from error
    if done.returncode != 0:
        printed = f"{done.stdout}{done.stderr}".strip()
        raise ImageError(f"{' '.join(argv)}: exit status {done.returncode}\n{printed}")
    return done.stdout
