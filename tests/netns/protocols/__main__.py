"""Prints the table for the manual; with --write it is put there."""

from __future__ import annotations

import sys

from .table import MANUAL, in_manual, mdoc

if sys.argv[1:] == ["--write"]:
    MANUAL.write_text(MANUAL.read_text().replace(in_manual(), mdoc()))
else:
    sys.stdout.write(mdoc())
