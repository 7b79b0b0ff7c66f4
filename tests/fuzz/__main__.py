"""``python -m tests.fuzz``: mutated inputs, by default until 100,000 are done.

Every run prints its seed, and the same seed makes the same inputs again, given the same seed files. An
input that fails is kept in build/fuzz; ``--replay FILE`` tries it once more.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.sandbox.sandbox import CHECKOUT

from . import scripts, seeds
from .runner import Plan, replay, run
from .targets import TARGETS

KEPT = CHECKOUT / "build" / "fuzz"
FOREVER = 1e9


def main(argv: Sequence[str] | None = None) -> int:
    """1 if an input failed."""
    arguments = _arguments(argv)
    if arguments.replay:
        return _replay(Path(arguments.replay))
    seed = arguments.seed or str(random.SystemRandom().randrange(10**9))
    targets = [target for target in TARGETS if arguments.target in ("", target.name)]
    loaded = seeds.load()
    corpus = "with" if loaded.with_corpus else "without"
    print(f"fuzz: seed {seed}, {corpus} libvirt's own XML", flush=True)
    begin = time.monotonic()
    report = run(Plan(seed, arguments.inputs, arguments.seconds, targets), loaded)
    for name, (count, accepted) in report.accepted.items():
        print(f"fuzz: {name:16} {count:8} inputs, {accepted:8} accepted")
    taken = time.monotonic() - begin
    print(f"fuzz: {report.done} inputs in {taken:.0f} s, slowest {report.slowest:.2f} s of CPU")
    failures = report.failures
    if arguments.scripts and os.geteuid() == 0:
        failures = [*failures, *scripts.run(seed, arguments.scripts, loaded)]
    for failure in failures:
        path = KEPT / f"{failure.target}-{seed}-{failure.number}"
        KEPT.mkdir(parents=True, exist_ok=True)
        path.write_bytes(failure.data)
        print(f"fuzz: FAILED {path.relative_to(CHECKOUT)}: {failure.why}")
    return 1 if failures else 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="how many; default %(default)s")
    parser.add_argument("--seconds", type=float, default=FOREVER, help="at most so long")
    parser.add_argument("--seed", default="", help="of an earlier run; default: a new one")
    parser.add_argument("--target", default="", choices=["", *(target.name for target in TARGETS)])
    parser.add_argument(
        "--scripts", type=int, default=300, help="inputs for whole hooks, in a sandbox, as root"
    )
    parser.add_argument("--replay", default="", metavar="FILE", help="an input that failed, named TARGET-…")
    return parser.parse_args(argv)


def _replay(path: Path) -> int:
    for target in TARGETS:
        if path.name.rpartition("-")[0].rpartition("-")[0] == target.name:
            failure = replay(target, path.read_bytes())
            print(failure.why if failure else "nothing is wrong with it")
            return 1 if failure else 0
    print("the file's name does not begin with a target", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
