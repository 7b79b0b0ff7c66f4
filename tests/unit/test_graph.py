"""The picture of a host: well-formed whatever the names, nothing over anything else, texts in their boxes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from libvirt_loopnet.reports.graph import (
    GROUNDS,
    Box,
    Group,
    Nic,
    Picture,
    Sheet,
    Uplink,
    cells,
    cut,
    draw,
    render,
    svg,
)
from tests.unit.test_plan import network

SVG = "{http://www.w3.org/2000/svg}"
UPLINK = Uplink("enp0s31f6", ("192.168.122.170/24",), "192.168.122.1")
ODD = "<b onload='x'>&\"]]>\x00\x1b[1m\ud800\u202e\n仮想マシン e\u0301"


def nics(count: int, name: str = "vm{}", notes: Sequence[str] = ()) -> tuple[Nic, ...]:
    return tuple(
        Nic(name.format(n), n + 2, f"vnet{n}", n % 3 != 2, tuple(notes[: n % 3])) for n in range(count)
    )


def picture(*counts: int, name: str = "vm{}", notes: Sequence[str] = ()) -> Picture:
    groups = tuple(
        Group(network(index), index != 3, nics(count, name, notes)) for index, count in enumerate(counts, 1)
    )
    return Picture("laptop", ("127.0.0.1/16", "127.0.0.53/32"), (UPLINK,), groups)


def elements(text: str, tag: str) -> list[etree._Element]:
    return list(etree.fromstring(text.encode()).iter(SVG + tag))


def words(text: str) -> list[str]:
    """The texts that are seen, without the titles inside of them."""
    return [(element[-1].tail if len(element) else element.text) or "" for element in elements(text, "text")]


def overlap(one: Box, other: Box) -> bool:
    across = one.x < other.right and other.x < one.right
    return across and one.y < other.bottom and other.y < one.bottom


def check(sheet: Sheet) -> None:
    """Nothing overlaps, nothing sticks out."""
    page, host = (next(box for box in sheet.boxes if box.kind == kind) for kind in GROUNDS)
    assert (page.width, page.height) == (sheet.width, sheet.height)
    solid = [box for box in sheet.boxes if box.kind not in GROUNDS]
    for one, other in itertools.combinations(solid, 2):
        assert not overlap(one, other), (one, other)
    for box in solid:
        ground = page if box.kind == "world" else host
        assert ground.x < box.x < box.right < ground.right, box
        assert ground.y < box.y < box.bottom < ground.bottom, box
    for text in sheet.texts:
        assert text.box.x < text.left, text
        assert text.left + text.width < text.box.right, text
        assert text.box.y < text.y - 0.8 * text.size, text
        assert text.y + 0.25 * text.size < text.box.bottom, text
    lines: dict[float, list[tuple[float, float]]] = {}
    for text in sheet.texts:
        lines.setdefault(text.y, []).append((text.left, text.left + text.width))
    for line in lines.values():
        for before, after in zip(sorted(line), sorted(line)[1:]):
            assert before[1] < after[0]
    for wire in sheet.wires:
        for (x1, y1), (x2, y2) in zip(wire.points, wire.points[1:]):
            assert x1 == x2 or y1 == y2, wire
        assert all(page.x < x < page.right and page.y < y < page.bottom for x, y in wire.points)


@pytest.mark.parametrize("counts", [(), (0,), (1,), (3,), (4,), (5,), (40,), (40, 1, 7, 0), (1,) * 12])
@pytest.mark.parametrize("notes", [(), ("0.0.0.0:8080→80/tcp", "255.255.255.255:65535→65535/tcp")])
def test_nothing_overlaps(counts: tuple[int, ...], notes: tuple[str, ...]) -> None:
    check(draw(picture(*counts, notes=notes)))


def test_the_check_would_see_it() -> None:
    sheet = draw(picture(2))
    card = next(box for box in sheet.boxes if box.kind == "card")
    sheet.boxes.append(card._replace(x=card.x + 5, kind="card idle"))
    with pytest.raises(AssertionError):
        check(sheet)
    sheet = draw(picture(2))
    sheet.texts[-1] = sheet.texts[-1]._replace(text="x" * 60)
    with pytest.raises(AssertionError):
        check(sheet)


def test_all_is_there() -> None:
    text = render(picture(40, 1))
    found = words(text)
    for n in range(40):
        for word in (f"vm{n}", f"127.1.0.{n + 2}", f"10.127.1.{n + 2}", f"247.1.0.{n + 2}"):
            assert word in found, word
    for word in (
        "laptop", "127.0.0.1/16", "127.0.0.53/32", "enp0s31f6 192.168.122.170/24", "router 192.168.122.1",
        "net1", "bridge virbr1, mapped, active", "127.1.0.0/24", "10.127.1.0/24", "247.1.0.0/24",
        "the host is 127.1.0.254", "the router is 10.127.1.1", "the router is 247.1.0.1",
    ):  # fmt: skip
        assert word in found, word
    assert len(elements(text, "circle")) == 41
    assert len([e for e in elements(text, "rect") if (e.get("class") or "").split()[0] == "card"]) == 41


def test_a_host_with_nothing() -> None:
    text = render(Picture("", (), (), ()))
    assert "no loopnet network is defined: loopnet define" in words(text)
    assert "no default route" in words(text)
    check(draw(Picture("", (), (), ())))


def test_it_stands_alone() -> None:
    """No script, no font, no picture from elsewhere; colours for both, dark and light."""
    text = render(picture(3))
    assert {str(element.tag).replace(SVG, "") for element in etree.fromstring(text.encode()).iter()} == {
        "svg", "title", "style", "rect", "polyline", "circle", "text",
    }  # fmt: skip
    for word in ("href", "url(", "@import", "@font-face", "<script", "data:"):
        assert word not in text
    assert text.count("http") == 1  # the namespace
    assert "prefers-color-scheme: dark" in text


@pytest.mark.parametrize("name", [ODD, "x" * 500, "仮" * 300, ""], ids=["odd", "long", "wide", "empty"])
def test_names_are_escaped_and_cut(name: str) -> None:
    group = Group(network(1)._replace(name=name, bridge=name[:15]), True, (Nic(name, 2, name[:15], True),))
    shown = Picture(name, (name,), (Uplink(name, (name,), name),), (group,))
    text = svg(draw(shown), name)
    check(draw(shown))
    assert elements(text, "script") == elements(text, "b") == []
    if name == ODD:
        assert any("<b onload='x'>&\"" in word for word in words(text))
    if len(name) > 100:
        assert any(title.text == name for title in elements(text, "title"))


@given(st.text(max_size=80), st.text(max_size=80), st.integers(0, 9))
def test_any_text_is_drawn(name: str, other: str, count: int) -> None:
    cards = tuple(Nic(name, n + 2, other[:15], bool(n % 2), (name, other)) for n in range(count))
    shown = Picture(other, (name,), (UPLINK,), (Group(network(1)._replace(name=other), True, cards),))
    etree.fromstring(render(shown).encode())
    check(draw(shown))


@given(st.text(max_size=40), st.integers(1, 40))
def test_cut(text: str, room: int) -> None:
    assert cells(cut(text, room)) <= room
    assert cut(text, room) == text or cut(text, room).endswith("…")
