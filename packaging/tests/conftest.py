"""The packages under test, built once from the working tree, and the machines they are tested on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import inside
import pytest

from tests.machines.bootstrap import root
from tests.machines.machine import BOOTS, can_boot

TOP = Path(__file__).resolve().parents[2]
PYTHON_OF_BOOKWORM = "3.11"
BASE = ("systemd-sysv", "dbus", "libvirt-clients", "make", "rpm", *inside.PACKAGES)
"""What a machine has beside what the package depends on."""


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        # a root file system may have to be made from Debian's archive first
        item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The .deb; its .changes is beside it."""
    return _built("deb", tmp_path_factory.mktemp("deb"), "libvirt-loopnet_*.deb")


@pytest.fixture(scope="session")
def newer_deb(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a higher version and a hook that has changed."""
    directory = tmp_path_factory.mktemp("newer")
    new = directory / "newer.deb"
    _run(["dpkg-deb", "--raw-extract", str(deb), str(directory / "tree")])
    control = directory / "tree/DEBIAN/control"
    control.write_text(control.read_text().replace("\nVersion: ", "\nVersion: 1:"))
    hook = directory / "tree/etc/libvirt/hooks/network.d/50-loopnet"
    hook.write_text(hook.read_text() + "# newer\n")
    _run(["dpkg-deb", "--build", "--root-owner-group", "-Znone", str(directory / "tree"), str(new)])
    return new


@pytest.fixture(scope="session")
def rpms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with .rpm and .src.rpm, for the Python that machines here have."""
    environment = {**os.environ, "RPM_PYTHON": PYTHON_OF_BOOKWORM}
    return _built("rpm", tmp_path_factory.mktemp("rpm"), "*.src.rpm", environment).parent


@pytest.fixture(params=["bookworm", "trixie"])
def suite(request: pytest.FixtureRequest, deb: Path) -> Path:
    """The root file system of a Debian release, with what the package depends on."""
    return _root(request.param, deb)


@pytest.fixture
def bookworm(deb: Path) -> Path:
    return _root("bookworm", deb)


def _root(name: str, deb: Path) -> Path:
    depends = subprocess.check_output(["dpkg-deb", "--field", str(deb), "Depends"], text=True)
    first = [each.split("|")[0].split("(")[0].split(":")[0].strip() for each in depends.split(",")]
    if not can_boot():
        pytest.skip("systemd needs a cgroup2 file system that can be written to")
    return root(name, [*BASE, *first], *BOOTS)


def _built(kind: str, directory: Path, pattern: str, environment: dict[str, str] | None = None) -> Path:
    _run([str(TOP / "packaging/build"), kind, str(directory)], environment)
    return next(directory.glob(pattern))


def _run(argv: Sequence[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout
