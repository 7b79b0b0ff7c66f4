"""Change a document by lxml: what is not changed stays, with its comments, order and white space.

The serialiser has one way to write quotes, entities, line ends and empty elements, which XML does not tell apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..errors import HostError, InputError
from .tree import stream

try:
    from lxml import etree
except ImportError:  # a hook's Python starts without site-packages
    import site
    import sys

    sys.path += site.getsitepackages()
    try:
        from lxml import etree
    except ImportError as error:
        raise HostError(
            f"Python can't load lxml ({error}); install it for /usr/bin/python3: apt or dnf install python3-lxml"
        ) from None

Node = etree._Element
"""An element, a comment or a processing instruction; ``findall('*')`` gives elements alone."""

_LINE = re.compile(r"\n[ \t]*\Z")
"""A line break and the indentation after it, before a tag on a line of its own."""
_DECLARATION = b"<?xml version='1.0' encoding='UTF-8'?>"


class Document:
    """A document in memory; ``render`` gives its bytes, the very same where nothing was changed.

    Raises InputError as tree.parse() does: lxml sees nothing that expat has not passed.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._changed = False
        self.root = _parsed(data)
        self._start, self._unit = _layout(self.root)

    def render(self) -> bytes:
        """The document with all changes."""
        return _serialised(self.root, self._data) if self._changed else self._data

    def set(self, element: Node, name: str, value: str) -> None:
        """Give ``element`` the attribute, at its old place or as the last."""
        if element.get(name) != value:
            element.set(name, value)
            self._changed = True

    def unset(self, element: Node, name: str) -> None:
        """Take the attribute away."""
        if name in element.attrib:
            del element.attrib[name]
            self._changed = True

    def drop(self, element: Node) -> None:
        """Take the element away, with its indentation and line break; the text after it stays."""
        parent, before = _parent(element), element.getprevious()
        tail = element.tail or ""
        parent.remove(element)
        if before is None:
            parent.text = _LINE.sub("", parent.text or "") + tail or None
        else:
            before.tail = _LINE.sub("", before.tail or "") + tail or None
        self._changed = True

    def replace(self, old: Node, new: Node) -> None:
        """Put ``new`` where ``old`` stands."""
        self._indent(new, _depth(old))
        new.tail = old.tail
        _parent(old).replace(old, new)
        self._changed = True

    def insert(self, new: Node, before: Node) -> None:
        """Put ``new`` behind ``before``, on a line of its own."""
        depth, parent = _depth(before), _parent(before)
        self._indent(new, depth)
        parent.insert(parent.index(before) + 1, new)
        new.tail, before.tail = before.tail, self._lead(depth)
        self._changed = True

    def insert_before(self, new: Node, after: Node) -> None:
        """Put ``new`` before ``after``, on a line of its own."""
        depth, parent = _depth(after), _parent(after)
        self._indent(new, depth)
        parent.insert(parent.index(after), new)
        new.tail = self._lead(depth)
        self._changed = True

    def append(self, parent: Node, *children: Node) -> None:
        """Add the last children of ``parent``, each on a line of its own."""
        depth = _depth(parent)
        for child in children:
            self._indent(child, depth + 1)
            last = parent[-1] if len(parent) else None
            before = (parent.text if last is None else last.tail) or ""
            kept = _LINE.sub("", before)
            parent.append(child)
            child.tail = before[len(kept) :] or self._lead(depth) or None
            if last is None:
                parent.text = kept + self._lead(depth + 1) or None
            else:
                last.tail = kept + self._lead(depth + 1) or None
            self._changed = True

    def _lead(self, depth: int) -> str:
        """What stands before a tag at ``depth``; the root has 0. Nothing in a document without lines."""
        return self._start + self._unit * depth if self._start else ""

    def _indent(self, element: Node, depth: int) -> None:
        if self._start and len(element):
            element.text = self._lead(depth + 1)
            for child in element:
                self._indent(child, depth + 1)
                child.tail = self._lead(depth + 1)
            child.tail = self._lead(depth)


def make(
    tag: str, attributes: Mapping[str, str], *children: Node, prefix: str = "", text: str | None = None
) -> Node:
    """A new element; ``prefix`` stands for its namespace, unless another does already where it is put."""
    nsmap = {prefix: tag[1:].partition("}")[0]} if prefix else None
    element = etree.Element(tag, dict(attributes), nsmap=nsmap)
    element.text = text
    element.extend(children)
    return element


def pretty(root: Node) -> bytes:
    """A new document, two blanks for each level."""
    etree.indent(root)
    return etree.tostring(root) + b"\n"


def alike(data: bytes) -> str:
    """The document as Document writes it, for comparison with what it wrote."""
    return _serialised(_parsed(data), data).decode()


def source(element: Node) -> bytes:
    """The element by itself, with what is in it."""
    return etree.tostring(element, encoding="UTF-8", with_tail=False, xml_declaration=False)


def text_of(element: Node, child: str = ".") -> str:
    """The text of the element, or of its first ``child``, stripped; '' when there is none."""
    found = element.find(child)
    return "" if found is None else str(found.xpath("string()")).strip()


def attributes(element: Node) -> dict[str, str]:
    """The element's attributes."""
    return {str(name): str(value) for name, value in element.attrib.items()}


def has_comments(element: Node) -> bool:
    """Is anything written there that is for people, or for other programs?"""
    return next(element.iter(etree.Comment, etree.PI), None) is not None


def _parsed(data: bytes) -> Node:
    stream(data, lambda _tag, _attributes: None, lambda _tag: None, lambda _text: None)
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, strip_cdata=False)
    try:
        return etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        said = str(error).partition("\n")[0][:200]
        raise InputError(f"not well-formed XML: {said}; check it with: xmllint --noout FILE") from None


def _serialised(root: Node, like: bytes) -> bytes:
    declared = like.removeprefix(b"\xef\xbb\xbf").startswith(b"<?xml")
    around = [*reversed([*root.itersiblings(preceding=True)]), root, *root.itersiblings()]
    lines = [*([_DECLARATION] if declared else []), *map(source, around)]
    return b"\n".join([*lines, b""] if like.endswith(b"\n") else lines)


def _parent(element: Node) -> Node:
    parent = element.getparent()
    assert parent is not None, "the root is never changed itself"
    return parent


def _depth(element: Node) -> int:
    return sum(1 for _ in element.iterancestors())


def _layout(root: Node) -> tuple[str, str]:
    """Line break and indentation before the root, and one step of indentation; '' without lines."""
    first = root.find("*")
    if first is None:
        return "", ""
    before = first.getprevious()
    lead = _LINE.search((root.text if before is None else before.tail) or "")
    outer = _LINE.search(root[-1].tail or "")
    start = outer.group() if outer else "\n"
    if lead is None:
        return "", ""
    return (start, lead.group()[len(start) :]) if lead.group().startswith(start) else ("\n", lead.group()[1:])
