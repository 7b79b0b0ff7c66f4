"""Change elements and attributes of a document in its own layout; all other bytes stay."""

from __future__ import annotations

from collections.abc import Sequence

from .edit import (
    Edit,
    apply_edits,
    attributes,
    element_end,
    escape,
    head_end,
    is_empty_tag,
    line_start,
    raw_tag,
)
from .tree import Element


class Editor:
    """Collects edits of one document; ``apply`` does them."""

    def __init__(self, data: bytes, root: Element) -> None:
        self.data = data
        self.root = root
        self.edits: list[Edit] = []
        self.lead, self.unit = _layout(data, root)
        """Line break and indentation before a child of the root, and one step of indentation."""

    def apply(self) -> bytes:
        """The document with all edits; the very same bytes when there are none."""
        return apply_edits(self.data, self.edits)

    def set_attribute(self, element: Element, name: str, value: str) -> None:
        """Give ``element`` the attribute, at its old place or as the last."""
        if element.attributes.get(name) == value:
            return
        there = attributes(self.data, element.start).get(name.encode())
        if there:
            self.edits.append(Edit(there.value_start, there.value_end, escape(value)))
            return
        found = attributes(self.data, element.start).values()
        tag_end = element.start + 1 + len(raw_tag(self.data, element.start))
        at = max((each.end for each in found), default=tag_end)
        self.edits.append(Edit(at, at, b" %s='%s'" % (name.encode(), escape(value))))

    def drop_attribute(self, element: Element, name: str) -> None:
        """Take the attribute away, with the white space before it."""
        there = attributes(self.data, element.start).get(name.encode())
        if there:
            self.edits.append(Edit(there.start, there.end, b""))

    def drop(self, element: Element) -> None:
        """Take the element away, with its indentation and line break."""
        start = line_start(self.data, element.start)
        self.edits.append(Edit(start, element_end(self.data, element), b""))

    def replace(self, element: Element, text: bytes) -> None:
        """Put ``text`` where the element stands."""
        end = element_end(self.data, element)
        if self.data[element.start : end] != text:
            self.edits.append(Edit(element.start, end, text))

    def append(self, parent: Element, lines: Sequence[bytes], depth: int) -> None:
        """Add ``lines`` as the last children of ``parent``, which stands at ``depth`` (root: 0)."""
        lead = self.lead + self.unit * depth
        text = b"".join(lead + line for line in lines)
        if is_empty_tag(self.data, parent):
            end = head_end(self.data, parent.start)
            tag = raw_tag(self.data, parent.start)
            outer = self.outer_lead(depth)
            self.edits.append(Edit(end - 2, end, b">%s%s</%s>" % (text, outer, tag)))
            return
        if parent.children:
            at = element_end(self.data, parent.children[-1])
        else:
            at = line_start(self.data, parent.close)
        at = max(at, head_end(self.data, parent.start))
        self.edits.append(Edit(at, at, text))

    def outer_lead(self, depth: int) -> bytes:
        """Line break and indentation before the end tag of an element at ``depth``."""
        if not self.lead:
            return b""
        return self.lead[: len(self.lead) - len(self.unit)] + self.unit * depth


def _layout(data: bytes, root: Element) -> tuple[bytes, bytes]:
    if not root.children:
        return b"", b""
    start = root.children[0].start
    lead = data[line_start(data, start) : start]
    if b"\n" not in lead:
        return b"", b""
    own = data[line_start(data, root.start) : root.start].lstrip(b"\r\n")
    indent = lead.lstrip(b"\r\n")
    return lead, indent[len(own) :] if indent.startswith(own) else indent
