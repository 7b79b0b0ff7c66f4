"""Read XML into a small tree, by expat alone, and no more of it than is sane.

The hooks read libvirt's XML on every network and guest start, and importing lxml takes as long as Python's own
start. The tree has that part of ElementTree's interface which readers need; it can't be changed (document.py can).
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
    """An element, as in xml.etree; ``tag`` and attribute names are 'local', or '{namespace}local' if in one."""

    __slots__ = ("_children", "attrib", "tag", "text")

    def __init__(self, tag: str, attrib: dict[str, str]) -> None:
        self.tag = tag
        self.attrib = attrib
        self.text = ""
        """Character data directly inside, all pieces joined, as libvirt takes it."""
        self._children: list[Element] = []

    def __iter__(self) -> Iterator[Element]:
        return iter(self._children)

    def get(self, name: str, default: str = "") -> str:
        """The attribute's value, or ``default``."""
        return self.attrib.get(name, default)

    def findall(self, tag: str) -> list[Element]:
        """The children called ``tag``."""
        return [child for child in self._children if child.tag == tag]

    def find(self, tag: str) -> Element | None:
        """The first child called ``tag``, or None."""
        for child in self._children:
            if child.tag == tag:
                return child
        return None

    def findtext(self, tag: str, default: str = "") -> str:
        """The text of the first child called ``tag``, stripped; ``default`` when there is none."""
        child = self.find(tag)
        return default if child is None else child.text.strip()

    def append(self, child: Element) -> None:
        """Add a child; only parse() does."""
        self._children.append(child)


StartHandler = Callable[[str, dict[str, str]], None]
EndHandler = Callable[[str], None]
TextHandler = Callable[[str], None]


def stream(data: bytes, start: StartHandler, end: EndHandler, text: TextHandler) -> None:
    """Parse ``data`` and call the handlers; a name in a namespace is '{namespace}local'.

    Raises InputError for anything that is not one complete, well-formed UTF-8 document without a
    DOCTYPE: entity declarations are how an XML bomb is made, and libvirt's XML never has them.
    """
    _check_size(data)
    parser = pyexpat.ParserCreate(namespace_separator="}")
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
        if "}" in tag:
            tag = "{" + tag
        start(tag, {"{" + key if "}" in key else key: value for key, value in attributes.items()})

    def close_element(tag: str) -> None:
        nonlocal depth
        depth -= 1
        end(tag)

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
    top = Element("", {})
    stack = [top]

    def start(tag: str, attributes: dict[str, str]) -> None:
        element = Element(tag, attributes)
        stack[-1].append(element)
        stack.append(element)

    def end(_tag: str) -> None:
        stack.pop()

    def text(piece: str) -> None:
        stack[-1].text += piece

    stream(data, start, end, text)
    return next(iter(top))


def local_name(tag: str) -> str:
    """``tag`` without its namespace, cut to what fits an error message."""
    return tag.rpartition("}")[2][:60]


def _check_size(data: bytes) -> None:
    if not data.strip():
        raise InputError("no XML was given; pipe a definition in, for example from virsh net-dumpxml")
    if len(data) > MAX_BYTES:
        raise InputError(f"XML of {len(data)} bytes is over the limit of {MAX_BYTES}; check what was given")
    if b"\0" in data[:4]:
        raise InputError("XML is UTF-16 or UTF-32; convert it first with: iconv -t UTF-8")


def _check_declaration(_version: str, encoding: str | None, _standalone: int) -> None:
    if encoding and encoding.lower() not in _ENCODINGS:
        raise InputError(f"XML declares the encoding {encoding[:60]!r}; make it UTF-8 with iconv")


def _refuse_doctype(*_declaration: object) -> None:
    raise InputError("XML has a DOCTYPE, which libvirt's never has; remove it and its entities")
