"""A picture of a host: its networks, bridges and guests with their three addresses, as SVG. Pure.

``draw`` lays boxes and texts out on a sheet, whose geometry can be looked at; ``svg`` writes it down. Texts
are in a monospaced font of whatever name, so that their width is known without one: 0.6 em is the widest
that common ones are, and a wide character (East Asian) takes two cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from unicodedata import category, combining, east_asian_width

from ..model import Network

CELL = 0.61
"""Width of a character, in em."""
MARGIN, LANE, PAD = 24, 30, 14
CARD, CARD_GAP, ROW_GAP = 232, 26, 14
LINE = 17
MOST_COLUMNS, FEWEST_COLUMNS = 4, 3
SMALL, NORMAL, LARGE = 11, 12, 15

GROUNDS = ("page", "host")
"""Boxes that others stand on, and wires."""
LOOP, GUEST, TRANSIT = "loop", "guest", "transit"
_MEANING = (
    (LOOP, "what it is called on this host"),
    (GUEST, "what it has on its own wire"),
    (TRANSIT, "the same inside the host's IP stack"),
)


class Uplink(NamedTuple):
    """A way out of the host."""

    device: str
    addresses: tuple[str, ...]
    """With their length."""
    router: str
    """'' where the route needs none."""


class Nic(NamedTuple):
    """A NIC that has an address."""

    name: str
    """The guest's, or the MAC address where it has none."""
    number: int
    tap: str
    up: bool
    notes: tuple[str, ...] = ()
    """Further lines."""


class Group(NamedTuple):
    """A network and its guests."""

    network: Network
    active: bool
    nics: tuple[Nic, ...]


class Picture(NamedTuple):
    """All that is shown."""

    host: str
    lo: tuple[str, ...]
    uplinks: tuple[Uplink, ...]
    groups: tuple[Group, ...]


# --- the sheet -----------------------------------------------------------------------------------


class Box(NamedTuple):
    """A rectangle; ``kind`` is its class in the style sheet."""

    kind: str
    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height


class Text(NamedTuple):
    """A line of text; ``y`` is that of its base line, and it stands inside ``box``."""

    kind: str
    x: float
    y: float
    text: str
    size: int
    box: Box
    full: str = ""
    """What ``text`` is cut from, if it is."""
    end: bool = False
    """``x`` is where it ends."""

    @property
    def width(self) -> float:
        return cells(self.text) * CELL * self.size

    @property
    def left(self) -> float:
        return self.x - self.width if self.end else self.x


class Wire(NamedTuple):
    """Straight lines from point to point."""

    kind: str
    points: tuple[tuple[float, float], ...]


class Dot(NamedTuple):
    """Says whether a guest is up."""

    kind: str
    x: float
    y: float


class Sheet:
    """What is drawn, in the order in which it is."""

    def __init__(self) -> None:
        self.boxes: list[Box] = []
        self.wires: list[Wire] = []
        self.texts: list[Text] = []
        self.dots: list[Dot] = []
        self.width = self.height = 0.0

    def box(self, kind: str, x: float, y: float, width: float, height: float) -> Box:
        self.boxes.append(Box(kind, x, y, width, height))
        return self.boxes[-1]

    def text(self, kind: str, x: float, y: float, text: str, box: Box, *, size: int = NORMAL) -> None:
        """Write from ``x`` on, cut off where ``box`` ends."""
        room = int((box.right - PAD / 2 - x) / (CELL * size))
        self.texts.append(_text(kind, x, y, text, box, size, room))

    def text_end(self, kind: str, x: float, y: float, text: str, box: Box) -> None:
        """Write up to ``x``."""
        self.texts.append(_text(kind, x, y, text, box, SMALL, len(text))._replace(end=True))

    def wire(self, kind: str, *points: tuple[float, float]) -> None:
        self.wires.append(Wire(kind, points))


def _text(kind: str, x: float, y: float, text: str, box: Box, size: int, room: int) -> Text:
    clean = "".join(char if is_printable(char) else "\N{REPLACEMENT CHARACTER}" for char in text)
    shown = cut(clean, room)
    return Text(kind, x, y, shown, size, box, "" if shown == clean else clean)


def is_printable(char: str) -> bool:
    """Can it stand in XML, and be seen? Not so control characters, surrogates and what isn't assigned."""
    return category(char) not in ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp")


