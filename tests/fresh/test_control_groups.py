"""A fresh system has the control groups of the machine that it runs on, of either version, and leaves none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fresh.__main__ import INSIDE, PACKAGES
from tests.fresh.test_fresh import other_release
from tests.machines import bootstrap
from tests.machines.machine import Machine
from tests.sandbox.cgroups import hierarchies

pytestmark = pytest.mark.skipif(INSIDE in os.environ, reason="this is a fresh system already")


def test_control_groups() -> None:
    places = [each.place for each in hierarchies() if os.access(each.place, os.W_OK)]
    assert places, "this machine has none"
    name = f"inside-{os.getpid()}"
    with Machine(bootstrap.root(other_release(), PACKAGES), boot=False) as machine:
        mounts = [line.split() for line in machine.run("cat /proc/mounts").splitlines()]
        assert [place for _, place, kind, *_ in mounts if kind.startswith("cgroup")] == places
        joined = [
            line.split(":", 2)[2] for line in machine.run("cat /proc/1/cgroup /proc/self/cgroup").splitlines()
        ]
        assert set(joined) <= {"/", "/init"}
        for place in places:
            machine.run(f"mkdir {place}/{name}")
            if "cpuset" not in place:  # which would have to be told of processors first
                machine.run(f"sleep 100 >/dev/null 2>&1 & echo $! >{place}/{name}/cgroup.procs")
        made = [group for place in places for group in Path(place).glob(f"*/{name}")]
        assert len(made) == len(places)
        assert not any((Path(place) / name).exists() for place in places)
    assert not any(group.parent.exists() for group in made)
