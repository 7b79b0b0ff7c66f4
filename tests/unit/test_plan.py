"""Plans, run on a host that only keeps books: from any state to any other, and back exactly."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libvirt_loopnet.addresses.labels import alias
from libvirt_loopnet.model import MAPPED, NATIVE, Network, Options, Port, Reservation
from libvirt_loopnet.planning.plan import NFT, Step, plan
from libvirt_loopnet.planning.state import Address, HostState, LoAddress, Tap, desire
from libvirt_loopnet.ruleset.phrases import FEW
from libvirt_loopnet.ruleset.tables import make_tables
from tests.unit.fakehost import FakeHost


def network(number: int, mode: str = MAPPED, guest_prefix: str = "10.127.1.0/24") -> Network:
    loop = IPv4Network(f"127.{number}.0.0/24")
    return Network(
        name=f"net{number}",
        uuid="",
        bridge=f"virbr{number}",
        bridge_mac=f"52:54:00:00:00:{number:02x}",
        mode=mode,
        loop_prefix=loop,
        guest_prefix=loop if mode == NATIVE else IPv4Network(guest_prefix),
        gateway=1,
        host=254,
        domain=f"net{number}",
    )


NETWORKS = [network(1), network(2), network(3, NATIVE)]


def state(networks: Sequence[Network], options: Options = Options()) -> HostState:  # noqa: B008
    mac = "52:54:00:00:01:05"
    reservations = {n.name: (Reservation(5, mac, "", "vm1"),) for n in networks}
    ports = [Port(n.name, mac, "vm1", "") for n in networks]
    return desire(networks, reservations, ports, [], options)


def bring(host: FakeHost, networks: Sequence[Network], options: Options = Options()) -> None:  # noqa: B008
    """libvirt makes or removes the bridges, then the host is brought to its desired state."""
    bridges = {n.bridge for n in networks}
    for entry in [a for a in host.addresses if a.dev.startswith("virbr") and a.dev not in bridges]:
        host.addresses.discard(entry)
    host.routes = {r for r in host.routes if not r.dev.startswith("virbr") or r.dev in bridges}
    host.localnet &= bridges
    for n in networks:
        if not any(a.dev == n.bridge for a in host.addresses):
            host.run([])
            host._ip(["address", "add", f"{n.loop_address(n.host)}/24", "dev", n.bridge])
    converge(host, state(networks, options))


def converge(host: FakeHost, desired: HostState) -> None:
    host.run(steps(host, desired))
    assert steps(host, desired) == []


def steps(host: FakeHost, desired: HostState) -> list[Step]:
    tables = make_tables(desired.networks, desired.guests, desired.bindings, (), desired.reserved)
    return plan(host.observe((), ruleset=True), desired, tables)


subsets = st.lists(st.sampled_from(NETWORKS), unique=True)


@given(st.lists(st.tuples(subsets, st.sampled_from(["shrink", "keep"]))))
def test_any_walk_ends_where_it_began(walk: list[tuple[list[Network], str]]) -> None:
    host = FakeHost()
    before = str(host)
    for networks, lo in walk:
        bring(host, networks, Options(lo=lo))
    bring(host, [])
    assert str(host) == before
    assert host.ruleset == ""
    assert host.hosts == ()


@given(
    st.lists(
        st.sampled_from(
            [
                LoAddress(IPv4Address("127.0.0.53"), 8),
                LoAddress(IPv4Address("127.5.5.5"), 8, "scope host label lo:1"),
                LoAddress(IPv4Address("127.9.9.9"), 32),
                LoAddress(IPv4Address("10.9.9.9"), 32, "scope global"),
            ]
        ),
        unique=True,
    )
)
def test_los_other_addresses_come_back_in_order(others: list[LoAddress]) -> None:
    host = FakeHost()
    host.lo += others
    bring(host, NETWORKS[:1])
    assert {e.address for e in host.lo} == {IPv4Address("127.0.0.1"), *(e.address for e in others)}
    bring(host, [])
    in_loopback = [e for e in others if e.address in IPv4Network("127.0.0.0/8")]
    found = [e for e in host.lo if e.address in IPv4Network("127.0.0.0/8")]
    assert found == [LoAddress(IPv4Address("127.0.0.1"), 8), *in_loopback]


@given(st.data())
def test_any_loss_is_mended(data: st.DataObject) -> None:
    host, desired = FakeHost(), state(NETWORKS)
    bring(host, NETWORKS)
    whole = str(host)
    ours = {r for r in host.routes if r.ours}
    host.routes -= data.draw(st.sets(st.sampled_from(sorted(ours, key=str))))
    host.localnet -= data.draw(st.sets(st.sampled_from(sorted(host.localnet))))
    if data.draw(st.booleans()):
        host.ruleset = ""
    if data.draw(st.booleans()):
        host.lo.append(LoAddress(IPv4Address("127.0.0.1"), 8))
    for lost in data.draw(st.sets(st.sampled_from(desired.addresses))):
        host._ip(["address", "del", f"{lost.address}/{lost.length}", "dev", lost.dev])
    if host.ruleset:
        converge(host, desired)
    else:
        host.localnet.clear()
        converge(host, desired)
    assert str(host) == whole


def test_an_administrators_own_lo_is_left_alone() -> None:
    host = FakeHost()
    host.lo = [LoAddress(IPv4Address("127.0.0.1"), 16)]
    bring(host, NETWORKS[:1])
    bring(host, NETWORKS[:2])
    bring(host, [])
    assert not any("address" in line and " dev lo" in line for line in host.history)
    assert not host.routes


def test_a_lo_that_went_down_and_up_is_ours_all_the_same() -> None:
    host = FakeHost()
    bring(host, NETWORKS)
    host.routes = {route for route in host.routes if route.dev != "lo"}
    bring(host, NETWORKS)
    bring(host, [])
    assert host.lo == [LoAddress(IPv4Address("127.0.0.1"), 8)]


def test_keep_leaves_lo_alone() -> None:
    host = FakeHost()
    bring(host, NETWORKS, Options(lo="keep"))
    assert not any(" dev lo" in line for line in host.history)


def test_the_fallback_route_is_added_before_anything_on_lo_goes() -> None:
    host = FakeHost()
    bring(host, NETWORKS[:1])
    lo = [line for line in host.history if " dev lo" in line]
    assert lo[0].startswith("route add local 127.0.0.0/8")
    assert lo[1].startswith("address add 127.0.0.1/16")
    bring(host, [])
    assert host.history[-1].startswith("route del local 127.0.0.0/8")


def test_only_mapped_networks_have_an_address_for_dhcp_and_hide_its_routes() -> None:
    """The guest prefix is on the bridge for dnsmasq alone, and must not be the host's to route."""
    for each in NETWORKS:
        desired = state([each])
        inside = {entry.address for entry in desired.addresses if entry.address in each.guest_prefix}
        hidden = {(route.kind, str(route.prefix)) for route in desired.hidden_routes}
        if each.mode == NATIVE:
            assert inside == {each.loop_address(each.host)}
            assert hidden == set()
        else:
            assert inside == {each.guest_address(each.gateway)}
            assert hidden == {("local", "10.127.1.1/32"), ("broadcast", "10.127.1.255/32")}


