"""Debian packages that a sandbox has and the machine need not: daemons to test with.

Installing them would start their services on the machine, on all its addresses. They are downloaded,
unpacked into the cache and laid over /usr of the sandbox, and /etc gets what it lacks; nothing runs before a
test starts it.
"""

from __future__ import annotations

import functools
import re
import shlex
import shutil
from pathlib import Path
from typing import List, Sequence, Tuple

from .apt import apt
from .cache import BuildError, built_once, command
from .sandbox import Sandbox


def provide(sandbox: Sandbox, *names: str) -> None:
    """Let the sandbox have these packages and what they depend on: the files, no service, no user.

    Where releases call one differently, all its names stand there, "one|other". Raises BuildError when they cannot
    be had.
    """
    chosen = tuple(map(_known, names))
    wanted = _missing(chosen)
    if not wanted:
        return
    tree = _unpacked(chosen, wanted)
    sandbox.host.sh(
        f"mount -t overlay -o lowerdir={shlex.quote(f'{tree}/usr:/usr')} overlay /usr\n"
        f"tar -C {shlex.quote(f'{tree}/etc')} -c . | tar -C /etc -x --skip-old-files"
    )


@functools.cache
def available(name: str) -> bool:
    """Does this release have the package?"""
    return bool(apt("apt-cache", "search", "--names-only", f"^{re.escape(name)}$"))


def _known(names: str) -> str:
    """The first of these that apt knows, or just the first, of which apt complains then."""
    several = names.split("|")
    return several[0] if len(several) == 1 else next(filter(available, several), several[0])


@functools.cache
def _missing(names: Tuple[str, ...]) -> List[str]:
    """The packages, with versions, that apt would install."""
    told = _install("--simulate", *names)
    return sorted(re.findall(r"^Inst (\S+ .*?\(\S+)", told, re.MULTILINE))


def _unpacked(names: Tuple[str, ...], wanted: Sequence[str]) -> Path:
    """Their usr and etc, in the cache."""
    return built_once("unpacked", wanted, lambda directory: _unpack(names, directory))


def _unpack(names: Tuple[str, ...], directory: Path) -> Path:
    root = directory / "root"
    for path in (directory / "archives/partial", root / "usr", root / "etc"):
        path.mkdir(parents=True)
    _download(f"-oDir::Cache::archives={directory}/archives", *names)
    for package in sorted((directory / "archives").glob("*.deb")):
        command(["dpkg-deb", "--extract", str(package), str(root)])
    _merge(root)
    return root


def _download(*arguments: str) -> None:
    try:
        _install("--download-only", *arguments)
    except BuildError:
        # Old package lists name files that the mirror no longer has.
        apt("apt-get", "update", "-q")
        _install("--download-only", *arguments)


def _merge(root: Path) -> None:
    """Debian's /bin, /sbin and /lib are links into /usr; some packages have files there all the same."""
    for name in ("bin", "sbin", "lib", "lib64"):
        if (root / name).is_dir():
            shutil.copytree(root / name, root / "usr" / name, symlinks=True, dirs_exist_ok=True)


def _install(*arguments: str) -> str:
    """apt-get install, which locks nothing, as it installs nothing."""
    options = ["-qq", "--yes", "--no-install-recommends", "-oDebug::NoLocking=1"]
    return apt("apt-get", "install", *options, *arguments)
