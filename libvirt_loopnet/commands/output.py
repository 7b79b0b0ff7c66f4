"""What commands print: aligned columns for people, JSON for programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence

_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"
NOTHING = "-"
"""Stands for an empty cell, so that a line has as many words as there are columns."""


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, bold: bool = False) -> str:
    """Lines of aligned columns, the header first, bold if so."""
    cells = [list(header), *([cell or NOTHING for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    first, *rest = (_line(row, widths) for row in cells)
    return "\n".join([f"{_BOLD}{first}{_PLAIN}" if bold else first, *rest])


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; its header is bold on a terminal, unless NO_COLOR is set."""
    print(table(header, rows, bold=sys.stdout.isatty() and not os.environ.get("NO_COLOR")))


def print_json(value: object) -> None:
    """Print one JSON document."""
    import json  # 7 ms

    print(json.dumps(value, indent=2))


def note(message: str) -> None:
    """A line on standard error that is no error."""
    print(f"loopnet: {message}", file=sys.stderr)
