"""What systemd says of the units; that they work is seen in test_deb."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from conftest import TOP

UNITS = sorted((TOP / "packaging/systemd").glob("*.service"))
EXPOSURE = 31
"""Tenths of what ``systemd-analyze security`` gives at most; 96 is a unit without any hardening."""


def analyze(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        ["systemd-analyze", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_security(unit: Path) -> None:
    status, said = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", str(unit))
    assert status == 0, said


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_verify(unit: Path, tmp_path: Path) -> None:
    """Every command replaced by one that is there."""
    copies = tmp_path / "units"
    copies.mkdir()
    for each in UNITS:
        text = each.read_text().replace("/usr/bin/loopnet", "/bin/true")
        (copies / each.name).write_text(text)
    status, said = analyze("verify", "--man=no", "--recursive-errors=no", str(copies / unit.name))
    assert (status, said) == (0, "")


def test_presets_name_every_unit() -> None:
    lines = (TOP / "packaging/systemd/90-libvirt-loopnet.preset").read_text().splitlines()
    assert lines == [f"enable {unit.name}" for unit in UNITS]
