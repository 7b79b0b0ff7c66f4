"""rewrite/NAME.in.xml -> NAME.out.xml, and NAME.out.txt for reservations and warnings.

After a change: pytest tests/golden --regenerate, and read the diff.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from lxml import etree

from libvirt_loopnet.networks.parsing import definition_of, hosts_of, missing_options, parse_network
from libvirt_loopnet.networks.rewrite import Rewritten, rewrite_network

DIRECTORY = Path(__file__).parent / "rewrite"
INPUTS = sorted(DIRECTORY.glob("*.in.xml"))
SCHEMA = Path("/usr/share/libvirt/schemas/network.rng")

OPTIONS: dict[str, Callable[[bytes], Rewritten]] = {
    "netboot": lambda xml: rewrite_network(rewrite_network(xml).xml, mode="native"),
    "native": lambda xml: rewrite_network(xml, mode="native"),
    "moved": lambda xml: rewrite_network(xml, mode="mapped", loop_prefix=IPv4Network("127.10.0.0/16")),
    "ptr": lambda xml: rewrite_network(xml, taken=[("other", IPv4Network("127.1.0.0/16"))], occupied=[253]),
}
"""What is asked for, where it is not just a rewrite."""


@pytest.fixture(params=INPUTS, ids=[path.name[: -len(".in.xml")] for path in INPUTS])
def source(request: pytest.FixtureRequest) -> Path:
    path = request.param
    assert isinstance(path, Path)
    return path


def name_of(source: Path) -> str:
    return source.name[: -len(".in.xml")]


def rewritten(source: Path) -> Rewritten:
    return OPTIONS.get(name_of(source), rewrite_network)(source.read_bytes())


def report(result: Rewritten) -> str:
    lines = [f"reserved {host.number} {host.mac or '-'} {host.name or '-'}" for host in result.reservations]
    return "".join(f"{line}\n" for line in (*lines, *result.warnings))


def test_output(source: Path, regenerate: bool) -> None:
    result = rewritten(source)
    outputs = {".out.xml": result.xml, ".out.txt": report(result).encode()}
    for suffix, got in outputs.items():
        path = source.with_name(name_of(source) + suffix)
        if regenerate:
            path.write_bytes(got)
        assert got.decode() == path.read_bytes().decode()


def test_again_changes_nothing(source: Path) -> None:
    once = rewritten(source)
    twice = rewrite_network(once.xml)
    assert twice.xml is once.xml
    assert twice.network == once.network
    assert twice.reservations == once.reservations


def test_read_back(source: Path) -> None:
    result = rewritten(source)
    assert parse_network(result.xml) == result.network
    assert hosts_of(definition_of(result.xml), result.network) == result.reservations
    assert missing_options(definition_of(result.xml), result.network) == ()


def test_schema(source: Path) -> None:
    schema = etree.RelaxNG(etree.parse(str(SCHEMA)))
    schema.assertValid(etree.fromstring(rewritten(source).xml))
