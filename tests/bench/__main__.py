"""`python -m tests.bench`: runs the measures, prints a table, writes JSON and a plot."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

from . import plot, report
from .samples import Effort, Result

MEASURES = (
    "foreign", "network_start", "guest_start", "lease",
    "traffic", "senders", "alternatives", "virtio", "scale", "commands", "watch",
)  # fmt: skip
"""The modules here that have a function measure()."""
SLOW = {"virtio"}
"""Those that --quick leaves out unless they are named."""
DIRECTORY = Path(__file__).resolve().parents[2] / "build" / "bench"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less exact, in two minutes")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MEASURES))
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(MEASURES)
    if unknown:
        known = ", ".join(MEASURES)
        parser.error(f"no such measure: {', '.join(sorted(unknown))}; there are {known}")
    if os.geteuid() != 0:
        print("the benchmark needs root, for namespaces; try: sudo make bench", file=sys.stderr)
        return 5
    effort = Effort(arguments.quick)
    results = []
    print(report.HEAD)
    default = [name for name in MEASURES if not (effort.quick and name in SLOW)]
    for name in arguments.names or default:
        for result in _measure(name)(effort):
            results.append(result)
            if not result.detail:
                print(report.line(result), flush=True)
    print(f"\n{report.LEGEND}")
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    report.write(DIRECTORY / "bench.json", results, effort)
    plot.write(DIRECTORY / "bench.png", results)
    return 1 if any(r.verdict == "no" and not r.detail for r in results) else 0


def _measure(name: str) -> Callable[[Effort], Iterator[Result]]:
    measure: Callable[[Effort], Iterator[Result]] = import_module(f"{__package__}.{name}").measure
    return measure


if __name__ == "__main__":
    sys.exit(main())
