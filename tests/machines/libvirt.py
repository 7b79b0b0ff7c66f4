"""libvirt with its modular daemons, which Debian and Ubuntu don't ship: built from Debian's source.

Not optimised, and with no more than guests in networks need: some 70 seconds on two cores. Debian 13's version,
whichever system this is; the packages to build it with are in tests/install-deps.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from tests.sandbox.image import ImageError, cache_directory, command, locked

from .bootstrap import DEBIAN, mirror
from .source import tarball

SUITE, VERSION = "trixie", "11.3.0"
ON = ("driver_remote", "driver_libvirtd", "driver_qemu", "driver_network", "libnl", "capng", "attr", "json_c")
SETTINGS = (
    "--buildtype=plain", "--auto-features=disabled", "--prefix=/usr", "--sysconfdir=/etc", "--localstatedir=/var",
    "-Drunstatedir=/run", "-Dinit_script=none", "-Dno_git=true", "-Dqemu_user=root", "-Dqemu_group=root",
    *(f"-D{name}=enabled" for name in ON),
)  # fmt: skip
BUILD_SECONDS = 1200.0


def built() -> Path:
    """Its /usr, made when the cache has none; to be laid over a sandbox's. Raises ImageError."""
    cache = cache_directory()
    digest = hashlib.sha256(repr((SETTINGS, libraries())).encode()).hexdigest()[:12]
    tree = cache / f"libvirt-{VERSION}-{digest}"
    cache.mkdir(parents=True, exist_ok=True)
    # A lock of its own: whoever wants a guest image need not wait for this.
    with locked(cache / "libvirt.lock"):
        if not tree.is_dir():
            with tempfile.TemporaryDirectory(prefix="build-", dir=cache) as name:
                _build(Path(name)).rename(tree)
    return tree


def libraries() -> str:
    """Where this machine has its libraries; the C library's version, as a program may be too new for one."""
    return " ".join([command(["gcc", "-print-multiarch"]).strip(), os.confstr("CS_GNU_LIBC_VERSION") or ""])


def _build(directory: Path) -> Path:
    archive = tarball("libvirt", [f"{mirror(DEBIAN, SUITE)} {SUITE}"], directory / "fetched")
    if f"_{VERSION}.orig" not in archive.name:
        raise ImageError(
            f"{SUITE} has {archive.name}, not libvirt {VERSION}; change tests/machines/libvirt.py"
        )
    shutil.unpack_archive(archive, directory)
    source, build = directory / f"libvirt-{VERSION}", directory / "build"
    (source / "po/LINGUAS").write_text("")  # what it says in 50 languages
    place = f"--libdir=lib/{libraries().split()[0]}"
    command(["meson", "setup", *SETTINGS, place, str(build), str(source)], timeout=BUILD_SECONDS)
    command(["ninja", "-C", str(build)], timeout=BUILD_SECONDS)
    install = ["meson", "install", "-C", str(build), "--no-rebuild", "--quiet"]
    command(["env", f"DESTDIR={directory}/installed", *install], timeout=BUILD_SECONDS)
    return directory / "installed/usr"
