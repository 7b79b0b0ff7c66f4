"""What the end-to-end tests share."""

from __future__ import annotations

import os
from typing import Iterator

import pytest

from tests.sandbox.world import World


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A host with libvirtd and a LAN, for one module; looked at closely when that is done."""
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    with World() as made:
        yield made
