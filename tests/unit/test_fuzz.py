"""A few thousand mutated inputs; `make fuzz` has a hundred thousand, and whole hooks."""

from __future__ import annotations

from pathlib import Path

import pytest

from libvirt_loopnet.log import warn
from libvirt_loopnet.model import Options, Port, Reservation
from libvirt_loopnet.networks.parsing import parse_hook
from libvirt_loopnet.planning.state import Tap, desire
from tests.fuzz import __main__ as fuzz
from tests.fuzz import runner
from tests.fuzz.runner import Plan, make, replay, run
from tests.fuzz.seeds import Seeds, load
from tests.fuzz.targets import TARGETS, Target

INPUTS = 3000
SEED = "make check"  # the same inputs each time: a new fault is one of the last change


@pytest.fixture(scope="module")
def seeds() -> Seeds:
    return load()


def plan(*targets: Target, inputs: int = 20) -> Plan:
    return Plan(SEED, inputs, 60.0, targets or TARGETS)


def test_nothing_fails(seeds: Seeds) -> None:
    report = run(plan(inputs=INPUTS), seeds)
    assert report.failures == []
    assert report.done == INPUTS
    for name, (count, accepted) in report.accepted.items():
        assert count > INPUTS / 30, name
        assert accepted > 0, f"all that {name} was given is refused: its inputs are useless"


def test_the_same_seed_makes_the_same_inputs(seeds: Seeds) -> None:
    assert [make(plan(), seeds, index) for index in range(50)] == [make(plan(), seeds, i) for i in range(50)]
    other = Plan("other", 50, 60.0, TARGETS)
    assert [make(plan(), seeds, index) for index in range(50)] != [make(other, seeds, i) for i in range(50)]


def raises(data: bytes) -> bool:
    raise KeyError(data)


def loops(_data: bytes) -> bool:
    while True:
        pass


def eats(_data: bytes) -> bool:
    return bool([bytes(1 << 20) for _ in range(1 << 12)])


def dies(_data: bytes) -> bool:
    import os

    os._exit(3)


@pytest.mark.parametrize(
    ("check", "why"),
    [(raises, "KeyError"), (loops, "more than 0.2 s"), (eats, "MemoryError"), (dies, "the process died")],
)
def test_a_fault_is_found(seeds: Seeds, check: object, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SECONDS", 0.2)
    assert callable(check)
    target = TARGETS[0]._replace(check=check)
    report = run(plan(target, inputs=2), seeds)
    (failure,) = report.failures
    assert why in failure.why
    assert failure.data == make(plan(target), seeds, failure.number)[1]
    again = replay(target, failure.data)
    assert again
    assert why in again.why


def test_a_failing_input_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = (TARGETS[0]._replace(check=raises),)
    monkeypatch.setattr(fuzz, "TARGETS", broken)
    monkeypatch.setattr(fuzz, "KEPT", tmp_path)
    monkeypatch.setattr(fuzz, "CHECKOUT", tmp_path)
    assert fuzz.main(["--inputs", "5", "--seed", "7", "--scripts", "0"]) == 1
    (kept,) = tmp_path.iterdir()
    assert kept.name in capsys.readouterr().out
    assert fuzz.main(["--replay", str(kept)]) == 1
    monkeypatch.setattr(fuzz, "TARGETS", TARGETS)
    assert fuzz.main(["--replay", str(kept)]) == 0


OWN = b"<network><name>n</name><metadata><l:network xmlns:l='https://libvirt-loopnet.org/xml/network/1'%b/></metadata>"
OWN += b"<forward mode='open'/><bridge name='%b'/><ip address='127.1.0.254' prefix='24'/></network>"
HOOK = b"<hookData>" + OWN + b"</hookData>"

FOUND = {
    "a long word in the configuration": ("config", b"9" * 5000),
    "a control character in a network to move to": ("config", b'move = ["a:b\x04"]'),
    "a quote in a device's name": ("network-hook", HOOK % (b"", b'32a"b')),
    "a pattern for a device's name": ("network-hook", HOOK % (b"", b"v*")),
    "a long prefix": ("network-hook", HOOK % (b" guest-prefix='" + b"9" * 5000 + b"/24'", b"virbr1")),
    "a carriage return in an option": (
        "rewrite",
        b"<network><name>n</name><forward/><bridge name='virbr1'/><ip address='192.168.122.1' prefix='24'>"
        b"<dhcp><bootp file='&#13;'/></dhcp></ip></network>",
    ),
    "line breaks in a device's name": (
        "rewrite",
        b"<network><name>n</name><forward dev='a&#10;b'/><ip address='192.168.122.1' prefix='24'/></network>",
    ),
    "a line break in a long name": ("file-name", b"a\n" + b"9" * 300),
}


@pytest.mark.parametrize("what", FOUND)
def test_what_was_found_once(what: str) -> None:
    name, data = FOUND[what]
    (target,) = (target for target in TARGETS if target.name == name)
    target.check(data)


def test_a_name_that_is_no_utf8_can_be_logged() -> None:
    warn("a test: \udcff")


def test_a_tap_that_nft_cannot_name_stays_unbound() -> None:
    """Else one hot-plugged NIC would make nft refuse the rules of all."""
    network = parse_hook(HOOK % (b"", b"virbr1")).network
    assert network
    kept = [Reservation(5, "52:54:00:00:00:05", "", "a"), Reservation(6, "52:54:00:00:00:06", "", "b")]
    ports = [Port("n", each.mac, each.name, "") for each in kept]
    taps = [Tap('a"*', "virbr1", "a 127.1.0.5", ""), Tap("vnet0", "virbr1", "b 127.1.0.6", "")]
    state = desire([network], {"n": kept}, ports, taps, Options())
    assert [binding.tap for binding in state.bindings] == ["vnet0"]
