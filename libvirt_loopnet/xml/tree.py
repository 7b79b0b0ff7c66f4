"""Read XML into a small tree, with the byte position of every element, by expat alone.

The hooks read libvirt's XML on every network and guest start: xml.etree and lxml cost two to
three times as much to import as Python itself. Positions let an edit leave all other bytes alone.
"""

from __future__ import annotations

import pyexpat
from collections.abc import Callable, Iterator

from ..errors import InputError

MAX_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 64
MAX_ELEMENTS = 200_000

_ENCODINGS = ("utf-8", "us-ascii", "ascii")


class Element:
    """An element; ``tag`` and attribute names are 'local', or 'namespace local' if in one."""

    __slots__ = ("attributes", "children", "close", "start", "tag", "text")

    def __init__(self, tag: str, attributes: dict[str, str], start: int) -> None:
        self.tag = tag
        self.attributes = attributes
        self.children: list[Element] = []
        self.text = ""
        """Character data directly inside, all pieces joined."""
        self.start = start
        """Byte offset of '<' in the document."""
        self.close = start
        """Byte offset of the end tag; meaningless when the element is written as <a/>."""

    def get(self, name: str, default: str = "") -> str:
        """The attribute's value, or ``default``."""
        return self.attributes.get(name, default)

    def all(self, tag: str) -> Iterator[Element]:
        """The children called ``tag``."""
        return (child for child in self.children if child.tag == tag)

    def first(self, tag: str) -> Element | None:
        """The first child called ``tag``, or None."""
        return next(self.all(tag), None)

    def child_text(self, tag: str) -> str:
        """The text of the first child called ``tag``, stripped; '' when there is none."""
        child = self.first(tag)
        return child.text.strip() if child else ""


StartHandler = Callable[[str, dict[str, str], int], None]
EndHandler = Callable[[str, int], None]
TextHandler = Callable[[str], None]


def stream(data: bytes, start: StartHandler, end: EndHandler, text: TextHandler) -> None:
    """Parse ``data`` and call the handlers; offsets are in bytes.

    Raises InputError for anything that is not one complete, well-formed UTF-8 document without a
    DOCTYPE: entity declarations are how an XML bomb is made, and libvirt's XML never has them.
    """
    _check_size(data)
    parser = pyexpat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    depth = count = 0

    def open_element(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth, count
        depth += 1
        count += 1
        if depth > MAX_DEPTH or count > MAX_ELEMENTS:
            raise InputError(
                f"XML has more than {MAX_DEPTH} levels or {MAX_ELEMENTS} elements, which no "
                "libvirt definition has; check what was given"
            )
        start(tag, attributes, parser.CurrentByteIndex)

    def close_element(tag: str) -> None:
        nonlocal depth
        depth -= 1
        end(tag, parser.CurrentByteIndex)

    parser.XmlDeclHandler = _check_declaration
    parser.StartDoctypeDeclHandler = _refuse_doctype
    parser.StartElementHandler = open_element
    parser.EndElementHandler = close_element
    parser.CharacterDataHandler = text
    try:
        parser.Parse(data, True)
    except pyexpat.ExpatError as error:
        raise InputError(
            f"not well-formed XML: {pyexpat.ErrorString(error.code)} (line {error.lineno}, column "
            f"{error.offset + 1}); check it with: xmllint --noout FILE"
        ) from None


def parse(data: bytes) -> Element:
    """The root element of the document. Raises InputError as stream() does."""
    top = Element("", {}, 0)
    stack = [top]

    def start(tag: str, attributes: dict[str, str], offset: int) -> None:
        element = Element(tag, attributes, offset)
        stack[-1].children.append(element)
        stack.append(element)

    def end(_tag: str, offset: int) -> None:
        stack.pop().close = offset

    def text(piece: str) -> None:
        stack[-1].text += piece

    stream(data, start, end, text)
    return top.children[0]


def local_name(tag: str) -> str:
    """``tag`` without its namespace, cut to what fits an error message."""
    return tag.rpartition(" ")[2][:60]


def _check_size(data: bytes) -> None:
    if not data.strip():
        raise InputError("no XML was given; pipe a definition in, from virsh net-dumpxml, say")
    if len(data) > MAX_BYTES:
        raise InputError(f"XML of {len(data)} bytes is over the limit of {MAX_BYTES}; check what was given")
    if b"\0" in data[:4]:
        raise InputError("XML is UTF-16 or UTF-32; convert it first with: iconv -t UTF-8")


def _check_declaration(_version: str, encoding: str | None, _standalone: int) -> None:
    if encoding and encoding.lower() not in _ENCODINGS:
        raise InputError(f"XML declares the encoding {encoding[:60]!r}; make it UTF-8 with iconv")


def _refuse_doctype(*_declaration: object) -> None:
    raise InputError("XML has a DOCTYPE, which libvirt's never has; remove it and its entities")
