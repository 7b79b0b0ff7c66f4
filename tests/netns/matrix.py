"""Runs test_security.py and prints its matrix as Markdown: ``python3 -m tests.netns.matrix``.

Exit status 0 when every attack fails, 1 when one succeeds, 2 when it could not be tried.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from .test_security import CASES, GUARDED, Case

TESTS = Path(__file__).resolve().parent / "test_security.py"
HEADINGS = {"mapped": "mapped", "mapped-all": "mapped, `br_netfilter`, `ip rule`", "native": "native"}
WORDS = {"passed": "nothing", "failed": "**GETS THROUGH**", "skipped": "not an attack"}


class Results:
    """A plugin of pytest: collects what became of each case."""

    def __init__(self) -> None:
        self.outcomes: dict[tuple[str, str], str] = {}
        self.proved: set[tuple[str, str]] = set()
        """(action, target) of attacks that do succeed where our tables are missing."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test, _, parameters = report.nodeid.partition("[")
        if report.when != "call":
            return
        case = dict(report.user_properties).get("case")
        if case is not None:
            arena = parameters.rstrip("]").removeprefix(f"{case}-")
            self.outcomes[str(case), arena] = report.outcome
        elif report.passed and "test_attack_succeeds" in test:
            bare = re.sub("-[a-z]+-bare]$", "", parameters)
            self.proved |= {(case.action, case.target) for case in CASES if case.id == bare}

    def row(self, case: Case) -> str:
        cells = [WORDS.get(self.outcomes.get((case.id, arena), ""), "not tried") for arena in GUARDED]
        proof = "gets through" if (case.action, case.target) in self.proved else ""
        return " | ".join(["", case.attacker, case.action, case.target, *cells, proof, ""]).strip()

    def table(self) -> str:
        heads = ["Attacker", "does", "to reach", *(HEADINGS[arena] for arena in GUARDED)]
        lines = ["", *heads, "without our rules", ""]
        rule = "|".join(["", *["---"] * (len(heads) + 1), ""])
        return "\n".join([" | ".join(lines).strip(), rule, *map(self.row, CASES)])


def main() -> int:
    if os.geteuid() != 0:
        print("network namespaces need root; try: sudo python3 -m tests.netns.matrix", file=sys.stderr)
        return 2
    results = Results()
    with open(os.devnull, "w", encoding="utf-8") as quiet:
        kept, sys.stdout = sys.stdout, quiet
        try:
            pytest.main(["-q", "-p", "no:cacheprovider", str(TESTS), "-k", "attack"], [results])
        finally:
            sys.stdout = kept
    print(results.table())
    wanted = [(case.id, arena) for case in CASES for arena in GUARDED]
    if any(key not in results.outcomes for key in wanted):
        return 2
    return int("failed" in results.outcomes.values())


if __name__ == "__main__":
    sys.exit(main())
