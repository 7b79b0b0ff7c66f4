"""The pictures that README.md shows are those that the code draws, and are all there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from lxml import etree

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "packaging/pictures"


def drawn() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("draw", PICTURES / "draw.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pictures: dict[str, str] = module.pictures()
    return pictures


def test_they_are_up_to_date() -> None:
    for name, text in drawn().items():
        etree.fromstring(text.encode())
        assert (PICTURES / name).read_text(encoding="utf-8") == text, "run: make pictures"


def test_readme_shows_them() -> None:
    shown = re.findall(r"!\[[^]]+\]\(packaging/pictures/([^)]+)\)", (ROOT / "README.md").read_text())
    assert {*shown} == {path.name for path in PICTURES.iterdir() if path.suffix in (".svg", ".png")}
