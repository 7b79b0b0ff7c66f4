"""The allocator: lowest free number, same number for good, names that are unique."""

from __future__ import annotations

import time
from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libvirt_loopnet.addresses.pool import Nic, allocate, declare, extend, reduce, reserve
from libvirt_loopnet.errors import ConflictError, InputError, PoolFullError
from libvirt_loopnet.model import ANY_ADDRESS, Network, Publication, Reservation

UUID_A = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"
UUID_B = "4dea22b3-1d52-d8f3-2516-782e98ab3fa1"


def network(length: int = 24, gateway: int = 1, host: int | None = None) -> Network:
    loop = IPv4Network(("127.16.0.0" if length < 16 else "127.1.0.0", length))
    guest = IPv4Network(("10.16.0.0" if length < 16 else "10.127.1.0", length))
    last = loop.num_addresses - 2
    return Network("loopnet", "", "", "", "mapped", loop, guest, gateway, host or last, "loopnet")


def mac(number: int) -> str:
    return f"52:54:00:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"


def test_lowest_free_number_skips_gateway_host_and_reserved() -> None:
    held = [Reservation(2, mac(2), "", ""), Reservation(4, mac(4), "", "")]
    assert allocate(network(), []) == 2
    assert allocate(network(), held) == 3
    assert allocate(network(gateway=3), held) == 1
    assert allocate(network(gateway=3, host=1), held) == 5
    assert allocate(network(gateway=254, host=1), held) == 3


@given(st.integers(24, 29), st.data())
def test_a_pool_gives_each_number_once_until_it_is_full(length: int, data: st.DataObject) -> None:
    last = 2 ** (32 - length) - 2
    gateway, host = data.draw(st.lists(st.integers(1, last), min_size=2, max_size=2, unique=True))
    net = network(length, gateway, host)
    held: list[Reservation] = []
    for index in range(last - 2):
        held, _ = reserve(net, held, mac(index), "", "vm")
    assert [each.number for each in held] == sorted(set(range(1, last + 1)) - {gateway, host})
    assert len({each.name for each in held}) == len(held)
    with pytest.raises(PoolFullError):
        reserve(net, held, mac(last), "", "vm")


def test_a_full_pool_says_so_in_one_line() -> None:
    held = [Reservation(number, mac(number), "", "") for number in range(2, 254)]
    with pytest.raises(PoolFullError) as caught:
        allocate(network(), held)
    assert str(caught.value) == (
        "network loopnet: all 252 addresses of 127.1.0.0/24 are reserved; "
        "free one with: loopnet release GUEST"
    )


names = st.sampled_from(["vm1", "VM1", "vm 1", "vm1-2", "vm1-3", "vm1-2-2", "", "!", "a" * 70])
uuids = st.sampled_from(["", UUID_A, UUID_B])
requests = st.tuples(st.integers(0, 9), uuids, names, st.none() | st.integers(0, 16))


@given(st.lists(requests, max_size=40))
def test_reservations_stay_consistent_whatever_is_asked(
    asked: list[tuple[int, str, str, int | None]],
) -> None:
    net = network(28)
    held: list[Reservation] = []
    for nic, uuid, name, number in asked:
        before = {each.mac: each.number for each in held}
        try:
            held, got = reserve(net, held, mac(nic), uuid, name, number=number)
        except InputError:  # conflicts are among them: nothing has changed
            assert before == {each.mac: each.number for each in held}
            continue
        assert got in held
        assert got.number == (number or before.get(got.mac, got.number))
        before[got.mac] = got.number
        assert {each.mac: each.number for each in held} == before
        assert len({each.number for each in held}) == len(held)
        assert all(each.number in range(2, 14) for each in held)
        labels = [each.name for each in held if each.name]
        assert len(set(labels)) == len(labels)
        assert all(len(label) <= 63 and label[0] != "-" != label[-1] for label in labels)
        assert reserve(net, held, mac(nic), uuid, name) == (held, got)


