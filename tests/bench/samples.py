"""Interleaved runs, their ratios pair by pair, and what may be said of those."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Optional

Metrics = Mapping[str, float]
"""What one run measured, by name."""
Rounds = Sequence[Mapping[str, Metrics]]
"""For each round what each contestant measured."""


ENOUGH = 5
"""With fewer samples even their extremes need not enclose the median, in more than 6 % of cases."""


class Effort(NamedTuple):
    """How long measures may take."""

    quick: bool

    def rounds(self, full: int, quick: int) -> int:
        """How many times each contestant runs."""
        return quick if self.quick else full


class Result(NamedTuple):
    """A table's row: ratios, and the limit their median has to keep."""

    group: str
    name: str
    ratios: tuple[float, ...]
    limit: Optional[float] = None
    """None: for information only."""
    at_least: bool = False
    """The limit is a lower one."""
    detail: bool = False
    """For the JSON file; the table has its summary."""

    @property
    def median(self) -> float:
        return statistics.median(self.ratios)

    @property
    def quartiles(self) -> tuple[float, float]:
        if len(self.ratios) < 2:
            return self.ratios[0], self.ratios[0]
        low, _, high = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return low, high

    @property
    def interval(self) -> tuple[float, float]:
        """Where the true median is with some 95 % confidence, whatever the distribution."""
        ordered = sorted(self.ratios)
        index = _confident_rank(len(ordered))
        return ordered[index], ordered[-1 - index]

    @property
    def verdict(self) -> str:
        """'yes' or 'no', with '?' when runs were too few or too noisy; '' without a limit."""
        if self.limit is None:
            return ""
        low, high = self.interval
        few = 1 < len(self.ratios) < ENOUGH
        unsure = few or low <= self.limit <= high
        doubt = "?" if unsure and low < high else ""
        return ("yes" if self._keeps(self.median) else "no") + doubt

    def _keeps(self, ratio: float) -> bool:
        assert self.limit is not None
        return ratio >= self.limit if self.at_least else ratio <= self.limit


def _confident_rank(count: int) -> int:
    """The largest k for which the k-th values from both ends enclose the median 95 times of 100."""
    rank, tail = 0, 0.0
    while rank < count // 2:
        tail += math.comb(count, rank) / 2**count
        if tail > 0.025:
            break
        rank += 1
    return max(rank - 1, 0)


def interleave(runs: Mapping[str, Callable[[], Metrics]], rounds: int) -> Rounds:
    """Let all ``runs`` have their turn ``rounds`` times, forwards and backwards by turns.

    One more round before, to warm up, is not counted.
    """
    found = []
    order = list(runs)
    for number in range(rounds + 1):
        measured = {name: runs[name]() for name in order}
        order.reverse()
        if number:
            found.append(measured)
    return found


def ratios(rounds: Rounds, one: str, other: str, metric: str) -> tuple[float, ...]:
    """``one`` divided by ``other``, round by round."""
    return tuple(measured[one][metric] / measured[other][metric] for measured in rounds)


def worst(results: Iterable[Result]) -> Result:
    """The one of ``results`` with the largest median, as a row that stands for all of them."""
    found = max(results, key=lambda result: result.median)
    return found._replace(name=f"the worst: {found.name}", detail=False)


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that ``percent`` of ``values`` do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
