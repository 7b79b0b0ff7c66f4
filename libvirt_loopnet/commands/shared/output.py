"""What commands print: aligned columns for people, JSON for programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence

_BOLD, _DIM, _GREEN, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[0m"
_STATES = {"up": _GREEN, "active": _GREEN, "reserved": _DIM, "inactive": _DIM}
NOTHING = "-"
"""Stands for an empty cell, so that a line has as many words as there are columns."""


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, colour: bool = False) -> str:
    """Lines of aligned columns, the header first; with ``colour`` that is bold, and states have theirs."""
    cells = [list(header), *([cell or NOTHING for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    first, *rest = ([cell.ljust(width) for cell, width in zip(row, widths)] for row in cells)
    if colour:
        first = [f"{_BOLD}{'  '.join(first).rstrip()}{_PLAIN}"]
        for row in rest:
            for index in (index for index, name in enumerate(header) if name == "state"):
                row[index] = _painted(row[index])
    return "\n".join("  ".join(row).rstrip() for row in [first, *rest])


def _painted(cell: str) -> str:
    state = cell.rstrip()
    return f"{_STATES[state]}{state}{_PLAIN}{cell[len(state) :]}" if state in _STATES else cell


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table, with colours on a terminal, unless NO_COLOR is set."""
    print(table(header, rows, colour=sys.stdout.isatty() and not os.environ.get("NO_COLOR")))


def print_json(value: object) -> None:
    """Print one JSON document."""
    import json  # 7 ms

    print(json.dumps(value, indent=2))


def note(message: str) -> None:
    """A line on standard error that is no error."""
    print(f"loopnet: {message}", file=sys.stderr)
