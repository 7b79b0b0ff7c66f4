"""What hooks import stands in the way of every guest's start; and who may import whom."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "libvirt_loopnet"
HEAVY = {
    "_ctypes", "argparse", "dataclasses", "enum", "json", "libvirt", "logging", "lxml", "pyroute2", "re", "socket",
    "subprocess", "tempfile", "typing",
}  # fmt: skip
"""Each takes as long as a good part of Python's own start, or longer."""

LAYERS: dict[str, set[str]] = {
    "": set(),
    "xml": set(),
    "addresses": set(),
    "ruleset": set(),
    "networks": {"addresses", "xml"},
    "firewalls": {"ruleset"},
    "reports": {"firewalls", "networks"},
    "planning": {"addresses", "firewalls", "ruleset"},
    "guests": {"xml"},
    "daemon": {"guests", "networks", "xml"},
    "host.kernel": {"planning", "reports"},
    "host": {"addresses", "daemon", "firewalls", "host.kernel", "networks", "planning", "reports", "ruleset"},
    "plugging": {"daemon", "guests", "host"},
    "networks.conversion": {"addresses", "daemon", "guests", "host.kernel", "networks", "plugging", "xml"},
    "converge": {
        "addresses",
        "daemon",
        "firewalls",
        "guests",
        "host",
        "host.kernel",
        "networks",
        "planning",
        "ruleset",
    },
    "events": {"addresses", "converge", "daemon", "guests", "host", "host.kernel", "networks", "ruleset"},
}
"""What each package may import, beside the package's root; the verbs in commands/ may import all but events."""
ENTRANCES = {"hook": "events", "cli": "commands"}


def imported_by(statement: str) -> set[str]:
    """The names of all modules in a Python started as the hooks start it."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); {statement}; print(*sys.modules)"
    command = ["/usr/bin/python3", "-I", "-S", "-c", code]
    return set(subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.split())


def test_hooks_import_nothing_heavy() -> None:
    modules = imported_by("import libvirt_loopnet.hook, libvirt_loopnet.events.networks")
    assert "libvirt_loopnet.planning.plan" in modules
    assert modules & HEAVY == set()


def test_commands_import_no_compression() -> None:
    """Which argparse would: by way of shutil, for the width of a terminal."""
    modules = imported_by(
        "import sys; sys.argv = ['loopnet', 'reserve', '--nonsense']; from libvirt_loopnet import cli; cli.main()"
    )
    assert "libvirt_loopnet.commands.reserve" in modules
    assert modules & {"bz2", "lzma", "shutil"} == set()


def test_a_guest_that_moves_finds_lxml() -> None:
    """A hook's Python starts without site-packages; what doesn't move goes without lxml."""
    domain = (
        b"<domain><devices><interface type='network'><source network='a'/></interface></devices></domain>"
    )
    for moves, found in (({"b": "c"}, False), ({"a": "b"}, True)):
        modules = imported_by(
            f"from libvirt_loopnet.guests.domains import move_networks; move_networks({domain!r}, {moves!r})"
        )
        assert ("lxml.etree" in modules) is found


def test_for_foreign_objects_nothing_of_ours_is_imported() -> None:
    assert {
        name for name in imported_by("import libvirt_loopnet.hook") if name.startswith("libvirt_loopnet.")
    } == {"libvirt_loopnet.hook"}


def packages() -> list[str]:
    """Dotted names of all packages below ours, "" for the root."""
    found = (path.parent.relative_to(PACKAGE).parts for path in PACKAGE.rglob("__init__.py"))
    return sorted(".".join(parts) for parts in found)


def _path(package: str) -> Path:
    return PACKAGE.joinpath(*package.split(".")) if package else PACKAGE


def _package_of(module: str) -> str:
    """The package that the module, or the thing in a module, ``module`` is in."""
    parts = module.split(".") if module else []
    while parts and not (PACKAGE.joinpath(*parts) / "__init__.py").exists():
        parts.pop()
    return ".".join(parts)


def imports(package: str) -> Iterator[tuple[str, str]]:
    """(module, package it imports from) for all that ``package`` imports of ours from elsewhere."""
    for file in sorted(_path(package).glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            parts = package.split(".") if package else []
            base = parts[: len(parts) + 1 - node.level] + (node.module.split(".") if node.module else [])
            for name in node.names:
                target = _package_of(".".join([*base, name.name]))
                if target != package:
                    yield file.stem, target


def test_every_package_says_what_it_is_for() -> None:
    assert {
        each
        for each in packages()
        if not ast.get_docstring(ast.parse((_path(each) / "__init__.py").read_text()))
    } == set()


@pytest.mark.parametrize("package", packages())
def test_imports_go_one_way(package: str) -> None:
    if package.startswith("commands"):
        assert all(target != "events" for _, target in imports(package))
        assert package == "commands" or all(target != "commands" for _, target in imports(package))
        return
    allowed = LAYERS[package] | {""}
    for module, target in imports(package):
        assert target in allowed or ENTRANCES.get(module) == target, f"{package or '(root)'}: {module}"


def test_the_ways_have_no_circle() -> None:
    left = dict(LAYERS)
    while left:
        free = {package for package, others in left.items() if not others & left.keys()}
        assert free, f"in a circle: {sorted(left)}"
        for package in free:
            del left[package]
