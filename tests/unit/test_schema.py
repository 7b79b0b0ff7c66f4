"""The shipped JSON Schema: sound, strict enough, and it has the keys that the man page has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from libvirt_loopnet.commands import list as list_command
from libvirt_loopnet.reports.findings import Finding
from tests import schema

NIC = {
    "guest": "vm1", "dns_name": "vm1.loopnet", "name": "vm1", "network": "loopnet", "mac": "52:54:00:00:00:01",
    "loop_address": "127.1.0.2", "guest_address": "10.127.1.2", "ipv6_address": "fd12::2", "tap": None, "state": "up",
    "link": None,
    "also": ["127.1.0.20"], "shared": [], "seen": ["127.1.0.77"], "dropped": ["192.0.2.1"],
    "published": [{"protocol": "tcp", "host_address": None, "host_port": 8080, "guest_port": 80,
          "ports": 1, "from": None}],
    "why": None, "command": None,
}  # fmt: skip


def test_what_is_right() -> None:
    schema.check("list", [])
    nowhere = {"loop_address": None, "guest_address": None, "ipv6_address": None}
    schema.check("list", [NIC, {**NIC, **nowhere, "tap": "vnet0"}])
    unknown = {**dict.fromkeys(NIC), "name": "", "network": "loopnet", "mac": NIC["mac"], "tap": "veth0"}
    none: dict[str, list[str]] = {key: [] for key in ("also", "shared", "seen", "dropped", "published")}
    said = {"state": "unknown", **none, "why": "no address", "command": "loopnet reserve"}
    schema.check("list", [{**unknown, **said}])


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "down"}, {"loop_address": "127.1.0.256"}, {"mac": "52:54"}, {"tap": ""}, {"name": None},
        {"guest": ""}, {"link": "up"}, {"ipv6_address": "10.0.0.1"}, {"dns_name": ""},
        {"network": ""}, {"more": 1}, {"published": [{}]}, {"published": None},
    ],
)  # fmt: skip
def test_what_is_wrong(wrong: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        schema.check("list", [{**NIC, **wrong}])


def test_what_is_missing() -> None:
    for key in NIC:
        with pytest.raises(AssertionError):
            schema.check("list", [{name: value for name, value in NIC.items() if name != key}])


def test_the_keys_are_those_of_the_code() -> None:
    definitions = schema.load()["$defs"]
    assert {*definitions["list"]["items"]["properties"]} == {
        *list_command.COLUMNS,
        "name",
        "ipv6_address",
        "link",
        "also",
        "shared",
        "seen",
        "dropped",
        "published",
        "why",
        "command",
    }
    assert [*definitions["doctor"]["items"]["properties"]] == [*Finding._fields]
    for item in (definitions["list"]["items"], definitions["doctor"]["items"], definitions["status"]):
        assert item["required"] == [*item["properties"]]


def test_the_man_page_has_them_all() -> None:
    page = (schema.FILE.parent / "man" / "loopnet.1").read_text()
    told = set(re.findall(r"^(?:\.It )?\.?Li (\w+)", page, re.MULTILINE))
    assert set(_keys(schema.load()["$defs"])) <= told


def _keys(found: Any) -> Iterator[str]:
    for name, value in found.items():
        if name == "properties":
            yield from value
        if isinstance(value, dict):
            yield from _keys(value)
