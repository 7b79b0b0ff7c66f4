"""Changing XML: what is changed is, and all else means the same as before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from libvirt_loopnet.errors import InputError
from libvirt_loopnet.xml.document import Document, alike, make, pretty, source, text_of
from tests.unit.test_xmltree import BAD, TEXT, elements

TEXT_OF_LINES = """\
<?xml version='1.0' encoding='UTF-8'?>
<!-- before -->
<a one="1">
  <b/>
  <!-- <c/> -->
  <d>
    <e>f</e>
  </d>
</a>
<!-- after -->
"""
LINES = TEXT_OF_LINES.encode()


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line(data: bytes) -> None:
    with pytest.raises(InputError) as caught:
        Document(data)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_what_only_lxml_refuses_is_one_line_too() -> None:
    with pytest.raises(InputError, match="not well-formed XML") as caught:
        Document(b"<a xmlns:b='%'/>" + b" " * 10)
    assert "\n" not in str(caught.value)


def test_unchanged_is_the_very_same() -> None:
    data = b"\xef\xbb\xbf<?xml version='1.0'?>\r\n<a one = '&#49;'  ><b></b></a >"
    document = Document(data)
    document.set(document.root, "one", "1")
    document.unset(document.root, "two")
    assert document.render() is data


CHANGES: dict[str, tuple[Callable[[Document, etree._Element], None], str, str]] = {
    "set": (lambda it, a: it.set(a, "one", "'2'"), 'one="1"', "one=\"'2'\""),
    "set another": (lambda it, a: it.set(a, "two", "2"), 'one="1"', 'one="1" two="2"'),
    "unset": (lambda it, a: it.unset(a, "one"), ' one="1"', ""),
    "drop": (lambda it, a: it.drop(a[0]), "  <b/>\n", ""),
    "drop the last": (lambda it, a: it.drop(a[2]), "  <d>\n    <e>f</e>\n  </d>\n", ""),
    "replace": (lambda it, a: it.replace(a[0], make("x", {}, make("y", {}))), "<b/>", "<x>\n    <y/>\n  </x>"),
    "insert": (lambda it, a: it.insert(make("x", {}), a[0]), "  <b/>\n", "  <b/>\n  <x/>\n"),
    "append": (
        lambda it, a: it.append(a, make("x", {}, text="y"), make("z", {})),
        "</a>",
        "  <x>y</x>\n  <z/>\n</a>",
    ),
    "append below": (lambda it, a: it.append(a[2], make("x", {})), "  </d>", "    <x/>\n  </d>"),
    "append to nothing": (
        lambda it, a: it.append(a[0], make("{urn:x}x", {"y": "z"}, prefix="x")),
        "<b/>",
        '<b>\n    <x:x xmlns:x="urn:x" y="z"/>\n  </b>',
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_only_the_change_is_seen(change: str) -> None:
    carry_out, before, after = CHANGES[change]
    document = Document(LINES)
    carry_out(document, document.root)
    assert TEXT_OF_LINES.count(before) == 1
    assert document.render().decode() == TEXT_OF_LINES.replace(before, after)


def test_without_lines_there_are_none() -> None:
    document = Document(b"<a><b/></a>")
    document.append(document.root, make("c", {}, make("d", {})))
    assert document.render() == b"<a><b/><c><d/></c></a>"


def test_text_beside_what_goes_stays() -> None:
    document = Document(b"<a>x\n  <b/>y<c/>\n z</a>")
    document.drop(document.root[1])
    document.drop(document.root[0])
    assert document.render() == b"<a>xy\n z</a>"


def test_a_prefix_that_is_there_is_taken() -> None:
    document = Document(b"<a xmlns:own='urn:x'/>")
    document.append(document.root, make("{urn:x}b", {}, prefix="x"))
    assert document.render() == b'<a xmlns:own="urn:x"><own:b/></a>'


def test_text() -> None:
    root = Document(b"<a><b> c<!-- no --><![CDATA[d]]> </b></a>").root
    assert (text_of(root, "b"), text_of(root, "c")) == ("cd", "")
    assert source(root[0]) == b"<b> c<!-- no --><![CDATA[d]]> </b>"


def test_a_new_document_has_lines() -> None:
    assert pretty(make("a", {}, make("b", {"c": "d"}))) == b'<a>\n  <b c="d"/>\n</a>\n'


def c14n(node: etree._Element) -> bytes:
    """C14N of an element; of a comment lxml makes none, it dies."""
    method = "c14n" if isinstance(node.tag, str) else "xml"
    return etree.tostring(node, method=method, with_tail=False)


@settings(deadline=None)
@given(elements())
def test_the_way_it_is_written_means_the_same(text: str) -> None:
    again = alike(text.encode()).encode()
    assert c14n(etree.fromstring(again)) == c14n(etree.fromstring(text.encode()))
    assert alike(again).encode() == again


@settings(deadline=None)
@given(elements(), TEXT, st.data())
def test_all_else_means_the_same(text: str, value: str, data: st.DataObject) -> None:
    """Whatever is set, dropped and added: its neighbours, and what is in them, are what they were."""
    document = Document(text.encode())
    chosen = data.draw(st.sampled_from(list(document.root.iter("*"))))
    parent = chosen.getparent()
    action = data.draw(st.sampled_from(["set", "append", *([] if parent is None else ["drop", "insert"])]))
    changed = chosen if action in ("set", "append") or parent is None else parent
    others = [(node, c14n(node)) for node in document.root.iter() if not _is_around(node, changed)]
    if action == "drop":
        others = [(node, form) for node, form in others if not _is_around(chosen, node)]
    words = _words(changed, chosen if action == "drop" else None)
    if action == "set":
        document.set(chosen, "new", value)
        assert etree.fromstring(document.render()).xpath("//@new") == [value]
    elif action == "append":
        document.append(chosen, make("new", {}))
    elif action == "insert":
        document.insert(make("new", {}), chosen)
    else:
        document.drop(chosen)
    assert [(node, c14n(node)) for node, _ in others] == others
    assert _words(changed, None) == words
    assert c14n(etree.fromstring(document.render())) == c14n(document.root)


def _is_around(node: etree._Element, other: etree._Element) -> bool:
    return node is other or node in list(other.iterancestors())


def _words(node: etree._Element, without: etree._Element | None) -> str:
    """All text but for white space."""
    return "".join("".join(_texts(node, without)).split())


def _texts(node: etree._Element, without: etree._Element | None) -> list[str]:
    inner = [] if node is without or not isinstance(node.tag, str) else [node.text or ""]
    if inner:
        for child in node:
            inner += [*_texts(child, without), child.tail or ""]
    return inner
