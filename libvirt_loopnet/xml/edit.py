"""Change single places of an XML document and keep every other byte.

A parser and a serialiser would change quotes, white space and entities of what is not ours. The
document is known to be well-formed here (xmltree read it), so that a scan of one tag is enough.
"""

from __future__ import annotations

from ..records import NamedTuple
from .tree import Element

SPACE = b" \t\r\n"


class Edit(NamedTuple):
    """Replace ``data[start:end]`` by ``text``."""

    start: int
    end: int
    text: bytes


class Attribute(NamedTuple):
    """Where an attribute stands, from the white space before its name to past its quote."""

    start: int
    value_start: int
    value_end: int
    end: int


def apply_edits(data: bytes, edits: list[Edit]) -> bytes:
    """``data`` with all edits done; they must not overlap. ``data`` itself when there are none.

    Insertions at one place keep the order in which they are listed.
    """
    if not edits:
        return data
    pieces: list[bytes] = []
    done = 0
    for edit in sorted(edits, key=lambda edit: (edit.start, edit.end)):
        pieces += (data[done : edit.start], edit.text)
        done = edit.end
    return b"".join((*pieces, data[done:]))


def escape(text: str) -> bytes:
    """``text`` as the value of an attribute in either kind of quotes, or as character data."""
    for char, entity in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        (">", "&gt;"),
        ("'", "&apos;"),
        ('"', "&quot;"),
        ("\t", "&#9;"),  # in an attribute, white space as such becomes a blank
        ("\n", "&#10;"),
        ("\r", "&#13;"),
    ):
        text = text.replace(char, entity)
    return text.encode()


def raw_tag(data: bytes, start: int) -> bytes:
    """The name of the element that begins at ``start``, with its prefix, as it is written."""
    end = start + 1
    while data[end] not in b" \t\r\n/>":
        end += 1
    return data[start + 1 : end]


def attributes(data: bytes, start: int) -> dict[bytes, Attribute]:
    """The attributes in the start tag at ``start``, by their names as written."""
    return _scan(data, start)[0]


def head_end(data: bytes, start: int) -> int:
    """The offset just past the start tag at ``start``."""
    return _scan(data, start)[1]


def _scan(data: bytes, start: int) -> tuple[dict[bytes, Attribute], int]:
    found: dict[bytes, Attribute] = {}
    at = start + 1 + len(raw_tag(data, start))
    while True:
        before = at
        at = _skip_space(data, at)
        if data[at : at + 1] == b">":
            return found, at + 1
        if data[at : at + 2] == b"/>":
            return found, at + 2
        equals = data.index(b"=", at)
        name = data[at:equals].rstrip(SPACE)
        opening = _skip_space(data, equals + 1)
        closing = data.index(data[opening : opening + 1], opening + 1)
        at = closing + 1
        found[name] = Attribute(before, opening + 1, closing, at)


def _skip_space(data: bytes, at: int) -> int:
    while data[at] in SPACE:
        at += 1
    return at


def is_empty_tag(data: bytes, element: Element) -> bool:
    """Whether the element is written as <a/>."""
    end = head_end(data, element.start)
    return data[end - 2 : end] == b"/>"


def element_end(data: bytes, element: Element) -> int:
    """The offset just past the element's end tag."""
    if is_empty_tag(data, element):
        return head_end(data, element.start)
    return data.index(b">", element.close) + 1


def line_start(data: bytes, at: int) -> int:
    """Where the line break before ``at`` begins: it goes away with an element on its own line."""
    while at > 0 and data[at - 1] in b" \t":
        at -= 1
    if at > 0 and data[at - 1 : at] == b"\n":
        at -= 1
        if data[at - 1 : at] == b"\r":
            at -= 1
    return at