def cells(text: str) -> int:
    """How many cells of a terminal it would take."""
    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def cut(text: str, room: int) -> str:
    """``text`` in at most ``room`` cells, with an ellipsis where some is missing."""
    if cells(text) <= room:
        return text
    while text and cells(text) > room - 1:
        text = text[:-1]
    return f"{text}…"


# --- layout --------------------------------------------------------------------------------------


def draw(picture: Picture) -> Sheet:
    """Lay everything out: the world on top, the host below, its networks in it, their guests in those."""
    sheet = Sheet()
    most = max((len(group.nics) for group in picture.groups), default=0)
    columns = min(MOST_COLUMNS, max(FEWEST_COLUMNS, most))
    inner = columns * (CARD + CARD_GAP) + PAD
    sheet.width = inner + 2 * (MARGIN + LANE)
    page = sheet.box("page", 0, 0, sheet.width, 0)
    world = _head(sheet, picture, page)
    host = sheet.box("host", MARGIN, world.bottom + 26, sheet.width - 2 * MARGIN, 0)
    bottom, lo, uplink = _host(sheet, picture, host, world)
    for group in picture.groups:
        bottom = _group(sheet, group, host.x + LANE, bottom + 20, inner, (lo, uplink, columns))
    if not picture.groups:
        bottom += 34
        sheet.text("muted", host.x + LANE, bottom - 8, "no loopnet network is defined: loopnet define", host)
    sheet.height = bottom + 20 + MARGIN
    _resize(sheet, page, sheet.height)
    _resize(sheet, host, bottom + 20 - host.y)
    return sheet


def _resize(sheet: Sheet, box: Box, height: float) -> None:
    """Give a box the height that only its contents told."""
    after = box._replace(height=height)
    sheet.boxes[sheet.boxes.index(box)] = after
    sheet.texts = [text._replace(box=after) if text.box == box else text for text in sheet.texts]


def _head(sheet: Sheet, picture: Picture, page: Box) -> Box:
    """Title, legend, and the world outside; returns the last."""
    routers = [f"router {uplink.router}" for uplink in picture.uplinks if uplink.router][:2]
    lines = routers or ["no router is known"]
    height = 30 + LINE * len(lines) + 6
    x, y = page.right - MARGIN - LANE - 290, MARGIN + 2 * LINE - LINE * len(lines)
    world = sheet.box("world", x, y + 14, 290, height)
    heading = page._replace(width=world.x, height=world.bottom)
    sheet.text("title", MARGIN, MARGIN + 14, picture.host or "this host", heading, size=LARGE)
    for index, (kind, meaning) in enumerate(_MEANING):
        y = MARGIN + 42 + index * LINE
        sheet.text(kind, MARGIN, y, kind, heading)
        sheet.text("muted", MARGIN + 70, y, meaning, heading)
    sheet.text("name", world.x + PAD, world.y + 22, "LAN, VPN, internet", world)
    for index, line in enumerate(lines):
        sheet.text("muted", world.x + PAD, world.y + 42 + index * LINE, line, world)
    return world


def _host(sheet: Sheet, picture: Picture, host: Box, world: Box) -> tuple[float, Box, Box]:
    """lo and the ways out; returns (where they end, lo, uplink)."""
    ways = [(uplink.device, address) for uplink in picture.uplinks for address in uplink.addresses or ("",)]
    lines = max(len(picture.lo), len(ways), 1)
    height = 30 + lines * LINE + 6
    lo = sheet.box("device", host.x + LANE, host.y + 20, 290, height)
    uplink = sheet.box("device", world.x, host.y + 20, world.width, height)
    sheet.text("name", lo.x + PAD, lo.y + 22, "lo, programs of the host", lo)
    for index, address in enumerate(picture.lo):
        sheet.text(LOOP, lo.x + PAD, lo.y + 42 + index * LINE, address, lo)
    sheet.text("name", uplink.x + PAD, uplink.y + 22, "uplink, masquerades guests", uplink)
    for index, (device, address) in enumerate(ways or [("no default route", "")]):
        sheet.text(
            "muted", uplink.x + PAD, uplink.y + 42 + index * LINE, f"{device} {address}".strip(), uplink
        )
    middle = world.x + world.width / 2
    sheet.wire("out" if ways else "off", (middle, world.bottom), (middle, uplink.y))
    return lo.bottom, lo, uplink


