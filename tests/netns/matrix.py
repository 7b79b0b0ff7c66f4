"""The security matrix: what test_security.py tries, as a table in SECURITY.md.

``python3 -m tests.netns.matrix`` runs the tests and writes the table from what came of them. A test of
the unit tier compares the file with what those tests demand, so that neither is changed alone.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from .test_security import ATTACKERS, CASES, GUARDED, Case

TESTS = Path(__file__).resolve().parent / "test_security.py"
DOCUMENT = TESTS.parents[2] / "SECURITY.md"
BEGIN, END = "<!-- begin of the matrix -->\n", "<!-- end of the matrix -->\n"
STOPPED, NOT_TRIED = "stopped", "–"

Outcome = Callable[[Case, str], str]
"""What became of a case on a kind of host: pytest's ``passed``, ``failed`` or ``skipped``; '' if not tried."""
Proved = Callable[[Case], bool]
"""Did it succeed on a host without our rules?"""


def demanded(case: Case, arena: str) -> str:
    """What test_security.py demands."""
    return "skipped" if case.allowed(arena) else "passed"


def table(outcome: Outcome, proved: Proved) -> str:
    """The matrix as Markdown: a row for each deed and target, a column for each attacker."""
    attackers = list(ATTACKERS.values())
    rows: dict[tuple[str, str], list[Case]] = {}
    for case in CASES:
        rows.setdefault((case.action, case.target), []).append(case)
    heads = ["does", "to reach", *attackers, "without our rules"]
    lines = [_line(heads), _line("---" for _ in heads)]
    for (action, target), cases in rows.items():
        by_attacker = {case.attacker: case for case in cases}
        cells = [_cell(by_attacker.get(attacker), outcome) for attacker in attackers]
        proof = "gets through" if any(map(proved, cases)) else ""
        lines.append(_line([action, target, *cells, proof]))
    return "".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _cell(case: Case | None, outcome: Outcome) -> str:
    if case is None:
        return NOT_TRIED
    found = {arena: outcome(case, arena) for arena in GUARDED}
    if "failed" in found.values():
        return "**GETS THROUGH**"
    if not all(found.values()):
        return NOT_TRIED
    if "skipped" not in found.values():
        return STOPPED
    return (
        f"{STOPPED} where addresses are 'own'" if case.skip_free else f"{STOPPED} (its own, in native mode)"
    )


def replace(document: str, made: str) -> str:
    """``document`` with ``made`` in place of its matrix."""
    head, _, rest = document.partition(BEGIN)
    return f"{head}{BEGIN}{made}{END}{rest.partition(END)[2]}"


class Results:
    """A plugin of pytest: collects what became of each case."""

    def __init__(self) -> None:
        self.outcomes: dict[tuple[str, str], str] = {}
        self.proved: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test, _, parameters = report.nodeid.partition("[")
        if report.when != "call":
            return
        case = dict(report.user_properties).get("case")
        if case is not None:
            arena = parameters.rstrip("]").removeprefix(f"{case}-")
            self.outcomes[str(case), arena] = report.outcome
        elif report.passed and "test_attack_succeeds" in test:
            self.proved.add(re.sub("-[a-z]+-bare]$", "", parameters))


def main() -> int:
    """Exit status 0 when every attack fails, 1 when one succeeds, 2 when some could not be tried."""
    if os.geteuid() != 0:
        print("network namespaces need root; try: sudo python3 -m tests.netns.matrix", file=sys.stderr)
        return 2
    results = Results()
    pytest.main(["-q", "-p", "no:cacheprovider", str(TESTS), "-k", "attack"], [results])
    made = table(
        lambda case, arena: results.outcomes.get((case.id, arena), ""), lambda case: case.id in results.proved
    )
    DOCUMENT.write_text(replace(DOCUMENT.read_text(), made))
    if len(results.outcomes) < len(CASES) * len(GUARDED):
        return 2
    return int("failed" in results.outcomes.values())


if __name__ == "__main__":
    sys.exit(main())
