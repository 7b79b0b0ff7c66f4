"""``python -m tests.fuzz.guided TARGET [libFuzzer's options]``: the same targets, led by coverage.

Needs atheris, which is not among the project's requirements. It has no idea of XML, so the inputs of
``python -m tests.fuzz`` reach deeper; this one finds what nobody thought of.
"""

from __future__ import annotations

import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any


def main() -> int:
    """Does not return unless something is missing: libFuzzer ends the process."""
    try:
        atheris: Any = import_module("atheris")
    except ImportError:
        print("atheris is not there; install it with: .venv/bin/pip install atheris", file=sys.stderr)
        return 2
    with atheris.instrument_imports(include=["libvirt_loopnet"]):
        targets = import_module("tests.fuzz.targets")
    by_name = {target.name: target for target in targets.TARGETS}
    if len(sys.argv) < 2 or sys.argv[1] not in by_name:
        print(f"name a target: {', '.join(by_name)}", file=sys.stderr)
        return 2
    target = by_name.pop(sys.argv.pop(1))
    with tempfile.TemporaryDirectory() as directory:
        _write_seeds(Path(directory), target.name)
        atheris.Setup([*sys.argv, directory], lambda data: target.check(data) and None)
        atheris.Fuzz()
    return 0


def _write_seeds(directory: Path, name: str) -> None:
    seeds = import_module("tests.fuzz.seeds")
    loaded = seeds.load()
    kinds = {
        "network-hook": loaded.own,
        "domain-hook": loaded.domains,
        "status": loaded.status,
        "config": seeds.CONFIGS,
        "reservations": seeds.RESERVATIONS,
        "names": seeds.HOSTS,
    }
    for number, data in enumerate(kinds.get(name, loaded.networks)):
        (directory / str(number)).write_bytes(data)


if __name__ == "__main__":
    sys.exit(main())
