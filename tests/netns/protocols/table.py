"""Rows of the manual's table PROTOCOLS, each measured by a test, and their text as mdoc."""

from __future__ import annotations

import functools
import importlib
import itertools
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from libvirt_loopnet.model import NATIVE
from tests.sandbox import CHECKOUT

MANUAL = CHECKOUT / "packaging/man/libvirt-loopnet.7"
MODULES = (
    "test_transports",
    "test_sizes",
    "test_paths",
    "test_multicast",
    "test_embedded",
    "test_services",
    "test_bridges",
)
"""In the order of the table."""
HOST_GUEST, GUEST_HOST = "host to guest", "guest to host"
GUESTS, OUT = "guest to guest", "guest to internet"
_WORDS = {True: "works", False: "no"}
_WIDTHS = ("IPsec ESP, transport mode", "guest to internet", "mapped", "native", "[10]")


class Row(NamedTuple):
    """A protocol, who begins with whom, whether it works in each mode, and what is to be said."""

    protocol: str
    way: str
    mapped: bool
    native: bool
    why: str


ROWS: list[Row] = []


def shows(
    protocol: str,
    *ways: str,
    mapped: bool = True,
    native: bool = True,
    why: str = "",
) -> Callable[[Callable[..., bool]], Callable[..., None]]:
    """A test is the proof of a row, or one for each way: it returns whether the protocol works.

    That must be as declared. How something fails it asserts itself. It has a fixture ``field``.
    """  # fmt: skip
    ROWS.extend(Row(protocol, way, mapped, native, why) for way in ways)

    def decorate(measure: Callable[..., bool]) -> Callable[..., None]:
        @functools.wraps(measure)
        def test(*args: object, **fixtures: object) -> None:
            field = fixtures["field"]
            declared = native if field.lab.mode == NATIVE else mapped  # type: ignore[attr-defined]
            works = measure(*args, **fixtures)
            assert works is declared, (
                f"{protocol}, {', '.join(ways)}: {_WORDS[works]}; the table says {_WORDS[declared]}"
            )

        return test

    return decorate


def rows() -> list[Row]:
    """All rows, by protocol in the order of their first appearance."""
    for module in MODULES:
        importlib.import_module(f"{__package__}.{module}")
    names = list(dict.fromkeys(row.protocol for row in ROWS))
    return sorted(ROWS, key=lambda row: names.index(row.protocol))


def mdoc() -> str:
    """The table and its notes, without the section's heading."""
    return "\n".join(_lines(rows())) + "\n"


def _lines(table: list[Row]) -> Iterator[str]:
    notes = list(dict.fromkeys(row.why for row in table if row.why))
    yield ".Bl -column " + " ".join(f'"{width}"' for width in _WIDTHS)
    yield ".It Sy protocol Ta Sy who begins Ta Sy mapped Ta Sy native Ta"
    previous = ""
    for row in _merged(table):
        name = "" if row.protocol == previous else f" {row.protocol}"
        previous = row.protocol
        note = f" [{notes.index(row.why) + 1}]" if row.why else ""
        yield f".It{name} Ta {row.way} Ta {_WORDS[row.mapped]} Ta {_WORDS[row.native]} Ta{note}"
    yield ".El"
    yield ".Bl -enum -compact"
    for note in notes:
        yield ".It"
        for sentence in re.split(r"(?<=[.]) (?=[A-Z])", note):  # mdoc: a sentence begins a line
            yield from textwrap.wrap(sentence, 78, break_on_hyphens=False)
    yield ".El"


def _merged(table: list[Row]) -> Iterator[Row]:
    """A protocol that does the same between all of them takes one line."""
    everybody = {HOST_GUEST, GUEST_HOST, GUESTS, OUT}
    for _, group in itertools.groupby(table, key=lambda row: (row.protocol, row.mapped, row.native, row.why)):
        rows = list(group)
        yield from [rows[0]._replace(way="anybody")] if {row.way for row in rows} == everybody else rows


def in_manual(manual: Path = MANUAL) -> str:
    """The same part of the manual as it stands there."""
    text = manual.read_text()
    found = re.search(r"(?<=^measure it\.\n)\.Bl -column.*?^\.El\n.*?^\.El\n", text, re.MULTILINE | re.DOTALL)
    assert found, f"{manual} has lost its section PROTOCOLS"
    return found.group()
