"""libvirt with its modular daemons, which Debian and Ubuntu don't ship: built from Debian's source.

Not optimised, and with no more than guests in networks need: some 70 seconds on two cores. Debian 13's version,
whichever system this is; the packages to build it with are in tests/install-deps.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.sandbox.cache import BuildError, built_once, command

from .source import debian_tarball, libraries

SUITE, VERSION = "trixie", "11.3.0"
ON = ("driver_remote", "driver_libvirtd", "driver_qemu", "driver_network", "libnl", "capng", "attr", "json_c")
SETTINGS = (
    "--buildtype=plain", "--auto-features=disabled", "--prefix=/usr", "--sysconfdir=/etc", "--localstatedir=/var",
    "-Drunstatedir=/run", "-Dinit_script=none", "-Dno_git=true", "-Dqemu_user=root", "-Dqemu_group=root",
    *(f"-D{name}=enabled" for name in ON),
)  # fmt: skip
BUILD_SECONDS = 1200.0


def built() -> Path:
    """Its /usr, made when the cache has none; to be laid over a sandbox's. Raises BuildError."""
    return built_once(f"libvirt-{VERSION}", (SETTINGS, libraries()), _build)


def fetched(directory: Path) -> Path:
    """The tarball that its source came in. Raises BuildError."""
    return debian_tarball("libvirt", SUITE, directory)


def _build(directory: Path) -> Path:
    archive = fetched(directory / "fetched")
    if f"_{VERSION}.orig" not in archive.name:
        raise BuildError(
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
