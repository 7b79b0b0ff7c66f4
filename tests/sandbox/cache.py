"""What takes long to make is made once and kept in the user's cache: images, packages, systems, programs."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Callable, Iterator, Sequence

COMMAND_SECONDS = 300.0
UNUSED_SECONDS = 24 * 3600.0
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class BuildError(Exception):
    """Something could not be made; the message says what failed and how."""


def cache_directory() -> Path:
    """The directory that keeps it all: libvirt-loopnet in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "libvirt-loopnet"


def place(name: str, recipe: object) -> Path:
    """Where what built_once() makes is, or would be."""
    return cache_directory() / f"{name}-{hashlib.sha256(repr(recipe).encode()).hexdigest()[:12]}"


def built_once(
    name: str, recipe: object, build: Callable[[Path], Path], *, forget_unused: bool = False
) -> Path:
    """What ``build`` makes in a directory that it is given, kept in the cache while ``recipe`` is the same.

    Processes that ask at the same time wait for the first one. Half of anything is never seen. ``name`` may have a
    folder before it. With ``forget_unused`` that of other recipes goes which nobody, in another checkout say, has asked
    for in a day. Raises what ``build`` raises, and OSError where nothing can be kept.
    """
    result = place(name, recipe)
    if not result.exists():
        result.parent.mkdir(parents=True, exist_ok=True)
        # A lock of its own: whoever wants a guest image need not wait for a system.
        with _locked(result.parent / f"{Path(name).name.partition('-')[0]}.lock"):
            if not result.exists():
                if forget_unused:
                    _forget_unused(result.parent.glob(f"{Path(name).name}-*"))
                with tempfile.TemporaryDirectory(prefix="build-", dir=result.parent) as directory:
                    build(Path(directory)).rename(result)
    if forget_unused:
        os.utime(result)
    return result


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _forget_unused(kept: Iterator[Path]) -> None:
    for old in kept:
        if time.time() - old.stat().st_mtime > UNUSED_SECONDS:
            shutil.rmtree(old)


def check_room(directory: Path, needed: int) -> None:
    """A full disk makes apt say anything but that. Raises BuildError with less than ``needed`` MiB."""
    with suppress(OSError):  # there is no such place, which is told by others
        free = shutil.disk_usage(directory).free >> 20
        if free < needed:
            raise BuildError(
                f"no space left in {directory}: {free} MiB are free, {needed} are needed; "
                "make room, or name another place: XDG_CACHE_HOME=DIRECTORY make …"
            )


def reason(printed: str) -> str:
    """The line that says why, of all that a program, and those that it runs, have printed."""
    for pattern in (r"No space left on device|enough free space", r"^(?:E|Err|dpkg|fatal): .*", r"."):
        found = [line.strip() for line in printed.splitlines() if re.search(pattern, line)]
        if found:
            return found[0]
    return "it failed, and did not say why"


def command(argv: Sequence[str], directory: str = "/", *, timeout: float = COMMAND_SECONDS) -> str:
    """Runs a command; its standard output. Raises BuildError with what it printed."""
    return command_bytes(argv, directory, timeout=timeout).decode(errors="replace")


def command_bytes(
    argv: Sequence[str], directory: str = "/", *, timeout: float = COMMAND_SECONDS, data: bytes = b""
) -> bytes:
    """The same, with output that is no text; it reads `data`."""
    try:
        done = subprocess.run(
            argv, cwd=directory, env={**os.environ, "LC_ALL": "C", "PATH": PATH}, input=data,
            capture_output=True, timeout=timeout, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{argv[0]}: {error}") from error
    if done.returncode != 0:
        printed = (done.stdout + done.stderr).decode(errors="replace").strip()
        raise BuildError(f"{' '.join(argv)}: exit status {done.returncode}\n{printed}")
    return done.stdout
