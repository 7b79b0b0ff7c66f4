"""Bridges as libvirt or an administrator may have them set up."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import pytest

from tests.netns.wire import ask_tcp, ask_udp
from tests.sandbox import CommandError

from .field import PORT, Field
from .table import GUEST_HOST, GUESTS, HOST_GUEST, OUT, shows


def all_reach_all(field: Field) -> bool:
    """With nothing known of each other."""
    data = random.Random(6).randbytes(100_000)
    for begins, answers, _, _ in field.ways.values():
        for namespace in (begins, answers):
            namespace.run(["ip", "neighbour", "flush", "all"])
    for begins, _, address, seen in field.ways.values():
        assert ask_tcp(begins, (address, PORT), data)[1] == seen
        assert ask_udp(begins, (address, PORT), data[:5000])[1] == seen
    return True


@contextlib.contextmanager
def vlan_aware(field: Field) -> Iterator[None]:
    kind = f"ip link set {field.bridge} type bridge vlan_filtering"
    try:
        field.host.sh(f"{kind} 1")
    except CommandError as error:
        if "Operation not supported" not in error.output:
            raise
        pytest.skip("this kernel has no VLAN filtering (CONFIG_BRIDGE_VLAN_FILTERING)")
    try:
        yield
    finally:
        field.host.sh(f"{kind} 0")


@pytest.mark.parametrize("number", [1, 10])
@shows("VLAN-aware bridge", HOST_GUEST, GUEST_HOST, GUESTS, OUT)
def test_vlan_aware_bridge(field: Field, number: int) -> bool:
    """Host and guests in the VLAN in which they are to begin with, and in another."""
    ports = [(field.bridge, "self"), (field.one.tap, "master"), (field.two.tap, "master")]

    def move(old: int, new: int) -> None:
        for port, whose in ports:
            field.host.sh(
                f"bridge vlan del dev {port} vid {old} {whose}\n"
                f"bridge vlan add dev {port} vid {new} pvid untagged {whose}"
            )

    with vlan_aware(field):
        if number != 1:
            move(1, number)
        try:
            return all_reach_all(field)
        finally:
            if number != 1:
                move(number, 1)


@shows("macTableManager='libvirt'", HOST_GUEST, GUEST_HOST, GUESTS, OUT)
def test_static_mac_table(field: Field) -> bool:
    """What libvirt does then (virNetDevBridge…): ports neither learn nor are flooded, and have static entries."""
    guests = (field.one, field.two)
    for guest in guests:
        field.host.sh(
            f"bridge link set dev {guest.tap} learning off flood off\n"
            f"bridge fdb flush dev {guest.tap} 2>/dev/null || true\n"
            f"bridge fdb replace {guest.mac} dev {guest.tap} master static"
        )
    try:
        return all_reach_all(field)
    finally:
        for guest in guests:
            field.host.sh(
                f"bridge fdb del {guest.mac} dev {guest.tap} master\n"
                f"bridge link set dev {guest.tap} learning on flood on"
            )
