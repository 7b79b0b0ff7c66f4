"""The manual's table of protocols is the one that tests/netns/protocols measures."""

from __future__ import annotations

from tests.netns.protocols.table import in_manual, mdoc, rows


def test_the_manual_has_the_table_that_is_measured() -> None:
    assert in_manual() == mdoc(), "run: .venv/bin/python -m tests.netns.protocols --write"


def test_what_fails_says_why() -> None:
    silent = [row for row in rows() if not (row.mapped and row.native) and not row.why]
    assert not silent


def test_no_row_is_measured_twice() -> None:
    cells = [(row.protocol, row.way) for row in rows()]
    assert len(cells) == len(set(cells))
