"""Reading XML into the small tree."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from libvirt_loopnet.errors import InputError
from libvirt_loopnet.xml.tree import MAX_BYTES, MAX_DEPTH, Element, parse

BOMB = b"""<!DOCTYPE network [
  <!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">
]><network><name>&c;</name></network>"""

BAD = {
    "empty": b"",
    "white space": b" \n\t",
    "truncated": b"<network><name>x</name",
    "no end": b"<network>",
    "two roots": b"<network/><network/>",
    "text": b"virsh: command not found",
    "entity bomb": BOMB,
    "external entity": b'<!DOCTYPE n [<!ENTITY x SYSTEM "file:///etc/passwd">]><n>&x;</n>',
    "undefined entity": b"<network>&nbsp;</network>",
    "unbound prefix": b"<network><dnsmasq:options/></network>",
    "invalid UTF-8": b"<network><name>\xff\xfe</name></network>",
    "UTF-16": "<?xml version='1.0' encoding='utf-16'?><network/>".encode("utf-16"),
    "UTF-16 without a mark": "<network/>".encode("utf-16-le"),
    "latin-1": b"<?xml version='1.0' encoding='iso-8859-1'?><network/>",
    "control character": b"<network>\x01</network>",
    "twice the attribute": b"<network a='1' a='2'/>",
    "deep": b"<a>" * (MAX_DEPTH + 1),
    "huge": b"<network>" + b" " * MAX_BYTES + b"</network>",
    "many": b"<network>" + b"<a/>" * 200_001 + b"</network>",
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line(data: bytes) -> None:
    with pytest.raises(InputError) as caught:
        parse(data)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_tree() -> None:
    root = parse(b"<a x='1'>t<b>u<![CDATA[<v>]]></b>w<n:c xmlns:n='urn:n' n:k='2'/></a>")
    assert (root.tag, root.text, root.get("x"), root.get("y", "z")) == ("a", "tw", "1", "z")
    assert [child.tag for child in root] == ["b", "{urn:n}c"]
    assert root.findtext("b") == "u<v>"
    assert [child.attrib for child in root.findall("{urn:n}c")] == [{"{urn:n}k": "2"}]
    assert root.find("d") is None


def test_predefined_entities_and_declaration() -> None:
    root = parse(b"\xef\xbb\xbf<?xml version='1.0' encoding='UTF-8'?><a b='&lt;&#10;'>&amp;</a>")
    assert (root.get("b"), root.text) == ("<\n", "&")


TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), max_size=12)
NAME = st.from_regex(r"\A[a-z][a-z0-9._-]{0,5}\Z")


@st.composite
def elements(draw: st.DrawFn, depth: int = 3) -> str:
    """An element in every spelling that XML allows."""
    space = st.sampled_from([" ", "\n", "\t ", " \r\n "])
    quote = st.sampled_from("'\"")
    given = draw(st.dictionaries(NAME, TEXT, max_size=3))
    pairs = ""
    for key, value in given.items():
        q = draw(quote)
        spelled = (
            value.replace("&", "&amp;").replace("<", "&lt;").replace(q, "&#34;" if q == '"' else "&#39;")
        )
        equals = draw(st.sampled_from(["=", " = ", "=\n"]))
        pairs += f"{draw(space)}{key}{equals}{q}{spelled}{q}"
    name = draw(NAME)
    if draw(st.booleans()) or depth == 0:
        return f"<{name}{pairs}{draw(st.sampled_from(['', ' ']))}/>"
    inner = draw(st.lists(st.one_of(PIECES, elements(depth=depth - 1)), max_size=4))
    return f"<{name}{pairs}>{''.join(inner)}</{name}{draw(st.sampled_from(['', ' ']))}>"


PIECES = st.sampled_from(["text", "<!-- <x> -->", "<?pi <y/> ?>", "<![CDATA[<z>]]>", "\n  ", "é>", "&#38;"])


def shape(element: Element | etree._Element) -> tuple[object, ...]:
    inner = [shape(child) for child in element if isinstance(child.tag, str)]
    attributes = {str(name): str(value) for name, value in element.attrib.items()}
    return element.tag, attributes, inner


@settings(deadline=None)
@given(elements())
def test_the_same_as_by_lxml(text: str) -> None:
    data = text.encode()
    assert shape(parse(data)) == shape(etree.fromstring(data))


@settings(deadline=None)
@given(st.binary(max_size=60), st.integers(0, 400))
def test_damage_gives_input_error_or_a_tree(junk: bytes, at: int) -> None:
    good = b"<network><name>x</name><ip address='127.1.0.254' prefix='24'/></network>"
    with suppress(InputError):
        parse(good[:at] + junk + good[at:])
