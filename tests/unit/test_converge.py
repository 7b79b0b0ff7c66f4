"""What it takes to look at the host and mend it: hooks wait meanwhile, so nothing is looked at more than it need be."""

from __future__ import annotations

import pytest

from libvirt_loopnet import process
from libvirt_loopnet.converge import apply
from libvirt_loopnet.errors import HostError
from libvirt_loopnet.host import Host, linux
from libvirt_loopnet.planning.state import Observed
from tests.unit.fakehost import FakeHost
from tests.unit.test_plan import NETWORKS, bring, state


class Looked(FakeHost):
    """Counts how often it is looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def observe(self, *arguments: object, **options: object) -> Observed:
        self.looks += 1
        return super().observe((), ruleset=True)


def test_a_host_that_is_as_it_should_be_is_looked_at_once() -> None:
    host, desired = Looked(), state(NETWORKS)
    bring(host, NETWORKS)
    host.ruleset, host.looks = "", 0
    assert apply.converge(host, desired, thorough=True)
    assert host.looks == 2, "what was done is verified"
    assert not apply.converge(host, desired, thorough=True)
    assert host.looks == 3


def test_nft_is_asked_once_how_it_lists_the_same_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []

    def tried(script: str, *_: object) -> bytes:
        given.append(script)
        return f"table ip loopnet {{\n\t{script!r}\n}}\n".encode()

    monkeypatch.setattr("libvirt_loopnet.host.kernel.trial.tried", tried)
    monkeypatch.setattr(process, "fork", lambda function, _: process.Result(0, function(), b""))
    host: Host = linux.Linux()
    first = host.canonical([], "rules")
    assert host.canonical([], "rules") == first
    assert len(given) == 1
    assert host.canonical([], "others") != first
    assert host.canonical([], "rules") == first
    assert len(given) == 3


def test_rules_that_nft_refuses_are_refused_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def tried(*_: object) -> bytes:
        raise HostError("nft refused the rules: syntax error")

    monkeypatch.setattr("libvirt_loopnet.host.kernel.trial.tried", tried)
    host = linux.Linux()
    for _ in range(2):
        with pytest.raises(HostError, match="syntax error"):
            host.canonical([], "rules")
