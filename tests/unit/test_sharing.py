"""What several pytest processes make of the tests: tests/conftest.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import List

import pytest

from tests import conftest

CHECKOUT = Path(__file__).resolve().parents[2]
CONFTEST = """
import os, pytest
from pathlib import Path
from tests import conftest
from tests.conftest import *
conftest.DURATIONS = Path(__file__).with_name("durations.txt")

@pytest.fixture(scope="module")
def world():
    with open(Path(__file__).with_name("told"), "a") as file:
        print("world", file=file)

@pytest.fixture(scope="module", params=["mapped", "native"])
def kind(request):
    with open(Path(__file__).with_name("told"), "a") as file:
        print(request.param, file=file)

def pytest_sessionfinish(session):
    if hasattr(session.config, "workerinput") and Path(__file__).with_name("die").exists():
        os._exit(0)
"""
ONE = """
def test_1(world): pass
def test_2(world): pass
def test_3(world): pass
"""
TWO = """
import pytest
def test_1(kind): pass
def test_2(kind): pass
@pytest.mark.parametrize("kind", ["native"], indirect=True)
def test_3(kind): pass
"""

UNSTEADY = """
import os
def test_1():
    assert "PYTEST_XDIST_WORKER" not in os.environ, "no lease after 20.0 s"
def test_2(): pass
"""
EXPIRED = """
import os, subprocess
def test_1():
    subprocess.run(["sleep", "99" if "PYTEST_XDIST_WORKER" in os.environ else "0"], timeout=2)
"""


def shared(
    tmp_path: Path, *options: str, table: str = "", **modules: str
) -> subprocess.CompletedProcess[str]:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "durations.txt").write_text(table)
    for name, text in modules.items():
        (tmp_path / f"test_{name}.py").write_text(text)
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n2", "--dist=loadgroup",
            "--no-loadscope-reorder", "--max-worker-restart=0", *options, str(tmp_path)]  # fmt: skip
    # nothing of the processes that share this test
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTEST_ADDOPTS"] = f"--rootdir={tmp_path} -c /dev/null -o pythonpath={CHECKOUT}"
    return subprocess.run(
        argv,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def told(tmp_path: Path) -> List[str]:
    return (tmp_path / "told").read_text().split()


def test_what_is_shared_is_made_once(tmp_path: Path) -> None:
    done = shared(tmp_path, "-v", one=ONE, two=TWO, bad="def test_1(): assert False\n")
    assert done.returncode == 1
    assert "1 failed, 8 passed" in done.stdout
    assert sorted(told(tmp_path)) == ["mapped", "native", "world"]
    for line in ("PASSED test_two.py::test_3[native] \n", "FAILED test_bad.py::test_1 - "):
        assert line in done.stdout, "as one may ask for it again"


def test_the_longest_is_the_first(tmp_path: Path) -> None:
    table = "30 test_of_another_run.py\n20 test_two.py native\n10 test_one.py\n"
    slow = ONE.replace("pass", "time.sleep(2)").replace("\n", "import time\n", 1)
    assert shared(tmp_path, "-n1", "--keep-durations", table=table, one=slow, two=TWO).returncode == 0
    assert told(tmp_path) == ["native", "world", "mapped"]
    assert (tmp_path / "durations.txt").read_text() == "30 test_of_another_run.py\n6 test_one.py\n"


def test_a_worker_that_dies_fails_the_run(tmp_path: Path) -> None:
    done = shared(tmp_path, die="import os\ndef test_1(): os._exit(0)\n", one=ONE)
    assert done.returncode == 1
    assert "crashed while running 'test_die.py::test_1" in done.stdout


def test_a_worker_that_dies_when_all_is_done_fails_the_run(tmp_path: Path) -> None:
    (tmp_path / "die").touch()
    done = shared(tmp_path, one=ONE)
    assert done.returncode == 1
    assert "3 passed" in done.stdout


@pytest.mark.parametrize("unsteady", [UNSTEADY, EXPIRED])
def test_what_fails_only_beside_others_is_told(tmp_path: Path, unsteady: str) -> None:
    done = shared(tmp_path, "--again", one=ONE, unsteady=unsteady)
    assert done.returncode == 0
    assert "again, by themselves: test_unsteady.py\n" in done.stdout
    assert "unsteady: failed beside others" in done.stdout
    assert "FAILED test_unsteady.py::test_1" in done.stdout


def test_what_fails_again_fails_the_run(tmp_path: Path) -> None:
    slow = "def test_1(): assert False, 'not done in 60.0 s'\n"
    done = shared(tmp_path, "--again", unsteady=UNSTEADY, slow=slow)
    assert done.returncode == 1
    assert "again, by themselves" in done.stdout
    assert "unsteady:" not in done.stdout


def test_a_claim_that_does_not_hold_has_no_second_chance(tmp_path: Path) -> None:
    """Nor has what failed beside it; that its source speaks of seconds doesn't make it a time limit."""
    leaks = UNSTEADY.replace('"no lease after 20.0 s"', '"a packet left"  # no lease after 20.0 s')
    done = shared(tmp_path, "--again", unsteady=UNSTEADY, leaks=leaks)
    assert done.returncode == 1
    assert "again, by themselves" not in done.stdout


def test_many_failures_are_not_tried_again(tmp_path: Path) -> None:
    modules = {f"unsteady{number}": UNSTEADY for number in range(conftest.AGAIN + 1)}
    done = shared(tmp_path, "--again", **modules)
    assert done.returncode == 1
    assert "again, by themselves" not in done.stdout
