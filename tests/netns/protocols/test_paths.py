"""What tools show of the way: hops, and that nobody is at home."""

from __future__ import annotations

import socket

import pytest

from tests.netns.lab import FAR
from tests.netns.wire import check_refusal
from tests.sandbox import Namespace

from .field import Field
from .table import GUEST_HOST, GUESTS, HOST_GUEST, OUT, shows

CLOSED = 9


@shows("ping", HOST_GUEST, GUEST_HOST, GUESTS, OUT)
def test_ping(field: Field) -> bool:
    """Up to the largest; the answers come from where they were asked for."""
    for begins, _, address, _ in field.ways.values():
        for size in (0, 56, 1472, 1473, 65507):
            told = begins.run(["ping", "-n", "-Mdont", "-c1", f"-s{size}", address]).stdout
            assert f" from {address}: icmp_seq=1" in told
    return True


@shows("refused ports", HOST_GUEST, GUEST_HOST, GUESTS, OUT)
def test_refused_ports(field: Field) -> bool:
    """By ICMP for UDP, at once."""
    for begins, _, address, _ in field.ways.values():
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            check_refusal(begins, kind, (address, CLOSED))
    return True


def hops(namespace: Namespace, address: str, *options: str) -> list[str]:
    """As traceroute prints them: an address, or ``*``."""
    argv = ["busybox", "traceroute", "-n", "-q1", "-w2", "-m5", *options, address]
    lines = namespace.run(argv).stdout.splitlines()[1:]
    return [line.split()[1] for line in lines]


@pytest.mark.parametrize("options", [(), ("-I",)], ids=["udp", "icmp"])
@shows("traceroute, UDP and ICMP", HOST_GUEST, GUEST_HOST, GUESTS, OUT)
def test_traceroute(field: Field, options: tuple[str, ...]) -> bool:
    one, two = field.one, field.two
    assert hops(field.host, one.loop, *options) == [one.loop]
    assert hops(one.namespace, one.gateway, *options) == [one.gateway]
    assert hops(one.namespace, two.address, *options) == [two.address]
    expected = [one.gateway, field.lab.router_address, FAR]
    assert hops(one.namespace, FAR, *options) == expected
    return True
