"""Networks of other sizes, with other numbers for gateway and host; /9 is half of 127/8."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from libvirt_loopnet.networks.parsing import parse_network
from tests.sandbox import INTERNET

from .lab import Lab, LabNetwork
from .looking import assert_same, look
from .wire import LeakWatch, Servers, ask_tcp, ask_udp, check_refusal


class Shape(NamedTuple):
    """``second`` is the second number of the loop prefix."""

    second: int
    length: int
    guest_prefix: str
    gateway: int
    host: int


SHAPES = [
    Shape(5, 29, "192.168.3.8/29", 6, 1),
    Shape(16, 12, "172.16.0.0/12", 65536, 7),
    Shape(128, 9, "10.0.0.0/9", 1, 2),  # the LAN is inside
]


@pytest.fixture(scope="module", params=["mapped", "native"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab(request.param, bridge_nf=True, ip_rule=True, rp_filter=True) as made:
        made.start(made.network(9))  # for what stays for good, see test_restore.py
        made.stop(made.network(9))
        yield made


def network_of(lab: Lab, shape: Shape) -> LabNetwork:
    plain = lab.network(shape.second, guest_prefix=shape.guest_prefix, length=shape.length)
    model = plain.model
    host = f"address='{model.loop_address(shape.host)}'"
    xml = plain.xml.replace(f"address='{model.loop_address(model.host)}'", host)
    xml = xml.replace("gateway='1'", f"gateway='{shape.gateway}'")
    for option, numbers in (("router", (1, shape.gateway)), ("dns-server", (model.host, shape.host))):
        address = model.guest_address if option == "router" else model.transit_address
        old, new = (f"option:{option},{address(number)}" for number in numbers)
        xml = xml.replace(old, new)
    changed = parse_network(xml.encode())
    assert changed is not None
    return LabNetwork(changed, xml)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.second}-{shape.length}")
def test_other_shapes(lab: Lab, shape: Shape) -> None:
    before = look(lab)
    network = network_of(lab, shape)
    host = str(network.model.loop_address(shape.host))
    with Servers() as servers, LeakWatch(lab.lan, "lan0") as leaks:
        lab.start(network)
        one, two = lab.guest(network), lab.guest(network)
        for namespace in (lab.host, one.namespace, two.namespace):
            servers.both(namespace, ("0.0.0.0", 7000))
        for ask in (ask_tcp, ask_udp):
            seen = ask(lab.host, (one.loop, 7000))
            assert seen == (host, str(network.model.guest_address(shape.host)))
            assert ask(one.namespace, (one.gateway, 7000)) == (one.address, one.transit)
            assert ask(one.namespace, (two.address, 7000))[1] == one.address
        assert ask_udp(two.namespace, (INTERNET, 7))[1] == lab.host_address
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            check_refusal(lab.host, kind, (two.loop, 9))
            check_refusal(two.namespace, kind, (two.gateway, 9))
        assert ask_tcp(lab.host, ("127.0.0.1", 7000)) == ("127.0.0.1", "127.0.0.1")
        for guest in (one, two):
            lab.destroy(guest)
        lab.stop(network)
        assert leaks.take() == []
    assert_same(before, look(lab))
