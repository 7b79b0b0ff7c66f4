"""libvirt's errors as ours, and what is read from its answers."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import Any

import pytest

import libvirt_loopnet.daemon.connection
from libvirt_loopnet.daemon.connection import Connection, connect
from libvirt_loopnet.errors import HostError, InputError, LoopnetError, NotFoundError, PrivilegeError

libvirt: Any = pytest.importorskip("libvirt")


class FakeError(libvirt.libvirtError):  # type: ignore[misc]
    """A libvirtError with a code of our choice."""

    def __init__(self, code: int, message: str) -> None:
        Exception.__init__(self, message)
        self.err = (code, 0, message, 0, "", None, None, 0, 0)


def raising(code: int, message: str = "a\n  message") -> Callable[..., Any]:
    def call(*_arguments: object) -> Any:
        raise FakeError(code, message)

    return call


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("VIR_ERR_NO_NETWORK", NotFoundError),
        ("VIR_ERR_NO_DOMAIN", NotFoundError),
        ("VIR_ERR_XML_ERROR", InputError),
        ("VIR_ERR_XML_DETAIL", InputError),
        ("VIR_ERR_XML_INVALID_SCHEMA", InputError),
        ("VIR_ERR_CONFIG_UNSUPPORTED", InputError),
        ("VIR_ERR_ACCESS_DENIED", PrivilegeError),
        ("VIR_ERR_OPERATION_DENIED", PrivilegeError),
        ("VIR_ERR_AUTH_UNAVAILABLE", PrivilegeError),
        ("VIR_ERR_AUTH_CANCELLED", PrivilegeError),
        ("VIR_ERR_HOOK_SCRIPT_FAILED", HostError),
        ("VIR_ERR_INTERNAL_ERROR", HostError),
    ],
)
def test_errors_are_ours_and_one_line(name: str, kind: type[LoopnetError]) -> None:
    handle = SimpleNamespace(networkDefineXMLFlags=raising(getattr(libvirt, name)))
    with pytest.raises(kind) as caught:
        Connection(handle).define(b"<network/>")
    assert type(caught.value) is kind
    assert "a message" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (libvirt.VIR_ERR_SYSTEM_ERROR, "Failed to connect socket: Permission denied", PrivilegeError),
        (libvirt.VIR_ERR_AUTH_UNAVAILABLE, "no polkit agent", PrivilegeError),
        (libvirt.VIR_ERR_SYSTEM_ERROR, "Failed to connect: No such file or directory", HostError),
    ],
)
def test_connect(monkeypatch: pytest.MonkeyPatch, code: int, message: str, kind: type[LoopnetError]) -> None:
    monkeypatch.setattr(libvirt, "open", raising(code, message))
    with pytest.raises(kind, match=r"libvirt \(qemu:///system\)"):
        connect()


def test_unknown_uri() -> None:
    with pytest.raises(HostError, match="can't reach libvirt"):
        connect("nonsense:///")


def test_no_libvirt_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "libvirt", None)
    with pytest.raises(HostError, match="python3-libvirt"):
        connect()


def test_real_driver() -> None:
    with connect("test:///default") as connection:
        domains = connection.domains()
        assert [domain.name for domain in domains] == ["test"]
        assert b"<domain" in domains[0].live_xml
        with pytest.raises(NotFoundError, match="virsh net-list --all"):
            connection.network("absent")
        assert connection.leases("default") == []


class FakeNetwork:
    """What libvirt's Python module gives for a network."""

    def __init__(self, name: str, *, active: bool = True, gone: bool = False) -> None:
        self._name, self._active, self._gone = name, active, gone

    def name(self) -> str:
        return self._name

    def UUIDString(self) -> str:
        return "u"

    def XMLDesc(self, flags: int) -> str:
        if self._gone:
            raise FakeError(libvirt.VIR_ERR_NO_NETWORK, "gone")
        return f"<network><name>{self._name}</name>{'' if flags else 'live'}</network>"

    def isActive(self) -> int:
        return int(self._active)

    def autostart(self) -> int:
        return 1

    def isPersistent(self) -> int:
        return 1

    def DHCPLeases(self) -> list[dict[str, Any]]:
        ipv4, ipv6 = libvirt.VIR_IP_ADDR_TYPE_IPV4, libvirt.VIR_IP_ADDR_TYPE_IPV6
        return [
            {"mac": "52:54:00:00:00:0A", "ipaddr": "192.168.122.7", "type": ipv4},
            {"mac": None, "ipaddr": "fd00::7", "type": ipv6},
        ]


def test_networks() -> None:
    there = [FakeNetwork("b", active=False), FakeNetwork("gone", gone=True), FakeNetwork("a")]
    connection = Connection(SimpleNamespace(listAllNetworks=lambda: there))
    first, second = connection.networks()
    assert (first.name, first.active, first.autostart) == ("a", True, True)
    assert (first.xml, first.live_xml) != (first.live_xml, first.xml)
    assert (second.name, second.active, second.live_xml) == ("b", False, b"")
    assert connection.loopnet_networks() == []


def test_leases() -> None:
    handle = SimpleNamespace(networkLookupByName=FakeNetwork)
    assert Connection(handle).leases("a") == [("52:54:00:00:00:0a", IPv4Address("192.168.122.7"))]


def test_only_connection_imports_libvirt() -> None:
    package = libvirt_loopnet.daemon.connection.__file__.rpartition("/")[0]
    from pathlib import Path

    importers = [path.name for path in Path(package).rglob("*.py") if "import libvirt\n" in path.read_text()]
    assert importers == ["connection.py"]
