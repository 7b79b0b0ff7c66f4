"""What is read of ip's lines, to what ip's own JSON says of the same namespace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from libvirt_loopnet.host.kernel import iproute
from libvirt_loopnet.planning.state import ROUTE_PROTOCOL, Address, Route
from tests.sandbox import Namespace

from .lab import Lab, bound_over

ODD = """\
ip link set lo up
ip link add br0 type bridge
ip link add one type veth peer name two
for link in br0 one two; do ip link set $link up; done
ip address add 127.3.0.1/8 brd + label lo:x dev lo
ip address add 10.1.1.1 peer 10.1.1.2/30 dev lo noprefixroute
ip address add 127.1.0.254/24 brd + dev br0 scope global
ip address add 10.127.1.1/24 dev br0 noprefixroute
ip address add 10.2.2.2/32 dev two
ip address add 10.3.3.3/24 dev one metric 77 valid_lft 1000 preferred_lft 100
ip route add 127.1.0.0/24 dev br0 table local proto 127 scope link src 127.1.0.254
ip route add local 127.0.0.0/8 dev lo table local proto 127 scope host src 127.0.0.1 metric 127
ip route add 10.66.0.0/16 via 10.127.1.8 dev br0 onlink table local
ip route add anycast 10.69.0.1 dev br0 table local
ip route add throw 10.67.0.0/16 table local
ip route add prohibit 10.68.0.0/16 table local
ip route add blackhole 10.77.0.0/16 table local
ip route add unreachable default table local
ip route add default table local metric 9 \\
    nexthop via 10.127.1.9 dev br0 onlink weight 1 nexthop via 10.127.1.8 dev br0 onlink weight 2
"""

CHECKOUT = Path(__file__).resolve().parents[2]
LOOK = """\
import sys; sys.path.insert(0, sys.argv[1])
from libvirt_loopnet.errors import HostError
from libvirt_loopnet.host.kernel import iproute
try:
    print("no error:", iproute.look())
except HostError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        made.host.sh("ip netns add odd")
        made.namespace("odd").sh(ODD)
        yield made


@pytest.fixture
def odd(lab: Lab) -> Namespace:
    return lab.namespace("odd")


def answer(namespace: Namespace, *question: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(namespace.run(["ip", "-4", "-j", *question]).stdout)
    return found


def test_addresses(odd: Namespace) -> None:
    told = {
        (link["ifname"], info["local"], info["prefixlen"], info.get("noprefixroute", False))
        for link in answer(odd, "address")
        for info in link["addr_info"]
    }
    seen = odd.call(iproute.look)
    assert seen.addresses == {
        Address(dev, IPv4Address(address), *rest) for dev, address, *rest in told if dev != "lo"
    }
    assert [str(entry.address) for entry in seen.lo] == ["127.0.0.1", "10.1.1.1", "127.3.0.1"]
    assert len(told) == len(seen.addresses) + len(seen.lo) == 7


def test_lo_with_all_that_brings_it_back(odd: Namespace) -> None:
    before = odd.call(iproute.look).lo
    assert before[2].attributes.startswith("scope host brd 127.255.255.255 label lo:x")
    last = f"{before[2].address}/{before[2].length} dev lo"
    odd.sh(f"ip address delete {last}; ip address add {last} {before[2].attributes}")
    assert odd.call(iproute.look).lo == before


def test_routes(odd: Namespace) -> None:
    told = [entry for entry in answer(odd, "route", "show", "table", "local") if "dev" in entry]
    assert odd.call(iproute.look).routes == {
        Route(
            entry.get("type", "unicast"),
            IPv4Network(entry["dst"]),
            entry["dev"],
            IPv4Address(entry["prefsrc"]) if "prefsrc" in entry else None,
            entry.get("protocol") == str(ROUTE_PROTOCOL),
            entry.get("metric", 0),
        )
        for entry in told
    }
    assert len(told) > 12  # the kernel makes some of them


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo '1: lo inet nonsense'", "makes no sense"),
        ("echo 'local 127.0.0.1 dev lo metric much'", "makes no sense"),
        ("echo '1:'", "makes no sense"),
        ("echo 'Cannot open netlink socket' >&2; exit 1", "Cannot open netlink socket"),
    ],
)
def test_nonsense_is_an_error_of_one_line(lab: Lab, script: str, says: str) -> None:
    with bound_over(lab, "/usr/sbin/ip", f"#!/bin/sh\n{script}\n"):
        raised = lab.host.python(LOOK, str(CHECKOUT))
    assert says in raised
    assert raised.count("\n") == 1
