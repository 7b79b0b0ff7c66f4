"""Which NICs that nobody told of are let in: a race that no guest can win."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from libvirt_loopnet.addresses.behind import is_behind, live_behind
from libvirt_loopnet.host.kernel import stations as kernel
from libvirt_loopnet.model import Options, Port, Reservation
from libvirt_loopnet.planning.state import Tap, desire
from libvirt_loopnet.planning.untold import FEW, Owner, Scene, Stranger, few, judge
from tests.unit.test_plan import network

OWN, BY_HAND, OTHER = "52:54:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03"
UUID = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"
KEPT = Reservation(5, BY_HAND, "", "")
GUEST = Owner(OWN, "vm1", UUID, False)
EMPTY = Scene("net", (), (), frozenset(), frozenset(), {}, {}, ())


def test_by_hand_at_the_first_device_that_is_nobodys() -> None:
    scene = EMPTY._replace(reservations=[KEPT], stations=[(BY_HAND, "veth1"), (BY_HAND, "veth2")])
    welcome, strangers = judge(scene)
    assert [(nic.mac, nic.tap, nic.owner_uuid) for nic in welcome] == [(BY_HAND, "veth1", "")]
    assert strangers == ()


def test_not_reserved() -> None:
    welcome, strangers = judge(EMPTY._replace(stations=[(BY_HAND, "veth1")]))
    assert welcome == ()
    assert strangers == (
        Stranger("net", BY_HAND, "veth1", "no address is reserved for it", can_reserve=True),
    )


def test_never_at_a_device_of_a_guest() -> None:
    """Although it was heard there first, and nowhere else."""
    scene = EMPTY._replace(
        reservations=[KEPT], owners={"vnet0": GUEST._replace(is_network=True)}, stations=[(BY_HAND, "vnet0")]
    )
    welcome, (stranger,) = judge(scene)
    assert welcome == ()
    assert (stranger.behind, stranger.can_reserve) == ("vm1", False)
    assert "guest vm1's" in stranger.why
    unreserved = judge(scene._replace(reservations=[]))
    assert unreserved.strangers[0].can_reserve


def test_never_at_a_device_that_carries_another() -> None:
    scene = EMPTY._replace(reservations=[KEPT], taps={"vnet0": OWN}, stations=[(BY_HAND, "vnet0")])
    assert judge(scene).welcome == ()
    both = [KEPT, Reservation(6, OTHER, "", "")]
    welcome, (stranger,) = judge(
        EMPTY._replace(reservations=both, stations=[(OTHER, "veth1"), (BY_HAND, "veth1")])
    )
    assert [nic.mac for nic in welcome] == [BY_HAND]
    assert (stranger.mac, stranger.why) == (OTHER, f"veth1 is only for {BY_HAND}")


def test_reserved_for_a_guest_that_does_not_run() -> None:
    kept = Reservation(5, BY_HAND, UUID, "vm1")
    welcome, (stranger,) = judge(EMPTY._replace(reservations=[kept], stations=[(BY_HAND, "veth1")]))
    assert welcome == ()
    assert "guest vm1" in stranger.why


def test_what_is_live_is_no_news() -> None:
    live = Port("net", BY_HAND, "vm1", UUID, "1")
    scene = EMPTY._replace(reservations=[KEPT], stations=[(BY_HAND, "veth1"), (OTHER, "vnet0")])
    assert judge(scene._replace(live=[live], let_in={OTHER})) == ((), ())


def test_libvirts_own_needs_no_reservation() -> None:
    """<interface type='bridge'>, hot-plugged: no hook tells of it."""
    welcome, strangers = judge(EMPTY._replace(owners={"vnet0": GUEST}, stations=[(OWN, "vnet0")]))
    assert welcome == (Port("net", OWN, "vm1", UUID, tap="vnet0"),)
    assert strangers == ()


@pytest.mark.parametrize(
    "holder", [Port("net", OWN, "vm2", "x", "1"), Port("net", OWN, OWN, "", tap="veth9")]
)
def test_a_second_device_with_a_mac_is_refused_and_named(holder: Port) -> None:
    scene = EMPTY._replace(live=[holder], owners={"vnet0": GUEST}, stations=[(OWN, "vnet0")])
    welcome, (stranger,) = judge(scene)
    assert welcome == ()
    assert (stranger.mac, stranger.device) == (OWN, "vnet0")
    assert (holder.tap or "vm2") in stranger.why


def test_a_tap_that_lost_its_network_is_for_others_to_mend() -> None:
    owner = GUEST._replace(is_network=True)
    assert judge(EMPTY._replace(owners={"vnet0": owner}, stations=[(OWN, "vnet0")])) == ((), ())


def test_what_our_rules_drop_is_told_of_and_never_let_in() -> None:
    live = [Port("net", OWN, "vm1", UUID, "1"), Port("net", BY_HAND, BY_HAND, "", tap="veth1")]
    scene = EMPTY._replace(
        live=live, bound={(OWN, "vnet0"), (BY_HAND, "veth1")}, taps={"vnet0": OWN, "veth1": BY_HAND},
        refused=[(BY_HAND, "veth1"), (BY_HAND, "veth2"), (OTHER, "vnet0")],
    )  # fmt: skip
    welcome, (second, behind) = judge(scene)
    assert welcome == ()
    assert (second.mac, second.device, second.why) == (
        BY_HAND,
        "veth2",
        "the NIC at veth1 has this MAC address already",
    )
    assert (behind.mac, behind.device, behind.behind, behind.can_reserve) == (OTHER, "vnet0", "vm1", True)


def test_a_guest_fills_no_screens() -> None:
    many = [(f"02:00:00:00:01:{n:02x}", "vnet0") for n in range(20)]
    strangers = judge(EMPTY._replace(refused=[*many, (OTHER, "veth1")], taps={"vnet0": OWN})).strangers
    assert len(strangers) == 21
    shown = few(strangers)
    assert [each.device for each in shown] == ["veth1", *["vnet0"] * FEW]
    assert shown[-1].why == f"vnet0 is only for {OWN}; 12 more MAC addresses were heard there"
    assert few(shown) == shown


# --- behind a guest --------------------------------------------------------------------------------


def test_behind_a_guest_is_let_in_with_it_at_its_tap_alone() -> None:
    own = Reservation(2, OWN, UUID, "vm1")
    behind = Reservation(7, BY_HAND, UUID, "")
    assert [is_behind(each) for each in (own, behind, KEPT)] == [False, True, False]
    net = network(1)
    port = Port(net.name, OWN, "vm1", UUID, "1")
    assert live_behind([own, behind], [port]) == [behind]
    assert live_behind([own, behind], [port._replace(owner_uuid="another")]) == []
    taps = [Tap("vnet0", net.bridge, "", "fe" + OWN[2:]), Tap("veth1", net.bridge, "", "02:00:00:00:00:99")]
    state = desire([net], {net.name: [own, behind]}, [port], taps, Options())
    assert [guest.mac for guest in state.guests] == [BY_HAND, OWN]
    assert [(each.tap, each.mac, each.number) for each in state.bindings] == [
        ("vnet0", BY_HAND, 7),
        ("vnet0", OWN, 2),
    ]
    assert desire([net], {net.name: [own, behind]}, [], taps, Options()).guests == ()


def test_a_nic_without_a_port_is_bound_by_its_device() -> None:
    net = network(1)
    port = Port(net.name, BY_HAND, BY_HAND, "", tap="veth1")
    taps = [
        Tap("veth1", net.bridge, "", "02:00:00:00:00:99"),
        Tap("veth2", net.bridge, "", "fe" + BY_HAND[2:]),
    ]
    state = desire([net], {net.name: [KEPT]}, [port], taps, Options())
    assert [(each.tap, each.mac) for each in state.bindings] == [("veth1", BY_HAND)]


def test_a_clones_tap_is_not_bound_beside_that_of_whom_it_is_a_clone_of() -> None:
    """It was hot-plugged into the bridge itself, so that no hook could refuse it."""
    net = network(1)
    own, port = Reservation(2, OWN, UUID, "vm1"), Port(net.name, OWN, "vm1", UUID, "1")
    first, clone = (Tap(f"vnet{n}", net.bridge, "", "fe" + OWN[2:]) for n in (0, 1))

    def bound(*taps: Tap) -> list[str]:
        return [each.tap for each in desire([net], {net.name: [own]}, [port], taps, Options()).bindings]

    assert bound(first) == ["vnet0"]
    named = first._replace(alias=f"vm1 {net.loop_address(2)}")
    assert bound(named, clone) == ["vnet0"]
    assert bound(clone, named) == ["vnet0"]


# --- what the bridge has learned --------------------------------------------------------------------


def test_stations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "SYSFS_NET", str(tmp_path))
    assert kernel.stations("virbr1") == []
    (tmp_path / "virbr1/brif/veth1").mkdir(parents=True)
    (tmp_path / "veth1/brport").mkdir(parents=True)
    (tmp_path / "veth1/brport/port_no").write_text("0x102\n")

    def entry(mac: str, low: int, high: int, is_local: int) -> bytes:
        return struct.pack("=6sBBIBBH", bytes.fromhex(mac.replace(":", "")), low, is_local, 7, high, 0, 0)

    entries = [entry(OWN, 2, 1, 0), entry(OWN, 2, 1, 0), entry(OTHER, 2, 1, 1), entry(BY_HAND, 3, 0, 0)]
    (tmp_path / "virbr1/brforward").write_bytes(b"".join(entries) + b"cut short")
    assert kernel.stations("virbr1") == [(OWN, "veth1")]