def _group(sheet: Sheet, group: Group, x: float, y: float, width: float, host: tuple[Box, Box, int]) -> float:
    """A network with its guests; returns where it ends."""
    lo, uplink, columns = host
    bar = sheet.box("bridge" if group.active else "bridge idle", x, y, width, 30 + 3 * LINE + 8)
    _bridge(sheet, group, bar)
    _lanes(sheet, bar, lo, uplink, group.active)
    bottom = bar.bottom
    top = bar.bottom + ROW_GAP
    rows = [group.nics[start : start + columns] for start in range(0, len(group.nics), columns)]
    for row in rows:
        height = 30 + LINE * (3 + max(len(nic.notes) for nic in row)) + 8
        for column, nic in enumerate(row):
            left = x + CARD_GAP + column * (CARD + CARD_GAP)
            card = sheet.box("card" if nic.up else "card idle", left, top, CARD, height)
            _card(sheet, group.network, nic, card)
            spine, middle = left - CARD_GAP / 2, top + 17
            sheet.wire("tap" if nic.up else "tap idle", (spine, bar.bottom), (spine, middle), (left, middle))
        bottom = top + height
        top = bottom + ROW_GAP
    if not rows:
        sheet.text("muted", x + CARD_GAP, bar.bottom + 22, "no guest has an address here yet", sheet.boxes[0])
        bottom += 30
    return bottom


def _lanes(sheet: Sheet, bar: Box, lo: Box, uplink: Box, active: bool) -> None:
    """From lo down the left side, from the uplink down the right one, to the bridge."""
    middle = bar.y + bar.height / 2
    for kind, edge, device, side in ((LOOP, bar.x, lo.x, -1), (TRANSIT, bar.right, uplink.right, 1)):
        lane, height = edge + side * LANE / 2, lo.y + lo.height / 2
        if active:
            sheet.wire(kind, (device, height), (lane, height), (lane, middle), (edge, middle))


def _bridge(sheet: Sheet, group: Group, bar: Box) -> None:
    network = group.network
    state = "active" if group.active else "not active"
    sheet.text("name", bar.x + PAD, bar.y + 21, network.name, bar._replace(width=bar.width / 2))
    words = [f"bridge {network.bridge}"] if network.bridge else []
    sheet.text_end("muted", bar.right - PAD, bar.y + 21, ", ".join([*words, network.mode, state]), bar)
    host, gateway = network.host, network.gateway
    rows = (
        (LOOP, network.loop_prefix, f"the host is {network.loop_address(host)}"),
        (GUEST, network.guest_prefix, f"the router is {network.guest_address(gateway)}"),
        (TRANSIT, network.transit_prefix, f"the router is {network.transit_address(gateway)}"),
    )
    for index, (kind, prefix, rest) in enumerate(rows):
        y = bar.y + 42 + index * LINE
        sheet.text("muted", bar.x + PAD, y, kind, bar)
        sheet.text(kind, bar.x + PAD + 70, y, str(prefix), bar)
        sheet.text("muted", bar.x + PAD + 240, y, rest, bar)


def _card(sheet: Sheet, network: Network, nic: Nic, card: Box) -> None:
    sheet.dots.append(Dot("up" if nic.up else "idle", card.x + PAD + 2, card.y + 17))
    tap = cut(nic.tap, 10)
    room = card._replace(width=card.width - (cells(tap) + 1) * CELL * SMALL - PAD / 2)
    sheet.text("name", card.x + PAD + 13, card.y + 21, nic.name, room)
    sheet.text_end("muted", card.right - PAD, card.y + 21, tap, card)
    addresses = (
        (LOOP, network.loop_address(nic.number)),
        (GUEST, network.guest_address(nic.number)),
        (TRANSIT, network.transit_address(nic.number)),
    )
    for index, (kind, address) in enumerate(addresses):
        y = card.y + 42 + index * LINE
        sheet.text("muted", card.x + PAD, y, kind, card)
        sheet.text(kind, card.x + PAD + 70, y, str(address), card)
    for index, note in enumerate(nic.notes):
        sheet.text("muted", card.x + PAD, card.y + 42 + (3 + index) * LINE, note, card, size=SMALL)


