"""What a stranger reads where README's commands can't work: one line, with what to do; and nothing is left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Iterator, List

import pytest

from tests.fresh.__main__ import INSIDE, PACKAGES
from tests.fresh.test_fresh import other_release
from tests.machines import bootstrap
from tests.machines.machine import Machine
from tests.sandbox import CHECKOUT
from tests.sandbox.cache import BuildError
from tests.sandbox.image import guest_image

CLONE = "/root/libvirt-loopnet"
ALPINE = 'NAME="Alpine Linux"\nID=alpine\nPRETTY_NAME="Alpine Linux v3.22"\n'


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """Another release, with the checkout's Makefile and what that runs first, and no network."""
    tree = bootstrap.root(other_release(), PACKAGES)
    with Machine(tree, boot=False) as made:
        for name in ("Makefile", "packaging/packages.mk", "tests/install-deps", "tests/install-packages"):
            made.copy(CHECKOUT / name, f"{CLONE}/{name}")
        made.run(f"cp -r {CLONE} /tmp/stranger; chmod -R a+rX /tmp/stranger")
        yield made


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A directory that has room for 60 MiB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(tmp_path)], check=True, timeout=10)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True, timeout=10)


needs_another_root = pytest.mark.skipif(INSIDE in os.environ, reason="this is a fresh system already")


def fails(machine: Machine, script: str) -> List[str]:
    """What a make in the machine says that fails, but for what make adds itself."""
    lines = machine.run(script, status=2).splitlines()
    return [line for line in lines if not line.startswith(("make: ", "Installing: "))]


@needs_another_root
@pytest.mark.parametrize("target", ["demo", "check-fresh", "netns"])
def test_not_root(machine: Machine, target: str) -> None:
    # what a target depends on isn't the question here
    user = "setpriv --reuid=65534 --regid=65534 --clear-groups make -C /tmp/stranger -o deps"
    (line,) = fails(machine, f"{user} {target}")
    assert line.startswith(f"make {target} needs root:")
    assert line.endswith(f"try: sudo make {target}")


@needs_another_root
def test_no_network_to_install_from(machine: Machine) -> None:
    (line,) = fails(machine, f"make -C {CLONE} demo")
    assert line.startswith("install-packages: ")
    assert "(apt-get update: Failed to fetch " in line
    assert "; once that is mended, try again; missing: libvirt-daemon-system " in line


@needs_another_root
def test_a_package_that_the_distribution_lacks(machine: Machine) -> None:
    machine.run("mv /etc/apt/sources.list /etc/apt/off")
    try:
        said = machine.run(f"{CLONE}/tests/install-packages libvirt-from-nowhere", status=4)
    finally:
        machine.run("mv /etc/apt/off /etc/apt/sources.list")
    assert said == (
        "Installing: libvirt-from-nowhere\n"
        "install-packages: Unable to locate package libvirt-from-nowhere; once that is mended, try again; "
        "missing: libvirt-from-nowhere\n"
    )


@needs_another_root
def test_a_distribution_without_apt(machine: Machine) -> None:
    machine.path("/run/os-release").write_text(ALPINE)
    hidden = "mount --bind /run/os-release /etc/os-release; rm /usr/bin/apt-get /usr/bin/dpkg-query"
    saved = "cp -a /usr/bin/apt-get /usr/bin/dpkg-query /run/"
    machine.run(f"{saved}; {hidden}")
    try:
        (line,) = fails(machine, f"make -C {CLONE} demo")
    finally:
        machine.run("umount /etc/os-release; cp -a /run/apt-get /run/dpkg-query /usr/bin/")
    assert line.startswith(
        "install-packages: Alpine Linux v3.22 has no apt-get; install yourself what these Debian packages hold: "
    )


def test_fresh_systems_without_apt(tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text(ALPINE)
    script = 'mount --bind "$0" /etc/os-release; exec env PATH=/nonexistent "$@"'
    argv = ["unshare", "--mount", "sh", "-euc", script, str(tmp_path / "os-release")]
    done = subprocess.run(
        [*argv, sys.executable, "-m", "tests.fresh", "sid"], cwd=CHECKOUT, capture_output=True, text=True,
        env={name: value for name, value in os.environ.items() if name != INSIDE}, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert done.stderr == (
        "fresh: Alpine Linux v3.22 has no apt-get; try on Debian or one of its relatives\n"
    )


def assert_one_line(error: BuildError, begin: str) -> None:
    assert str(error).startswith(begin)
    assert "\n" not in str(error)


def left(cache: Path) -> List[str]:
    """What is in the cache, but for locks, keys, whole packages and their list."""
    whole = (".deb", ".list", ".lock")
    paths = [path for path in cache.rglob("*") if path.is_file() and path.suffix not in whole]
    return [path.name for path in paths if path.name != "lock" and "keys" not in path.parts]


def test_an_image_on_a_full_disk(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(disk))
    with pytest.raises(BuildError) as caught:
        guest_image()
    assert_one_line(caught.value, f"no space left in {disk}/libvirt-loopnet: ")
    assert left(disk) == []


def test_an_image_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "apt.conf").write_text('Acquire::http::Proxy "http://127.0.0.1:9";\nAcquire::Retries "0";\n')
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    with pytest.raises(BuildError) as caught:
        guest_image()
    (tmp_path / "apt.conf").unlink()
    assert_one_line(caught.value, f"no guest image in {tmp_path}/libvirt-loopnet: E: Failed to fetch ")
    assert left(tmp_path) == []


def test_an_image_in_a_place_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(BuildError) as caught:
        guest_image()
    assert_one_line(
        caught.value, f"no guest image in {tmp_path}/file/libvirt-loopnet: [Errno 20] Not a directory"
    )


@needs_another_root
def test_a_system_on_a_disk_that_fills_up(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(disk))
    monkeypatch.setattr(bootstrap, "NEEDED_MIB", 1)
    with pytest.raises(BuildError) as caught:
        bootstrap.root("trixie", PACKAGES)
    assert_one_line(caught.value, "")
    assert "space" in str(caught.value)
    assert left(disk) == []


@needs_another_root
def test_a_system_with_a_package_that_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(BuildError) as caught:
        bootstrap.root("trixie", ["libvirt-from-nowhere"])
    assert_one_line(caught.value, "E: Unable to locate package libvirt-from-nowhere")
    assert left(tmp_path) == []