def test_a_nic_keeps_its_number_and_follows_its_owner() -> None:
    held, first = reserve(network(), [], "52:54:00:AB:00:01", UUID_A, "vm1")
    assert first == Reservation(2, "52:54:00:ab:00:01", UUID_A, "vm1")
    held, second = reserve(network(), held, "52:54:00:ab:00:01", UUID_B.upper(), "Web Server")
    assert held == [second]
    assert second == Reservation(2, "52:54:00:ab:00:01", UUID_B, "web-server")


def test_reserving_by_hand_keeps_the_owner_and_moves_the_number() -> None:
    held, _ = reserve(network(), [], mac(1), UUID_A, "vm1")
    held, moved = reserve(network(), held, mac(1), "", "", number=77)
    assert held == [moved] == [Reservation(77, mac(1), UUID_A, "vm1")]


def test_a_number_that_the_network_gave_up_is_replaced() -> None:
    held = [Reservation(40, mac(1), UUID_A, "vm1"), Reservation(2, mac(2), UUID_B, "vm2")]
    assert reserve(network(28), held, mac(1), UUID_A, "vm1")[1].number == 3
    assert reserve(network(gateway=40), held, mac(1), UUID_A, "vm1")[1].number == 1
    assert reserve(network(), held, mac(1), UUID_A, "vm1")[1].number == 40


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1, "127.1.0.1 is the gateway's"),
        (254, "127.1.0.254 is the host's"),
        (0, "host number 0 is not in 127.1.0.0/24"),
        (255, "give an address from 127.1.0.1 to 127.1.0.254"),
        (-1, "not in 127.1.0.0/24"),
        (2**40, "not in 127.1.0.0/24"),
    ],
)
def test_numbers_guests_cannot_have(number: int, text: str) -> None:
    with pytest.raises(InputError) as caught:
        reserve(network(), [], mac(1), "", "", number=number)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_number_of_another_is_a_conflict() -> None:
    held, _ = reserve(network(), [], mac(1), UUID_A, "vm1", number=5)
    with pytest.raises(ConflictError) as caught:
        reserve(network(), held, mac(2), "", "", number=5)
    assert str(caught.value) == (
        "network loopnet: 127.1.0.5 is reserved for vm1; free it with: loopnet release vm1"
    )
    assert reserve(network(), held, mac(1), UUID_A, "vm1", number=5)[0] == held


@pytest.mark.parametrize("bad", ["", "52:54:00", "52:54:00:00:00:0g", "01:00:5e:00:00:01"])
def test_malformed_mac_addresses(bad: str) -> None:
    with pytest.raises(InputError):
        reserve(network(), [], bad, "", "")


def test_further_nics_of_a_domain_get_the_number_in_their_name() -> None:
    held, first = reserve(network(), [], mac(1), UUID_A, "vm1")
    held, second = reserve(network(), held, mac(2), UUID_A, "vm1")
    assert (first.name, second.name) == ("vm1", "vm1-3")
    again, same = reserve(network(), held, mac(1), UUID_A, "vm1")
    assert (again, same) == (held, first)


def test_names_that_look_alike() -> None:
    held, exact = reserve(network(), [], mac(1), UUID_A, "vm-1")
    held, alike = reserve(network(), held, mac(2), UUID_B, "VM 1")
    assert (exact.name, alike.name) == ("vm-1", "vm-1-3")


def test_a_domain_made_anew_takes_the_name_of_the_old() -> None:
    held, _ = reserve(network(), [], mac(1), UUID_A, "vm1")
    held, new = reserve(network(), held, mac(2), UUID_B, "vm1")
    assert new.name == "vm1"
    assert [each.name for each in held] == ["vm1-2", "vm1"]


def test_a_numbered_name_that_is_a_domains_own() -> None:
    held, _ = reserve(network(), [], mac(1), UUID_B, "vm1-3")
    held, _ = reserve(network(), held, mac(2), UUID_A, "vm1", number=9)
    held, second = reserve(network(), held, mac(3), UUID_A, "vm1")
    assert second == Reservation(3, mac(3), UUID_A, "vm1-3-3")


def test_a_name_without_letters_or_digits_is_none() -> None:
    assert reserve(network(), [], mac(1), UUID_A, "***")[1].name == ""


