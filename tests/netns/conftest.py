"""Namespaces need root; without it this tier says so and is skipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="namespaces need root"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "changes: the test itself sees to what it changes on its host")
