"""xml-templates/ are new_network()'s output below a comment."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from libvirt_loopnet.networks.new import new_network
from libvirt_loopnet.networks.parsing import definition_of, missing_options, parse_network
from libvirt_loopnet.networks.rewrite import rewrite_network

DIRECTORY = Path(__file__).parents[2] / "xml-templates"


@pytest.mark.parametrize(
    ("name", "loop", "guest", "mode"),
    [
        ("loopnet", "127.1.0.0/24", "10.127.1.0/24", "mapped"),
        ("loopnet-native", "127.2.0.0/24", "127.2.0.0/24", "native"),
    ],
)
def test_template(name: str, loop: str, guest: str, mode: str, regenerate: bool) -> None:
    path = DIRECTORY / f"{name}.xml"
    comment, end, body = path.read_bytes().partition(b"-->\n")
    wanted = new_network(name, IPv4Network(loop), IPv4Network(guest), mode)
    if regenerate:
        path.write_bytes(comment + end + wanted)
        body = wanted
    assert comment.startswith(b"<!--\n")
    assert body == wanted
    text = path.read_bytes()
    network = parse_network(text)
    assert network
    assert missing_options(definition_of(text), network) == ()
    assert network.bridge == ""
    assert rewrite_network(text).xml is text
