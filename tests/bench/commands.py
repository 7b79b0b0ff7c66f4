"""The commands with a thousand guests, to the same with ten."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.netns.lab import Lab

from .crowd import add_crowd, wide_network
from .samples import Effort, Metrics, Result, interleave, ratios
from .stopwatch import Program, time_programs

GROUP = "command"
COMMANDS = ("sync", "list", "status")
FEW, MANY = 10, 1000
LIMIT = 10.0


def measure(effort: Effort) -> Iterator[Result]:
    with Lab() as few, Lab() as many:
        for lab, guests in ((few, FEW), (many, MANY)):
            network = wide_network(lab)
            add_crowd(lab, network.model, guests)
        for command in COMMANDS:
            runs = {str(FEW): _run(few, command), str(MANY): _run(many, command)}
            rounds = interleave(runs, effort.rounds(6, 2))
            found = ratios(rounds, str(MANY), str(FEW), "seconds")
            yield Result(GROUP, f"loopnet {command}, {MANY} guests to {FEW}", found, LIMIT)


def _run(lab: Lab, command: str) -> Callable[[], Metrics]:
    program = Program(["loopnet", command])
    return lambda: {"seconds": time_programs(lab.host, [program], best_of=1)[0]}
