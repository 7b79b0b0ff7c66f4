"""What hooks import stands in the way of every guest's start."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    "argparse", "dataclasses", "enum", "json", "libvirt", "logging", "lxml", "pyroute2", "re", "socket",
    "subprocess", "tempfile", "typing",
}  # fmt: skip
"""Each takes as long as a good part of Python's own start, or longer."""


def imported_by(statement: str) -> set[str]:
    """The names of all modules in a Python started as the hooks start it."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); {statement}; print(*sys.modules)"
    command = ["/usr/bin/python3", "-I", "-S", "-c", code]
    return set(subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.split())


def test_hooks_import_nothing_heavy() -> None:
    modules = imported_by("import libvirt_loopnet.hook, libvirt_loopnet.events")
    assert "libvirt_loopnet.plan" in modules
    assert modules & HEAVY == set()


def test_for_foreign_objects_nothing_of_ours_is_imported() -> None:
    assert {
        name for name in imported_by("import libvirt_loopnet.hook") if name.startswith("libvirt_loopnet.")
    } == {"libvirt_loopnet.hook"}
