"""Everything libvirt's developers thought of as a network or a domain, through ours.

`pytest tests/golden/test_corpus.py -s` prints the table of refusals that stands in the docs.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from lxml import etree

from libvirt_loopnet.errors import InputError
from libvirt_loopnet.guests.domains import move_networks, parse_domain
from libvirt_loopnet.networks.parsing import definition_of, missing_options, parse_network
from libvirt_loopnet.networks.refusals import REFUSALS
from libvirt_loopnet.networks.rewrite import Rewritten, rewrite_network
from tests.golden.corpus import corpus, domain_files, network_files

KEPT = (
    "uuid", "name", "title", "description", "bridge", "mac", "mtu", "domain", "bandwidth", "vlan", "port",
    "portgroup", "virtualport",
)  # fmt: skip
SCHEMA = "/usr/share/libvirt/schemas/network.rng"


@pytest.fixture(scope="module")
def networks() -> list[Path]:
    return network_files(corpus())


@pytest.fixture(scope="module")
def domains() -> list[Path]:
    return domain_files(corpus())


def reason(error: InputError) -> str:
    """Which line of REFUSALS an error is."""
    for name, template in REFUSALS.items():
        parts = (re.escape(part.rpartition("}")[2]) for part in template.split("{"))
        if re.fullmatch("(.*)".join(parts), str(error)):
            return name
    return f"other: {error}"


def rewritten(path: Path) -> Rewritten | str:
    try:
        return rewrite_network(path.read_bytes())
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return reason(error)


def test_every_network(networks: list[Path]) -> None:
    schema = etree.RelaxNG(etree.parse(SCHEMA))
    counts: Counter[str] = Counter()
    for path in networks:
        result = rewritten(path)
        if isinstance(result, str):
            counts[result] += 1
            continue
        counts["rewritten"] += 1
        # a file may be there because it is wrong; ours must not be wrong in any other way
        if schema.validate(etree.fromstring(path.read_bytes())):
            schema.assertValid(etree.fromstring(result.xml))
        assert parse_network(result.xml) == result.network, path
        assert missing_options(definition_of(result.xml), result.network) == (), path
        again = rewrite_network(result.xml)
        assert again.xml is result.xml, path
    print("", *(f"{count:5} {what}" for what, count in counts.most_common()), sep="\n")
    assert not [what for what in counts if what.startswith("other")]
    assert counts["rewritten"] > 50
    assert sum(counts.values()) > 120


def test_foreign_elements_stay(networks: list[Path]) -> None:
    """Every element that is not ours to change means the same, in the same order."""
    for path in networks:
        result = rewritten(path)
        if not isinstance(result, str):
            assert _theirs(result.xml) == _theirs(path.read_bytes()), path


def _theirs(xml: bytes) -> list[bytes]:
    """What is neither <forward> nor options nor an IPv4 <ip>, <route> or <dns>; of <dns> what is in it."""
    root = etree.fromstring(xml)
    found = [node for node in root.iterchildren("*") if node.tag in KEPT]
    found += [node for node in root.findall("ip") + root.findall("route") if node.get("family") == "ipv6"]
    found += [node for node in root.findall("dns/*") + root.findall("metadata/*") if node.prefix != "loopnet"]
    return [etree.tostring(node, method="c14n", with_tail=False) for node in found]


def test_every_domain(domains: list[Path]) -> None:
    moved = 0
    for path in domains:
        data = path.read_bytes()
        try:
            nics = parse_domain(data).nics
        except InputError as error:
            assert re.match("expected <domain>|XML has a DOCTYPE", str(error)), path  # noqa: PT017
            continue
        assert move_networks(data, {"no such network": "loopnet"}) is data
        moves = {source.get("network", ""): "a'b&c" for source in _sources(etree.fromstring(data))}
        result = move_networks(data, moves)
        if not moves:
            assert result is data, path
            continue
        moved += 1
        assert etree.tostring(etree.fromstring(result), method="c14n") == _moved(data, moves), path
        assert len(parse_domain(result).nics) == len(nics)
    print(f"\n{len(domains)} domains, {moved} with NICs to move")
    assert len(domains) > 2000
    assert moved > 20


def _sources(root: etree._Element) -> list[etree._Element]:
    found = root.findall("./devices/interface[@type='network']/source[@network]")
    return found if root.tag == "domain" else []


def _moved(data: bytes, moves: dict[str, str]) -> bytes:
    """The same change by another parser, in canonical form."""
    root = etree.fromstring(data)
    for source in _sources(root):
        source.set("network", moves[source.get("network", "")])
    return etree.tostring(root, method="c14n")
