"""libvirt's own XML test inputs, out of the distribution's source package.

Fetched once with apt, which checks its signature, by an apt configuration of its own: nothing of the
machine's changes. Kept in ~/.cache/libvirt-loopnet. Where there is no network, LOOPNET_OFFLINE=1
skips the tests that need it.
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from tests.machines.libvirt import fetched
from tests.machines.source import tarball
from tests.sandbox import cache
from tests.sandbox.cache import BuildError, command

_NAME = ("corpus", "XML files below tests/")


class CorpusError(Exception):
    """The source package can't be had; the message says why."""


def corpus() -> Path:
    """The unpacked tests/ of libvirt's source. Skips when told to be offline and there is none."""
    return cache.built_once(*_NAME, _build)


def place() -> Path:
    """Where corpus() has it, or would have."""
    return cache.place(*_NAME)


def _build(directory: Path) -> Path:
    if os.environ.get("LOOPNET_OFFLINE") == "1":
        pytest.skip("libvirt's source package is not there, and LOOPNET_OFFLINE=1")
    _unpack(_fetch(directory / "source"), directory / "tests")
    return directory / "tests"


def _fetch(directory: Path) -> Path:
    """This system's libvirt; where the mirror lacks what its list names, as happens with sid, Debian 13's."""
    told: list[str] = []
    for fetch in (_own, fetched):
        try:
            return fetch(directory)
        except BuildError as error:
            told.append(str(error).splitlines()[-1])
    raise CorpusError(f"libvirt's source: {'; '.join(told)}; offline? LOOPNET_OFFLINE=1 skips this")


def _repositories() -> list[str]:
    """'URI RELEASE' of the machine's own repositories, whatever kind of file they stand in."""
    wanted = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)"]
    lines = command([*wanted, "Created-By: Packages", "Component: main"]).splitlines()
    if not lines:
        raise CorpusError("apt knows no repository; run: apt-get update")
    return sorted(set(lines))


def _own(directory: Path) -> Path:
    return tarball("libvirt", _repositories(), directory)


def _unpack(archive: Path, target: Path) -> None:
    with tarfile.open(archive) as tar:
        for member in tar:
            _, _, name = member.name.partition("/tests/")
            if name.endswith(".xml") and member.isfile():
                path = target / name
                path.parent.mkdir(parents=True, exist_ok=True)
                source = tar.extractfile(member)
                assert source
                path.write_bytes(source.read())


def network_files(tests: Path) -> list[Path]:
    """Files of libvirt's tests that hold a whole network."""
    found = sorted(tests.glob("network*/*.xml"))
    return [path for path in found if b"<network" in path.read_bytes()]


def domain_files(tests: Path) -> list[Path]:
    """Files of libvirt's tests that hold a domain, of any driver."""
    found = sorted(tests.glob("*/*.xml"))
    return [path for path in found if b"<domain" in path.read_bytes()]