# --- SVG -----------------------------------------------------------------------------------------

# The page has a colour of its own, so that it can be read on any other; who prefers dark gets dark.
_STYLE = """\
text { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; white-space: pre }
.page { fill: #f4f5f7 } .host { fill: #ffffff; stroke: #d3d8e0 }
.world, .device { fill: #f4f5f7; stroke: #c3c9d4 }
.bridge { fill: #eef3fb; stroke: #a9bcdc } .card { fill: #ffffff; stroke: #c3c9d4 }
.idle { stroke-dasharray: 4 3 } .bridge.idle { fill: #f7f8fa; stroke: #c3c9d4 }
.title, .name { fill: #1d2330; font-weight: bold } .muted { fill: #5d6678 }
text.loop { fill: #1a56c4 } text.guest { fill: #12704a } text.transit { fill: #9a5200 }
polyline { fill: none; stroke-width: 1.5; stroke: #aab3c2; stroke-linejoin: round }
polyline.loop { stroke: #5b8be0 } polyline.transit, polyline.out { stroke: #d79a4b }
polyline.idle, polyline.off { stroke-dasharray: 4 3 }
circle.up { fill: #1e9e62 } circle.idle { fill: none; stroke: #8791a3; stroke-dasharray: none }
"""
_DARK = """\
.page { fill: #12151a } .host { fill: #191d24; stroke: #363e4b }
.world, .device { fill: #12151a; stroke: #434d5c }
.bridge { fill: #1d2635; stroke: #41577d } .card { fill: #20252e; stroke: #434d5c }
.bridge.idle { fill: #191d24; stroke: #434d5c }
.title, .name { fill: #e8ebf1 } .muted { fill: #9ea8b8 }
text.loop { fill: #82b1ff } text.guest { fill: #6bd3a0 } text.transit { fill: #f0b660 }
polyline { stroke: #566172 } polyline.loop { stroke: #4a76c4 } polyline.transit, polyline.out { stroke: #a87532 }
"""


def svg(sheet: Sheet, title: str) -> str:
    """The sheet as a document of its own: no script, no font, no link."""
    size = f"{_number(sheet.width)} {_number(sheet.height)}"
    width, height = size.split()
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {size}"'
        ' role="img">',
        f"<title>{_escape(title)}</title>",
        f"<style>\n{_STYLE}@media (prefers-color-scheme: dark) {{\n{_DARK}}}\n</style>",
    ]
    lines += [_rectangle(box) for box in sheet.boxes if box.kind in GROUNDS]
    lines += map(_polyline, sheet.wires)
    lines += [_rectangle(box) for box in sheet.boxes if box.kind not in GROUNDS]
    lines += [
        f'<circle class="{dot.kind}" cx="{_number(dot.x)}" cy="{_number(dot.y)}" r="4"/>'
        for dot in sheet.dots
    ]
    lines += map(_line, sheet.texts)
    return "\n".join([*lines, "</svg>", ""])


def _rectangle(box: Box) -> str:
    x, y, width, height = map(_number, box[1:])
    rounded = "" if box.kind == "page" else ' rx="7"'
    return f'<rect class="{box.kind}" x="{x}" y="{y}" width="{width}" height="{height}"{rounded}/>'


def _polyline(wire: Wire) -> str:
    points = " ".join(f"{_number(x)},{_number(y)}" for x, y in wire.points)
    return f'<polyline class="{wire.kind}" points="{points}"/>'


def _line(text: Text) -> str:
    anchor = ' text-anchor="end"' if text.end else ""
    title = f"<title>{_escape(text.full)}</title>" if text.full else ""
    place = f'x="{_number(text.x)}" y="{_number(text.y)}" font-size="{text.size}"{anchor}'
    return f'<text class="{text.kind}" {place}>{title}{_escape(text.text)}</text>'


def _escape(text: str) -> str:
    shown = "".join(char if is_printable(char) else "\N{REPLACEMENT CHARACTER}" for char in text)
    return shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def render(picture: Picture) -> str:
    """The picture as an SVG document."""
    names: Sequence[str] = [group.network.name for group in picture.groups]
    return svg(draw(picture), f"loopnet on {picture.host}: {', '.join(names) or 'no networks'}")
