"""Reading and editing XML by byte positions."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libvirt_loopnet.errors import InputError
from libvirt_loopnet.xml.edit import (
    Edit,
    apply_edits,
    attributes,
    element_end,
    escape,
    head_end,
    line_start,
    raw_tag,
)
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
    assert [child.tag for child in root.children] == ["b", "urn:n c"]
    assert root.child_text("b") == "u<v>"
    assert root.children[1].attributes == {"urn:n k": "2"}
    assert root.first("d") is None


def test_predefined_entities_and_declaration() -> None:
    root = parse(b"\xef\xbb\xbf<?xml version='1.0' encoding='UTF-8'?><a b='&lt;&#10;'>&amp;</a>")
    assert (root.get("b"), root.text) == ("<\n", "&")


def test_positions_with_everything_in_the_way() -> None:
    data = (
        b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- <b> -->\n<a\n one = \"1>\"\ttwo='/>' >"
        b"\xc3\xa9<b/><?pi <c>?><c d='x' /><![CDATA[<d>]]><e>f</e >\n</a>"
    )
    root = parse(data)
    assert data[root.start : head_end(data, root.start)].endswith(b"two='/>' >")
    assert {k: data[a.value_start : a.value_end] for k, a in attributes(data, root.start).items()} == {
        b"one": b"1>",
        b"two": b"/>",
    }
    whole = [data[child.start : element_end(data, child)] for child in root.children]
    assert whole == [b"<b/>", b"<c d='x' />", b"<e>f</e >"]
    assert data[root.start : element_end(data, root)] == data[data.index(b"<a\n") :]


def test_line_start_takes_one_line_break_only() -> None:
    data = b"<a>\n\n  \t<b/></a>"
    assert line_start(data, data.index(b"<b/>")) == 4
    windows = b"<a>\r\n <b/></a>"
    assert line_start(windows, windows.index(b"<b/>")) == 3
    assert line_start(b"<a>x <b/></a>", 5) == 4


def test_edits_keep_order() -> None:
    edits = [Edit(3, 3, b"2"), Edit(1, 3, b"-"), Edit(3, 3, b"3")]
    assert apply_edits(b"abcd", edits) == b"a-23d"
    data = b"same"
    assert apply_edits(data, []) is data


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


def spellings(element: Element, data: bytes) -> list[bytes]:
    """The bytes of the element and all below."""
    found = [data[element.start : element_end(data, element)]]
    return found + [each for child in element.children for each in spellings(child, data)]


def shape(element: Element) -> tuple[object, ...]:
    return (element.tag, element.attributes, element.text, tuple(map(shape, element.children)))


@settings(deadline=None)
@given(elements())
def test_every_element_can_be_cut_out(text: str) -> None:
    data = text.encode()
    root = parse(data)
    found = spellings(root, data)
    assert found[0] == data
    for piece in found:
        part = parse(piece)
        assert raw_tag(piece, 0).decode() == part.tag
        assert [key.decode() for key in attributes(piece, 0)] == list(part.attributes)


@settings(deadline=None)
@given(elements(), TEXT)
def test_every_attribute_can_be_set(text: str, value: str) -> None:
    data = text.encode()
    root = parse(data)
    for key, where in attributes(data, root.start).items():
        changed = parse(apply_edits(data, [Edit(where.value_start, where.value_end, escape(value))]))
        assert changed.attributes == {**root.attributes, key.decode(): value}
        assert shape(changed)[2:] == shape(root)[2:]


@settings(deadline=None)
@given(st.binary(max_size=60), st.integers(0, 400))
def test_damage_gives_input_error_or_a_tree(junk: bytes, at: int) -> None:
    good = b"<network><name>x</name><ip address='127.1.0.254' prefix='24'/></network>"
    with suppress(InputError):
        parse(good[:at] + junk + good[at:])