def test_time_grows_with_the_reservations_not_with_their_square() -> None:
    net = network(12)
    held = [Reservation(number, f"{number:012x}", "", "") for number in range(2, 200_000)]
    began = time.process_time()
    assert reserve(net, held, mac(1), UUID_A, "vm1")[1].number == 200_000
    assert time.process_time() - began < 10


def test_the_largest_pool_is_full_at_some_time() -> None:
    held = [Reservation(number, "", "", "") for number in range(2, 2**20 - 2)]
    with pytest.raises(PoolFullError, match=r"all 1048572 addresses of 127\.16\.0\.0/12 "):
        allocate(network(12), held)


# --- what a definition's <host> entries ask for


def held(*numbers: int) -> list[Reservation]:
    return [Reservation(number, mac(number), "", f"vm{number}") for number in numbers]


def test_declared_numbers_are_exchanged_and_names_kept() -> None:
    hosts = [
        Reservation(3, mac(2), "", "other"),
        Reservation(2, mac(3), "", ""),
        Reservation(9, mac(9), "", "new"),
    ]
    after, errors = declare(network(), held(2, 3, 4), hosts, ())
    assert errors == []
    assert after == [
        Reservation(2, mac(3), "", "vm3"),
        Reservation(3, mac(2), "", "vm2"),
        Reservation(4, mac(4), "", "vm4"),
        Reservation(9, mac(9), "", "new"),
    ]
    assert declare(network(), after, hosts, ()) == (after, [])


def test_declared_numbers_of_others_and_of_live_nics_stay() -> None:
    hosts = [Reservation(3, mac(2), "", ""), Reservation(4, mac(5), "", "")]
    after, errors = declare(network(), held(2, 3, 4), hosts, {mac(2)})
    assert after == held(2, 3, 4)
    assert len(errors) == 1
    assert "127.1.0.4 is reserved for vm4" in errors[0]
    after, errors = declare(network(), held(2, 3, 4), hosts, ())
    assert after == held(2, 3, 4)
    assert len(errors) == 2


@given(st.dictionaries(st.integers(2, 8), st.integers(2, 8)), st.sets(st.integers(2, 8)))
def test_declared_hosts_never_break_the_store(wanted: dict[int, int], live: set[int]) -> None:
    hosts = [Reservation(number, mac(index), "", "") for index, number in wanted.items()]
    before = held(*range(2, 7))
    after, errors = declare(network(), before, hosts, {mac(index) for index in live})
    assert len({each.number for each in after}) == len({each.mac for each in after}) == len(after)
    assert {each.mac for each in before} <= {each.mac for each in after}
    assert {each for each in before if int(each.mac[-2:], 16) in live} <= set(after)
    if len(set(wanted.values())) == len(wanted) and not live and not set(wanted.values()) - set(wanted):
        assert errors == []
        assert set(hosts) <= {each._replace(name="") for each in after}


def test_who_moves_keeps_all_else_that_is_its_own() -> None:
    """And nobody moves to what another has beside its first."""
    web = (Publication("tcp", ANY_ADDRESS, 80, 80),)
    before = [held(2)[0]._replace(published=web, also=(20,), shared=(30,)), held(3)[0]._replace(shared=(30,))]
    after, errors = declare(network(), before, [Reservation(9, mac(2), "", "")], ())
    assert (after, errors) == ([before[1], before[0]._replace(number=9)], [])
    for number in (20, 30):
        after, errors = declare(network(), before, [Reservation(number, mac(2), "", "")], ())
        assert after == before
        assert len(errors) == 1
        after, errors = declare(network(), before, [Reservation(number, mac(5), "", "")], ())
        assert after == before
        assert len(errors) == 1


# --- beside the first


