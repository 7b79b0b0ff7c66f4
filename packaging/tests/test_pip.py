"""``pip install .``: the command and the module, and hooks once it is asked to install them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TOP

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}
PARTS = "setup.py setup.cfg pyproject.toml LICENSE README.md libvirt_loopnet hooks xml-templates"


def run(*argv: str) -> str:
    done = subprocess.run(
        argv, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with a copy of the tree installed; what it depends on is the system's."""
    base = tmp_path_factory.mktemp("pip")
    run("cp", "-r", *(str(TOP / each) for each in PARTS.split()), str(base))
    run("/usr/bin/python3", "-m", "venv", "--system-site-packages", "--without-pip", str(base / "venv"))
    run("/usr/bin/python3", "-m", "pip", "--python", str(base / "venv"), "install", "--quiet",
        "--no-index", "--no-deps", "--no-build-isolation", str(base))  # fmt: skip
    return base / "venv"


def test_command(venv: Path) -> None:
    assert run(str(venv / "bin/loopnet"), "--version").startswith("loopnet ")
    assert (venv / "share/libvirt-loopnet/xml-templates/loopnet.xml").exists()


def test_hooks_are_another_step(venv: Path, tmp_path: Path) -> None:
    said = run(str(venv / "bin/loopnet"), "install-hooks", "--root", str(tmp_path))
    for driver in ("network", "qemu"):
        hook = tmp_path / f"etc/libvirt/hooks/{driver}.d/50-loopnet"
        assert str(hook) in said
        assert os.access(hook, os.X_OK)
        version = f"python{sys.version_info.major}.*/site-packages"
        package = next(line for line in hook.read_text().splitlines() if line.startswith("package="))
        assert Path(package[8:].strip("'")).match(f"lib/{version}"), package
        run("sh", "-c", f"echo '<network/>' | {hook} default start begin -")
    run(str(venv / "bin/loopnet"), "uninstall-hooks", "--root", str(tmp_path))
    assert not list((tmp_path / "etc/libvirt/hooks").rglob("50-loopnet"))
