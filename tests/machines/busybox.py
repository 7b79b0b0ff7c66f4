"""busybox' DHCPv6 client, which Debian's busybox lacks: built from Debian's source, in 20 seconds of processor time."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from tests.sandbox.cache import BuildError, built_once, command

from .source import debian_tarball, libraries

SUITE = "bookworm"
SETTINGS = {"FEATURE_IPV6": True, "UDHCPC6": True, "SH_IS_NONE": True, "SH_IS_ASH": False}
"""Beside these nothing is in it; so the program is the one that it has."""
BUILD_SECONDS = 600.0


def udhcpc6() -> Path:
    """The program, made when the cache has none. Raises BuildError."""
    return built_once("udhcpc6", (SUITE, SETTINGS, libraries()), _build)


def _build(directory: Path) -> Path:
    archive = debian_tarball("busybox", SUITE, directory / "fetched")
    shutil.unpack_archive(archive, directory)
    source = next(directory.glob("busybox-*"))
    make = ["make", "-C", str(source)]
    command([*make, "allnoconfig"], timeout=BUILD_SECONDS)
    settings = source / ".config"
    lines = [line for line in settings.read_text().splitlines() if not any(map(line.__contains__, _NAMES))]
    lines += [f"CONFIG_{name}=y" if on else f"# CONFIG_{name} is not set" for name, on in SETTINGS.items()]
    settings.write_text("".join(f"{line}\n" for line in lines))
    command(["sh", "-c", f"yes '' | {shlex.join([*make, 'oldconfig'])}"], timeout=BUILD_SECONDS)
    if "CONFIG_UDHCPC6=y\n" not in settings.read_text() or "CONFIG_SHELL_ASH=y\n" in settings.read_text():
        raise BuildError(f"{archive.name} can't be built as tests/machines/busybox.py has it")
    command([*make, "busybox"], timeout=BUILD_SECONDS)
    return source / "busybox"


_NAMES = [f"CONFIG_{name} " for name in SETTINGS] + [f"CONFIG_{name}=" for name in (*SETTINGS, "SHELL_ASH")]
