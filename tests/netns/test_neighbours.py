"""Whom the host knows on a bridge, by IPv4 and IPv6, to what ``ip neighbour`` says of the same namespace."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Callable

import pytest

from libvirt_loopnet.host.kernel.neighbours import neighbours, neighbours6
from tests.sandbox import Namespace

from .lab import Lab

BRIDGES = """\
for bridge in br0 br1; do ip link add $bridge type bridge; ip link set $bridge up; done
ip address add 10.1.1.1/24 dev br0
for where in '10.1.1.2 lladdr 52:54:00:00:00:02 nud stale' '10.1.1.3 lladdr 52:54:00:00:00:03 nud reachable' \
    '10.1.1.4 lladdr 52:54:00:00:00:04 nud permanent' '10.1.1.5 nud failed' '10.1.1.6 nud incomplete' \
    '10.1.1.7 lladdr 52:54:00:00:00:07 nud noarp' \
    'fd00::2 lladdr 52:54:00:00:00:02 nud stale' 'fd00::3 lladdr 52:54:00:00:00:03 nud reachable' \
    'fe80::3 lladdr 52:54:00:00:00:03 nud reachable' 'fd00::4 lladdr 52:54:00:00:00:04 nud delay' \
    'fd00::5 nud failed'; do
    ip neighbour replace $where dev br0
done
ip neighbour replace 10.1.1.8 lladdr 52:54:00:00:00:08 nud reachable dev br1
ip neighbour replace fd00::8 lladdr 52:54:00:00:00:08 nud reachable dev br1
"""
MAC = "52:54:00:00:00:0"


@pytest.fixture(scope="module")
def wire() -> Iterator[Namespace]:
    with Lab() as lab:
        lab.host.sh("ip netns add wire")
        lab.namespace("wire").sh(BRIDGES)
        yield lab.namespace("wire")


@pytest.mark.parametrize(
    ("look", "prefix", "numbers"), [(neighbours, "10.1.1.", [3, 2, 4]), (neighbours6, "fd00::", [3, 2, 4])]
)
def test_those_that_are_known(
    wire: Namespace, look: Callable[[str], list[object]], prefix: str, numbers: list[int]
) -> None:
    """The one that has answered of late comes first."""
    expected = [(f"{MAC}{number}", ip_address(f"{prefix}{number}")) for number in numbers]
    found = wire.call(lambda: look("br0"))
    assert found[0] == expected[0]
    assert sorted(found, key=str) == sorted(expected, key=str)
    assert wire.call(lambda: look("br1")) == [(f"{MAC}8", ip_address(f"{prefix}8"))]


def test_an_unprivileged_user_may_look(wire: Namespace) -> None:
    def look() -> list[object]:
        wire.drop_privileges()
        return [*neighbours("br1"), *neighbours6("br1")]

    assert len(wire.call(look)) == 2


def test_as_many_as_there_are(wire: Namespace) -> None:
    """The kernel's answer takes many datagrams."""
    lines = "".join(
        f"neighbour replace {address} lladdr 52:54:00:00:01:01 nud stale dev br1\n"
        for n in range(700)
        for address in (f"10.2.{n // 250}.{n % 250 + 1}", f"fd00:2::{n + 1:x}")
    )
    wire.run(["ip", "-batch", "-"], input=lines)
    assert len(wire.call(lambda: neighbours("br1"))) == len(wire.call(lambda: neighbours6("br1"))) == 701
