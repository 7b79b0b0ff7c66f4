"""libvirt's own XML test inputs, out of the distribution's source package.

Fetched once with apt, which checks its signature, by an apt configuration of its own: nothing of the
machine's changes. Kept in ~/.cache/libvirt-loopnet. Where there is no network, LOOPNET_OFFLINE=1
skips the tests that need it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "libvirt-loopnet"
KEYRINGS = (
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
)


class CorpusError(Exception):
    """The source package can't be had; the message says why."""


def corpus() -> Path:
    """The unpacked tests/ of libvirt's source. Skips when told to be offline and there is none."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with _lock(CACHE / "corpus.lock"):
        tests = CACHE / "libvirt-tests"
        if not tests.exists():
            if os.environ.get("LOOPNET_OFFLINE") == "1":
                pytest.skip("libvirt's source package is not there, and LOOPNET_OFFLINE=1")
            _unpack(_fetch(CACHE / "source"), tests)
        return tests


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "lists/partial").mkdir(parents=True)
    sources = directory / "sources.list"
    sources.write_text("".join(f"deb-src {_signed_by()}{line} main\n" for line in _repositories()))
    own = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": directory / "lists",
        "Dir::Cache": directory,
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }
    options = [word for key, value in own.items() for word in ("-o", f"{key}={value}")]
    _run(["apt-get", *options, "update"], directory)
    _run(["apt-get", *options, "source", "--download-only", "--tar-only", "libvirt"], directory)
    return next(directory.glob("libvirt_*.orig.tar.*[!c]"))


def _repositories() -> list[str]:
    """'URI RELEASE' of the machine's own repositories, whatever kind of file they stand in."""
    wanted = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)"]
    lines = _run([*wanted, "Created-By: Packages", "Component: main"], CACHE).splitlines()
    if not lines:
        raise CorpusError("apt knows no repository; run: apt-get update")
    return sorted(set(lines))


def _signed_by() -> str:
    there = [path for path in KEYRINGS if Path(path).exists()]
    return f"[signed-by={','.join(there)}] " if there else ""


def _run(command: list[str], directory: Path) -> str:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=600)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["?"])[-1]
        raise CorpusError(f"{command[0]} {command[-1]}: {last}; offline? LOOPNET_OFFLINE=1 skips this")
    return done.stdout


def _unpack(archive: Path, target: Path) -> None:
    partial = target.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with tarfile.open(archive) as tar:
        for member in tar:
            _, _, name = member.name.partition("/tests/")
            if name.endswith(".xml") and member.isfile():
                path = partial / name
                path.parent.mkdir(parents=True, exist_ok=True)
                source = tar.extractfile(member)
                assert source
                path.write_bytes(source.read())
    partial.rename(target)


def network_files(tests: Path) -> list[Path]:
    """Files of libvirt's tests that hold a whole network."""
    found = sorted(tests.glob("network*/*.xml"))
    return [path for path in found if b"<network" in path.read_bytes()]


def domain_files(tests: Path) -> list[Path]:
    """Files of libvirt's tests that hold a domain, of any driver."""
    found = sorted(tests.glob("*/*.xml"))
    return [path for path in found if b"<domain" in path.read_bytes()]
