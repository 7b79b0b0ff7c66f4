"""What the end-to-end tests share."""

from __future__ import annotations

import contextlib
import os
from typing import Generator, Iterator

import pytest

from tests.sandbox import Guest
from tests.sandbox.world import World


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A host with libvirtd and a LAN, for one module; looked at closely when that is done."""
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    with World() as made:
        yield made


@pytest.fixture
def vm1(world: World) -> Guest:
    """A guest on `loopnet` that runs and has its lease. To boot it takes longer than most tests, so those that
    take it and leave it as it was have the same one, where they stand side by side."""
    return world.keep()


@pytest.fixture
def cleaned(world: World, request: pytest.FixtureRequest) -> Iterator[None]:
    """Nothing of an earlier test is there, nothing of this one is left; but all of one with `vm1`, for the next."""
    keeps = "vm1" in request.fixturenames
    if world.kept and not keeps:
        world.clean()
    yield
    if not keeps:
        world.clean()


SPOILED = pytest.StashKey[bool]()
"""A test has failed, and what it has left is nothing for the next."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.session.stash[SPOILED] = True
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    _end_if_spoiled(item)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    with contextlib.suppress(Exception):  # told of already: it was the last test's end that failed
        _end_if_spoiled(item)


def _end_if_spoiled(item: pytest.Item) -> None:
    """Ends all fixtures, those of the module too, so that the next test gets new ones."""
    if item.session.stash.get(SPOILED, False):
        item.session.stash[SPOILED] = False
        item.session._setupstate.teardown_exact(None)