def test_hidden_routes_that_the_kernel_made_again_go_again() -> None:
    """A bridge went down and up: its addresses are still there, and their routes came back."""
    host, mapped = FakeHost(), NETWORKS[0]
    bring(host, [mapped])
    hidden = set(state([mapped]).hidden_routes)
    assert not hidden & host.routes
    host.routes |= hidden
    bring(host, [mapped])
    assert not hidden & host.routes


def test_a_route_goes_by_its_metric() -> None:
    """Else the kernel would delete ours, which is the first of that prefix (fib_table_delete())."""
    host = FakeHost()
    bring(host, NETWORKS[:1])
    (ours,) = [route for route in host.routes if route.prefix == NETWORKS[0].loop_prefix and route.ours]
    host.routes.add(ours._replace(metric=5))
    (step,) = steps(host, state(NETWORKS[:1]))
    assert step.text.startswith("route del ")
    assert " metric 5 " in step.text


def test_other_devices_are_left_alone() -> None:
    host = FakeHost()
    neighbour = Address("eth0", IPv4Address("10.127.1.1"), 24, noprefixroute=True)
    host.addresses.add(neighbour)
    bring(host, NETWORKS)
    bring(host, [])
    assert host.addresses == {neighbour}
    assert not any("eth0" in line for line in host.history)


def test_unseen_rules_are_replaced_unasked() -> None:
    host, desired = FakeHost(), state(NETWORKS)
    bring(host, NETWORKS)
    assert plan(host.observe(()), desired)[0].tool == NFT


@pytest.mark.parametrize(
    ("tap_alias", "tap_mac", "bound"),
    [
        ("vm1 127.1.0.5", "aa:bb:cc:00:00:01", True),
        ("", "fe:54:00:00:01:05", True),
        ("", "fe:54:00:00:01:06", False),
        ("vm2 127.1.0.6", "aa:bb:cc:00:00:01", False),
        ("somebody else's words", "aa:bb:cc:00:00:01", False),
    ],
)
def test_a_tap_tells_its_guest_by_alias_or_mac(tap_alias: str, tap_mac: str, bound: bool) -> None:
    mac = "52:54:00:00:01:05"
    tap = Tap("vnet0", "virbr1", tap_alias, tap_mac)
    desired = desire(
        [network(1)],
        {"net1": (Reservation(5, mac, "", "vm1"),)},
        [Port("net1", mac, "vm1", "")],
        [tap],
        Options(),
    )
    assert [b.tap for b in desired.bindings] == (["vnet0"] if bound else [])
    assert alias("vm1", network(1), 5) == "vm1 127.1.0.5"


DISPATCH = re.compile(r" vmap | goto \S+-127\.\d+\.0\.0$")
"""To a chain of a network's, by a map or one by one."""


@pytest.mark.parametrize("count", [FEW, FEW + 1])
def test_no_guard_ends_with_a_dispatch(count: int) -> None:
    """For an instant of each replacement an old map is empty: what is not dispatched then is dropped."""
    text = make_tables(NETWORKS[:count], [], [])
    rests = {}
    for name, body in re.findall(r"^\tchain (\S+) \{\n(.*?)^\t\}", text, re.MULTILINE | re.DOTALL):
        rules = [line.strip() for line in body.splitlines()]
        dispatches = [number for number, rule in enumerate(rules) if DISPATCH.search(rule)]
        if dispatches and "-127." not in name:
            rests[name] = rules[dispatches[-1] + 1 :]
    assert ("\t\tiifname vmap {" in text) == (count > FEW)
    # Senders that are not in the map are known by their taps and MAC addresses all the same.
    assert rests.pop("prerouting") == ["iifname @taps goto tap", "ether saddr @macs goto mac"]
    assert rests.pop("tap") == ["goto stranger"]
    assert re.search(r"chain stranger \{\n[^}]*\}\n\t\tdrop\n\t\}", text)
    for rewrites in ("to-guest", "to-all", "arp-to-guest"):
        assert rests.pop(rewrites) == []
    # What is for no guest of ours, or has an address of theirs, is told before; the rest is dropped there.
    assert rests.pop("postrouting")[-1] == "goto to-bridge"
    assert rests == {name: ["drop"] for name in ("mac", "from-guest", "answers", "outwards", "to-bridge")}
