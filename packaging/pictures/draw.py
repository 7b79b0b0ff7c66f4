"""The pictures of README.md, as SVG: ``make pictures`` writes them beside this file."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

from libvirt_loopnet.model import MAPPED, Network
from libvirt_loopnet.reports.graph import Group, Nic, Picture, Uplink, render

HERE = Path(__file__).parent


def main() -> None:
    for name, text in pictures().items():
        (HERE / name).write_text(text, encoding="utf-8")


def pictures() -> dict[str, str]:
    """By the name of its file, each picture."""
    return {"host.svg": render(_host()), "packet-path.svg": _packet_path()}


def _host() -> Picture:
    """A laptop with two networks, in a LAN that uses the prefix its guests have, as ``loopnet graph`` draws it."""
    uplink = Uplink("wlp2s0", ("10.127.1.57/24",), "10.127.1.1")
    web = Nic("web", 2, "vnet0", True, ("0.0.0.0:8080→80/tcp",))
    return Picture(
        "laptop",
        ("127.0.0.1/16",),
        (uplink,),
        (
            Group(_network("loopnet", 1), True, (web, Nic("db", 3, "vnet1", True), Nic("old", 4, "", False))),
            Group(_network("lab", 2), True, (Nic("node1", 2, "vnet2", True), Nic("node2", 3, "vnet3", True))),
        ),
    )


def _network(name: str, index: int) -> Network:
    loop, guest = IPv4Network(f"127.{index}.0.0/24"), IPv4Network(f"10.127.{index}.0/24")
    mac = f"52:54:00:00:00:{index:02x}"
    return Network(name, "", f"virbr{index}", mac, MAPPED, loop, guest, 1, 254, name)


# --- the packet path -----------------------------------------------------------------------------

_STYLE = """\
text { font: 13px monospace; fill: #24292f } .t { font-weight: bold } .s { font-size: 11px; fill: #57606a }
.loop { fill: #0550ae } .transit { fill: #953800 } .guest { fill: #0a5f38 }
.page { fill: #ffffff } .layer { fill: #f6f8fa; stroke: #d0d7de } .work { fill: #fff8c5; stroke: #d4a72c }
.end { fill: #ddf4ff; stroke: #54aeff } .wire { stroke: #57606a; stroke-width: 1.5; fill: none }
"""
_WIDTH, _LEFT, _RIGHT = 760, 200, 560
"""Two lanes: what the host begins, what the guest begins."""
_WIRES = ((58, 82), (236, 260), (376, 398), (422, 446))
"""Where the lanes lead from one layer to the next."""


def _packet_path() -> str:
    parts = [
        _box("page", 0, 0, _WIDTH, 560),
        _box("end", 70, 16, 260, 40),
        _text(_LEFT, 41, "ssh 127.1.0.2", "t"),
        _box("end", 430, 16, 260, 40),
        _text(_RIGHT, 41, "internet", "t"),
        _box("layer", 24, 84, 712, 150),
        _text(_WIDTH // 2, 106, "the host's IP stack", "t"),
        _text(_LEFT, 140, "127.1.0.254 → 127.1.0.2", "loop"),
        _text(_LEFT, 162, "a route in table local", "s"),
        _text(_LEFT, 178, "leads into the bridge", "s"),
        _text(_RIGHT, 140, "masquerade: the host's own address", "s"),
        _text(_RIGHT, 166, "247.1.0.2 → 198.51.100.1", "transit"),
        _text(_WIDTH // 2, 218, "guards, table ip loopnet: 127.x and 247.x on lo and our bridges only", "s"),
        _box("work", 24, 262, 712, 112),
        _text(_WIDTH // 2, 284, "bridge virbr1: table bridge loopnet", "t"),
        _text(_WIDTH // 2, 306, "exchanges the prefix, keeps the number; no state, before conntrack", "s"),
        _text(_LEFT, 334, "127.1.0.2 ⇄ 10.127.1.2", "loop"),
        _text(_RIGHT, 334, "247.1.0.2 ⇄ 10.127.1.2", "transit"),
        _text(_WIDTH // 2, 360, "tap, MAC and IP address of the sender must agree", "s"),
        _text(_LEFT, 414, "10.127.1.254 → 10.127.1.2", "guest"),
        _text(_RIGHT, 414, "10.127.1.2 → 198.51.100.1", "guest"),
        _text(_WIDTH // 2, 414, "vnet0", "t"),
        _box("end", 24, 448, 712, 88),
        _text(_WIDTH // 2, 476, "guest vm1", "t"),
        _text(_WIDTH // 2, 500, "10.127.1.2/24, router and DNS 10.127.1.1, by DHCP", "guest"),
        _text(_WIDTH // 2, 522, "knows nothing of all this", "s"),
        *(arrow for top, bottom in _WIRES for arrow in _both_ways(top, bottom)),
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} 560" width="{_WIDTH}" height="560"'
    title = "The path of a packet from the host to a guest, and from a guest to the internet"
    marker = (
        '<marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#57606a"/></marker>'
    )
    body = "\n".join(parts)
    lines = [
        f'{head} role="img">',
        f"<title>{title}</title>",
        f"<style>{_STYLE}</style>",
        f"<defs>{marker}</defs>",
    ]
    return "\n".join([*lines, body, "</svg>", ""])


def _box(kind: str, x: int, y: int, width: int, height: int) -> str:
    return f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>'


def _text(x: int, y: int, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="middle">{text}</text>'


def _both_ways(top: int, bottom: int) -> list[str]:
    return [
        _arrow(x + aside, *ends)
        for x in (_LEFT, _RIGHT)
        for aside, ends in ((-6, (top, bottom)), (6, (bottom, top)))
    ]


def _arrow(x: int, start: int, end: int) -> str:
    return f'<path class="wire" d="M{x} {start}V{end}" marker-end="url(#a)"/>'


if __name__ == "__main__":
    main()
