"""Results as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from .samples import Effort, Result

_FORMAT = "{:<26} {:<62} {:>7} {:>7} {:>7} {:>7} {:>5} {:>8}  {}"
HEAD = _FORMAT.format("measure", "", "median", "min", "25 %", "75 %", "pairs", "target", "met")
LEGEND = (
    "Ratios, ours to the other's, pair by pair of interleaved runs. 'yes?', 'no?': not sure, as\n"
    "there are too few pairs or the limit is inside the median's 95 % interval."
)


def line(result: Result) -> str:
    """A row of the table."""
    low, high = result.quartiles
    numbers = (f"{value:.3f}" for value in (result.median, min(result.ratios), low, high))
    return _FORMAT.format(
        result.group, result.name, *numbers, len(result.ratios), target(result), result.verdict
    ).rstrip()


def target(result: Result) -> str:
    if result.limit is None:
        return ""
    return f"{'>=' if result.at_least else '<='} {result.limit:g}"


def write(path: Path, results: Sequence[Result], effort: Effort) -> None:
    """Everything, each single ratio too."""
    rows = [
        {
            "measure": result.group,
            "name": result.name,
            "median": round(result.median, 4),
            "interval": [round(value, 4) for value in result.interval],
            "quartiles": [round(value, 4) for value in result.quartiles],
            "ratios": [round(value, 4) for value in result.ratios],
            "target": target(result) or None,
            "met": result.verdict or None,
        }
        for result in results
    ]
    path.write_text(json.dumps({"quick": effort.quick, "results": rows}, indent=1) + "\n")
