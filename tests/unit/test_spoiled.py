"""A sandbox in which an end-to-end test has failed is not used again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
CONFTEST = """
from tests.e2e.conftest import pytest_runtest_makereport, pytest_runtest_setup, pytest_runtest_teardown
"""
TESTS = """
import itertools, pytest
worlds = itertools.count(1)

@pytest.fixture(scope="module")
def world():
    number = next(worlds)
    print("made", number)
    yield number
    print("ended", number)

@pytest.fixture(scope="module")
def guest(world):
    return world

@pytest.fixture
def ends_badly():
    yield
    assert False

def test_1(world): assert world == 1
def test_2(guest): assert guest == 1
def test_3(guest): assert False
def test_4(guest, world): assert guest == world == 2
def test_5(world, ends_badly): assert world == 2
def test_6(world): assert world == 3
def test_7(world): assert world == 3
"""


def test_what_fails_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_x.py").write_text(TESTS)
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-s",
        "-p",
        "no:cacheprovider",
        "-o",
        "addopts=",
        str(tmp_path),
    ]
    done = subprocess.run(
        [*argv, f"--rootdir={tmp_path}", "-c", "/dev/null", "-o", f"pythonpath={CHECKOUT}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "1 failed, 6 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("made") == done.stdout.count("ended") == 3
