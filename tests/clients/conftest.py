"""What the tests with other people's clients share."""

from __future__ import annotations

import os
from typing import Iterator

import pytest

from tests.machines.guest import SystemGuest
from tests.machines.systems import System, system
from tests.sandbox.world import MAPPED, World

AGENT = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A host with libvirtd and a LAN, for one module; looked at closely when that is done."""
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    with World() as made:
        yield made


@pytest.fixture(scope="session")
def managed() -> System:
    """Debian with what programs need that work with a guest."""
    return system("managed")


@pytest.fixture(scope="module")
def vm1(world: World, managed: System) -> SystemGuest:
    """Such a guest, vm1, running on the network loopnet."""
    world.start()
    guest = SystemGuest(world.sandbox, "vm1", [MAPPED.name], managed, devices=AGENT)
    guest.start()
    guest.wait_boot()
    guest.wait_lease()
    return guest
