"""For all tests: their profile of Hypothesis, and how several processes share the work.

Each of `make`'s pytest processes gets whole groups: all tests that share what is costly to make, a sandbox or guests.
The longest are begun first, as the table beside this says; `--keep-durations` writes it anew.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, Dict, Generator, List

import pytest
from hypothesis import HealthCheck, settings

DURATIONS = Path(__file__).with_name("durations.txt")
AGAIN = 3
"""Modules; where more fail, it is no matter of a busy machine."""
LIMIT = re.compile(
    r"^E .*\b(no .+ after|not done in) [\d.]+ s\b|^E .*(\bTimeout \(>|\bTimeoutExpired: )",
    re.MULTILINE,
)
"""What is told of a time limit, as wait(), Namespace.run(), pytest-timeout and subprocess have it."""
SHORT = 5.0
"""Seconds; what takes less is not in the table."""

# Programs that tests start and interrupt inherit what is ignored, as it is under nohup or behind a shell's "&".
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Speed is measured by the benchmarks, as ratios; a slow machine is no fault of a test's.
settings.register_profile(
    "loopnet", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("loopnet")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--again",
        action="store_true",
        help=f"after a run with -n in which nothing failed but time limits: those modules ({AGAIN} at most)"
        " run again by themselves, and only what fails there as well fails the run",
    )
    parser.addoption(
        "--keep-durations", action="store_true", help=f"write {DURATIONS.name} anew, from a run with -n"
    )


def pytest_configure(config: pytest.Config) -> None:
    if getattr(config.option, "numprocesses", None):
        config.pluginmanager.register(
            Sharing(config.getoption("--again"), config.getoption("--keep-durations"))
        )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: List[pytest.Item]
) -> Generator[None, None, None]:
    """In a worker: tells xdist each test's group, and puts the longest first."""
    if not hasattr(config, "workerinput"):
        yield
        return
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group(item)))
    yield
    seconds = durations()
    places: Dict[str, int] = {}
    for place, item in enumerate(items):
        places.setdefault(group(item), place)
    items.sort(key=lambda item: (-seconds.get(group(item), 0), places[group(item)]))


def group(item: pytest.Item) -> str:
    """The module; where it has fixtures with parameters that outlive a test, one value of each."""
    place, values = item.nodeid.partition("::")[0], ""
    call: Any = getattr(item, "callspec", None)
    lasting = [name for name, scope in call._arg2scope.items() if scope.value != "function"] if call else []
    for name in lasting:
        value = call.params[name]
        values += f" {value if isinstance(value, str) else call.indices[name]}"
        if call._arg2scope[name].value != "module":
            place = place.rpartition("/")[0]
    return place + values


def durations() -> Dict[str, float]:
    """The table: seconds of each group that isn't short."""
    lines = [line.split(maxsplit=1) for line in DURATIONS.read_text().splitlines()]
    return {name: float(seconds) for seconds, name in lines}


def _place(name: str) -> str:
    """The module of a group, or the directory."""
    return name.partition(" ")[0]


class Sharing:
    """What the process does that hands out tests to workers."""

    def __init__(self, again: bool, keep: bool) -> None:
        self._again = again
        self._keep = keep
        self._failed: Dict[str, List[str]] = defaultdict(list)
        self._only_limits = True
        self._unsteady: List[str] = []
        self._seconds: Dict[str, float] = defaultdict(float)
        self._dead: List[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test's name is shown without its group, as pytest takes it on the command line."""
        name, _, shared = report.nodeid.rpartition("@")
        report.nodeid = name or shared  # not every way to share has groups
        self._seconds[shared] += report.duration
        if report.failed:
            self._failed[report.nodeid.partition("::")[0]].append(report.nodeid)
            # What is found once in hundreds of tries, as a gap between rules is, has no second chance.
            self._only_limits &= bool(LIMIT.search(report.longreprtext))

    def pytest_testnodedown(self, node: object, error: object) -> None:
        if error:
            self._dead.append(str(error))

    @pytest.hookimpl(trylast=True)  # no worker runs any more
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """A worker that died fails the run, also when no test was under way."""
        if self._dead:
            if exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
        elif exitstatus == pytest.ExitCode.TESTS_FAILED and self._may_run_again():
            print(f"\nagain, by themselves: {' '.join(self._failed)}", flush=True)
            command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "0", *self._failed]
            if subprocess.run(command, cwd=session.config.rootpath, check=False).returncode == 0:
                self._unsteady = [name for names in self._failed.values() for name in names]
                session.exitstatus = pytest.ExitCode.OK
        if self._keep:
            # `make check` is two runs: the other's stay.
            ran = {_place(name) for name in self._seconds}
            others = {name: spent for name, spent in durations().items() if _place(name) not in ran}
            seconds = {**others, **self._seconds}
            longest = sorted(((spent, name) for name, spent in seconds.items()), reverse=True)
            DURATIONS.write_text(
                "".join(f"{spent:.0f} {name}\n" for spent, name in longest if spent >= SHORT)
            )

    def _may_run_again(self) -> bool:
        return self._again and self._only_limits and len(self._failed) <= AGAIN

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._unsteady:
            terminalreporter.section(
                "unsteady: failed beside others, passed by themselves; each is to be mended"
            )
            for name in self._unsteady:
                terminalreporter.line(name)