def test_one_more_for_one_alone() -> None:
    before = held(2, 3)
    after = extend(network(), before, [Nic(mac(2))], 20, shared=False)
    assert after == [before[0]._replace(also=(20,)), before[1]]
    assert extend(network(), after, [Nic(mac(2))], 20, shared=False) == after
    after = extend(network(), after, [Nic(mac(2))], 10, shared=False)
    assert after[0].also == (10, 20)
    assert after[0].numbers == (2, 10, 20)
    assert allocate(network(), [*after, *held(*range(4, 10))]) == 11
    assert reduce(after, {mac(2), mac(3)}, 20, shared=True) == after
    assert reduce(after, {mac(3)}, 20, shared=False) == after
    assert reduce(after, {mac(2)}, 20, shared=False)[0].also == (10,)


def test_one_that_several_share() -> None:
    before = held(2, 3, 4)
    after = extend(network(), before, [Nic(mac(2)), Nic(mac(3)), Nic(mac(2))], 20, shared=True)
    assert [each.shared for each in after] == [(20,), (20,), ()]
    after = extend(network(), after, [Nic(mac(4)), Nic(mac(2))], 20, shared=True)
    assert [each.shared for each in after] == [(20,), (20,), (20,)]
    assert reduce(after, {mac(2), mac(4)}, 20, shared=True)[1:2] == after[1:2]
    assert reduce(after, {mac(2), mac(3), mac(4)}, 20, shared=True) == before


def test_a_nic_without_a_reservation_gets_one() -> None:
    after = extend(network(), held(2), [Nic(mac(9), UUID_A, "vm9")], 3, shared=False)
    assert after == [*held(2), Reservation(4, mac(9), UUID_A, "vm9", (), (3,))]
    # 2 is all that there is: it can't be both
    with pytest.raises(ConflictError):
        extend(network(29), held(3, 4, 5), [Nic(mac(9))], 2, shared=False)


@pytest.mark.parametrize(
    ("nic", "number", "shared", "says"),
    [
        (2, 2, False, "127.1.0.2 is reserved for vm2; free it with: loopnet release vm2"),
        (3, 2, False, "127.1.0.2 is reserved for vm2; free it with: loopnet release vm2"),
        (3, 2, True, "127.1.0.2 is reserved for vm2; free it with: loopnet release vm2"),
        (3, 20, False, "127.1.0.20 is reserved for vm2, beside its first; free it with: "
         "loopnet release vm2 --also 127.1.0.20"),
        (2, 20, True, "127.1.0.20 is reserved for vm2, beside its first"),
        (2, 30, False, "127.1.0.30 is shared by vm2, vm3; free it with: loopnet release --shared 127.1.0.30"),
        (4, 30, False, "127.1.0.30 is shared by vm2, vm3"),
        (2, 1, False, "gateway's"), (2, 254, True, "host's"), (2, 0, True, "is not in"), (2, 255, True, "is not in"),
        (2, 256, False, "is not in"),
    ],
)  # fmt: skip
def test_numbers_that_can_be_no_further_ones(nic: int, number: int, shared: bool, says: str) -> None:
    two, three, four = held(2, 3, 4)
    before = [two._replace(also=(20,), shared=(30,)), three._replace(shared=(30,)), four]
    with pytest.raises(InputError) as caught:
        extend(network(), before, [Nic(mac(nic))], number, shared=shared)
    assert says in str(caught.value)


def test_what_the_network_gave_up_is_no_further_number_either() -> None:
    kept = held(2)[0]._replace(also=(3, 200), shared=(4, 250))
    assert reserve(network(25, gateway=3), [kept], mac(2), "", "")[1] == kept._replace(also=(), shared=(4,))


def test_what_is_seen_in_use_comes_last() -> None:
    net = network(29)
    asked = []

    def seen() -> set[int]:
        asked.append(1)
        return {2, 4}

    after: list[Reservation] = []
    numbers = []
    for index in range(1, 5):
        after, kept = reserve(net, after, mac(index), "", "", seen=seen)
        numbers.append(kept.number)
    assert numbers == [3, 5, 2, 4]
    assert len(asked) == 4
    reserve(net, after, mac(1), "", "", seen=seen)
    with pytest.raises(ConflictError):
        reserve(net, after, mac(1), "", "", 4, seen)
    assert len(asked) == 4, "only for who has no number and asks for none"
    with pytest.raises(PoolFullError):
        reserve(net, after, mac(9), "", "", seen=seen)
