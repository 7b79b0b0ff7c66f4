"""Source packages, as apt has them: the original tarball alone, since mirrors may lack the rest of an old one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Sequence

from tests.sandbox.cache import command

from .bootstrap import DEBIAN, keys, mirror

KEYRINGS = (
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
)
FETCH_SECONDS = 600.0


def tarball(
    package: str, repositories: Sequence[str], directory: Path, keyrings: Sequence[str] = KEYRINGS
) -> Path:
    """A package's original tarball, into ``directory``, which is emptied first; apt checks its signature.

    ``repositories`` are 'ADDRESS SUITE' each. By an apt configuration of its own: nothing of the machine's
    changes. Raises BuildError.
    """
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "lists/partial").mkdir(parents=True)
    sources = directory / "sources.list"
    sources.write_text("".join(f"deb-src {_signed_by(keyrings)}{line} main\n" for line in repositories))
    own = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": directory / "lists",
        "Dir::Cache": directory,
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }
    options = [word for key, value in own.items() for word in ("-o", f"{key}={value}")]
    command(["apt-get", *options, "update"], str(directory), timeout=FETCH_SECONDS)
    fetch = ["source", "--download-only", "--tar-only", package]
    command(["apt-get", *options, *fetch], str(directory), timeout=FETCH_SECONDS)
    return next(directory.glob(f"{package}_*.orig.tar.*[!c]"))


def debian_tarball(package: str, suite: str, directory: Path) -> Path:
    """tarball() from a release of Debian's, on whichever system. Raises BuildError."""
    # An Ubuntu has few of Debian's keys, and an older one none of the latest.
    keyrings = [str(path) for path in sorted(keys().glob("*.gpg"))]
    return tarball(package, [f"{mirror(DEBIAN, suite)} {suite}"], directory, keyrings)


def libraries() -> str:
    """Where this machine has its libraries; the C library's version, as a program may be too new for one."""
    return " ".join([command(["gcc", "-print-multiarch"]).strip(), os.confstr("CS_GNU_LIBC_VERSION") or ""])


def _signed_by(keyrings: Sequence[str]) -> str:
    there = [path for path in keyrings if Path(path).exists()]
    return f"[signed-by={','.join(there)}] " if there else ""
