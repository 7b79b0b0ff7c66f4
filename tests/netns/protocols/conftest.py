"""What the tests of protocols share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from .field import FIELDS, Field, open_field


@pytest.fixture(scope="package", params=list(FIELDS))
def field(request: pytest.FixtureRequest) -> Iterator[Field]:
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    with open_field(request.param) as made:
        yield made
