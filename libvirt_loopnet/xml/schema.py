"""Where libvirt's schemas are installed: is a document what they say, and if not, what is wrong in which line?"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from lxml import etree

from ..errors import InputError
from ..validation import shown
from .document import Document, Node, attributes

DIRECTORY = "/usr/share/libvirt/schemas"
_RNG = "{http://relaxng.org/ns/structure/1.0}"
_MANY = 12
"""More names than these in one line help nobody."""


class _Fault(NamedTuple):
    line: int
    what: str


def check_schema(data: bytes, kind: str, what: str, directory: str = DIRECTORY) -> None:
    """Raise InputError unless ``data`` is what ``kind``.rng says; ``what`` names it: a file, say.

    Nothing is checked where that schema is not installed, or is none that lxml understands.
    """
    path = f"{directory}/{kind}.rng"
    root = Document(data).root
    if not os.path.exists(path) or root.tag != kind:
        return
    try:
        schema = etree.RelaxNG(etree.parse(path))
    except (OSError, etree.LxmlError):
        return
    if schema.validate(root):
        return
    errors = [(error.line, error.path or "", error.message) for error in schema.error_log]
    line, place, said = max(errors, key=lambda error: error[1].count("/"))
    if "failed to validate" in said:
        said = "a value is not allowed, or something is missing"
    fault = _Grammar(path).fault(root) or _Fault(line, f"{place or kind}: {said}")
    raise InputError(
        f"{what}, line {fault.line}: {' '.join(fault.what.split())}; see: virt-xml-validate FILE {kind}"
    )


class _Grammar:
    """libvirt's grammar, to say what it expects at a place: libxml2 says only that it is something else."""

    def __init__(self, path: str) -> None:
        self._defines: dict[str, list[Node]] = {}
        self._starts: list[Node] = []
        self._load(path, set())

    def fault(self, root: Node) -> _Fault | None:
        """The first element or attribute, or value of a choice, that the grammar has not at its place."""
        return self._fault(root, [it for it in self._parts(self._starts) if it.get("name") == root.tag])

    def _load(self, path: str, done: set[str]) -> None:
        if path in done:
            return
        done.add(path)
        grammar = etree.parse(path).getroot()
        for node in grammar.iter(f"{_RNG}define", f"{_RNG}start", f"{_RNG}include"):
            if node.tag == f"{_RNG}include":
                self._load(os.path.join(os.path.dirname(path), node.get("href", "")), done)
            elif node.tag == f"{_RNG}start":
                self._starts = self._starts or [node]
            else:
                self._defines.setdefault(node.get("name", ""), []).append(node)

    def _parts(self, nodes: Sequence[Node], seen: frozenset[str] = frozenset()) -> Iterator[Node]:
        """Elements, attributes and values of a choice that may stand in ``nodes``."""
        for node in nodes:
            for child in node.iterchildren("*"):
                if child.tag == f"{_RNG}ref":
                    name = child.get("name", "")
                    if name not in seen:
                        yield from self._parts(self._defines.get(name, []), seen | {name})
                elif child.tag in (
                    f"{_RNG}element",
                    f"{_RNG}attribute",
                    f"{_RNG}value",
                    f"{_RNG}data",
                    f"{_RNG}text",
                ):
                    yield child
                else:
                    yield from self._parts([child], seen)

    def _fault(self, element: Node, expected: list[Node]) -> _Fault | None:
        parts = list(self._parts(expected))
        inner = [it for it in parts if it.tag == f"{_RNG}element"]
        given = [it for it in parts if it.tag == f"{_RNG}attribute"]
        if not expected or any(it.get("name") is None for it in (*inner, *given)):  # any name will do
            return None
        for name, value in attributes(element).items():
            known = [it for it in given if it.get("name") == name]
            if not known and "}" not in name:
                said = f"<{element.tag}> has no attribute {shown(name)}; expected {_names(given)}"
                return _Fault(_line(element), said)
            values = list(self._parts(known))
            choices = [it.text or "" for it in values if it.tag == f"{_RNG}value"]
            if choices and len(choices) == len(values) and value not in choices:
                said = f"<{element.tag}> can't have {name}={shown(value)}; expected {_some(choices)}"
                return _Fault(_line(element), said)
        for child in element.iterchildren("*"):
            known = [it for it in inner if it.get("name") == child.tag]
            if not known and "}" not in child.tag:
                said = f"<{element.tag}> has no element <{child.tag}>; expected {_names(inner)}"
                return _Fault(_line(child), said)
            found = self._fault(child, known) if known else None
            if found:
                return found
        return None


def _line(element: Node) -> int:
    line: Any = element.sourceline
    return int(line or 0)


def _names(nodes: Sequence[Node]) -> str:
    return _some([node.get("name", "") for node in nodes])


def _some(words: Sequence[str]) -> str:
    known = sorted(set(words))
    return ", ".join(known[:_MANY]) + (" …" if len(known) > _MANY else "") if known else "none"
