"""README's first command in another system than this one, and what is said when there can be none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Sequence

import pytest

from tests.fresh.__main__ import INSIDE, PACKAGES, fresh
from tests.machines import bootstrap
from tests.sandbox import CHECKOUT
from tests.sandbox.cache import BuildError

pytestmark = pytest.mark.skipif(INSIDE in os.environ, reason="this is a fresh system already")


def other_release() -> str:
    """One of Debian's that this machine does not run."""
    return "bookworm" if bootstrap.os_release("VERSION_CODENAME") == "trixie" else "trixie"


@pytest.mark.timeout(900)
def test_demo_in_the_other_release() -> None:
    """From a clone, with git and make and nothing else to begin with."""
    assert len(list(fresh(other_release(), ["demo"]))) == 1


def command(
    *arguments: str, wrap: Sequence[str] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*wrap, sys.executable, "-m", "tests.fresh", *arguments], cwd=CHECKOUT, capture_output=True, text=True,
        env={**os.environ, **environment}, timeout=300,
    )  # fmt: skip


def assert_nothing_left(cache: Path) -> None:
    """But the lock, the place and the keys, which are whole."""
    machines = cache / "libvirt-loopnet/machines"
    assert {path.name for path in machines.glob("*")} <= {"sid.lock", "keys"}


def test_an_unknown_system() -> None:
    done = command("alpine")
    assert done.returncode == 2
    assert (
        done.stderr == "fresh: no system is called 'alpine'; there are bookworm, trixie, sid, jammy, noble\n"
    )


def test_not_root() -> None:
    done = command("sid", wrap=["unshare", "--user"])
    assert done.returncode == 5
    assert done.stderr == "fresh: needs root, for namespaces; try: sudo make check-fresh\n"


def test_no_network(tmp_path: Path) -> None:
    mirror = "http://127.0.0.1:9/debian"
    done = command("sid", XDG_CACHE_HOME=str(tmp_path), DEBIAN_MIRROR=mirror)
    assert done.returncode == 1
    assert done.stderr == (
        f"fresh: sid: no mirror of debian has sid ({mirror}: [Errno 111] Connection refused); "
        "name one: DEBIAN_MIRROR=URL make …\n"
    )
    assert_nothing_left(tmp_path)


def test_a_full_disk(tmp_path: Path) -> None:
    """Its own, where only it sees it."""
    script = 'mount -t tmpfs -o size=100m tmpfs "$0"; "$@" || status=$?; cp -r "$0" "$0.left"; exit $status'
    wrap = ["unshare", "--mount", "sh", "-euc", script, str(tmp_path)]
    done = command("sid", wrap=wrap, XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith(f"fresh: sid: no space left in {tmp_path}/libvirt-loopnet/machines: ")
    assert done.stderr.count("\n") == 1
    assert_nothing_left(Path(f"{tmp_path}.left"))


def test_a_root_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    other = other_release()
    place = bootstrap.root(other, PACKAGES)
    monkeypatch.setenv("DEBIAN_MIRROR", "http://127.0.0.1:9/debian")
    assert bootstrap.root(other, PACKAGES) == place
    with pytest.raises(BuildError, match="no mirror"):
        bootstrap.root(other, [*PACKAGES, "hello"])
