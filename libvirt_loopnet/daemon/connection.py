"""libvirt's API, as far as the command line needs it. The only module that imports libvirt.

Never used by a hook: libvirt waits for the hook, the hook would wait for libvirt.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from typing import Any, NamedTuple

from ..errors import HostError, InputError, LoopnetError, NotFoundError, PrivilegeError
from ..guests.interfaces import interfaces
from ..model import Network, Port
from ..networks.parsing import NAMESPACE, parse_network, parse_port
from . import running
from .domains import LiveNic

SYSTEM_URI = "qemu:///system"

# virerror.h
_INPUT = (8, 21, 27, 35, 67, 92)  # argument, no name, XML error and detail, unsupported, schema
_NOT_FOUND = (42, 43)  # no domain, no network
_DENIED = (29, 45, 79, 88, 94)  # read-only, authentication failed, cancelled, access, none there


class NetworkInfo(NamedTuple):
    """A network as libvirt has it."""

    name: str
    uuid: str
    xml: bytes
    """Its definition: what the next start takes."""
    live_xml: bytes
    """What it runs with; b'' while it is inactive."""
    autostart: bool
    persistent: bool

    @property
    def active(self) -> bool:
        return bool(self.live_xml)


class DomainInfo(NamedTuple):
    """A domain as libvirt has it."""

    name: str
    uuid: str
    xml: bytes
    """Its definition."""
    live_xml: bytes
    """What it runs with; b'' while it does not run."""


class Connection:
    """An open connection. Every method raises LoopnetError, one line, when libvirt says no."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def close(self) -> None:
        """Close it; errors on the way out help nobody."""
        with _errors():
            self._handle.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def driver(self) -> str:
        """The driver of domains, in lower case: qemu, lxc."""
        with _errors():
            return str(self._handle.getType()).lower()

    def networks(self) -> list[NetworkInfo]:
        """All networks, by name; one that goes away meanwhile is left out."""
        with _errors():
            handles = self._handle.listAllNetworks()
        found = (_or_gone(_network_info, handle) for handle in handles)
        return sorted(info for info in found if info is not None)

    def loopnet_networks(self) -> list[tuple[Network, NetworkInfo]]:
        """Our networks, by their definitions; one that can't be understood is left out."""
        found = []
        for info in self.networks():
            network = _parsed(info.xml)
            if network:
                found.append((network, info))
        return found

    def network(self, name: str) -> NetworkInfo:
        """One network. Raises NotFoundError."""
        with _errors():
            return _network_info(self._network(name))

    def define(self, xml: bytes, *, validate: bool = True) -> None:
        """Define a network, or define it anew; with ``validate`` checked by libvirt's schema first."""
        flags = _flag("VIR_NETWORK_DEFINE_VALIDATE") if validate else 0
        with _errors():
            self._handle.networkDefineXMLFlags(xml.decode(), flags)

    def start(self, name: str) -> None:
        """Start an inactive network."""
        with _errors():
            self._network(name).create()

    def stop(self, name: str) -> None:
        """Stop an active network: its bridge goes, the taps of guests stay without one."""
        with _errors():
            self._network(name).destroy()

    def set_autostart(self, name: str, autostart: bool) -> None:
        """Whether libvirt starts the network with itself."""
        with _errors():
            self._network(name).setAutostart(int(autostart))

    def ports(self, name: str) -> list[Port]:
        """The live NICs of a network, by libvirt's record."""
        with _errors():
            return [parse_port(name, port.XMLDesc().encode()) for port in self._network(name).listAllPorts()]

    def leases(self, name: str) -> list[tuple[str, IPv4Address]]:
        """MAC and address of the current DHCP leases; none where the driver has no DHCP."""
        network = self._network(name)
        try:
            leases = network.DHCPLeases()
        except _libvirt().libvirtError as error:
            if error.get_error_code() == _flag("VIR_ERR_NO_SUPPORT"):
                return []
            raise _translated(error) from None
        return [
            (lease["mac"].lower(), IPv4Address(lease["ipaddr"]))
            for lease in leases
            if lease.get("mac") and lease.get("type") == _flag("VIR_IP_ADDR_TYPE_IPV4")
        ]

    def domains(self) -> list[DomainInfo]:
        """All domains, by name; one that goes away meanwhile is left out."""
        with _errors():
            handles = self._handle.listAllDomains()
        found = (_or_gone(_domain_info, handle) for handle in handles)
        return sorted(info for info in found if info is not None)

    def live_nics(self) -> list[LiveNic]:
        """The NICs of running domains; for those who can't read what the driver has written down."""
        running = ((domain, domain.live_xml) for domain in self.domains() if domain.live_xml)
        return [
            LiveNic(self.driver, domain.name, domain.uuid, interface)
            for domain, xml in running
            for interface in interfaces(xml)
        ]

    def live_domain(self, uuid: str) -> bytes:
        """What a domain runs with; b'' while libvirt knows of none that runs."""
        try:
            with _errors():
                return _domain_info(self._handle.lookupByUUIDString(uuid)).live_xml
        except NotFoundError:
            return b""

    def domain_names(self) -> dict[str, str]:
        """UUID -> name of all domains."""
        with _errors():
            return {handle.UUIDString(): handle.name() for handle in self._handle.listAllDomains()}

    def domain_definition(self, name: str) -> bytes:
        """The definition of a domain, passwords and all, to be changed and defined anew."""
        flags = _flag("VIR_DOMAIN_XML_INACTIVE") | _flag("VIR_DOMAIN_XML_SECURE")
        with _errors():
            xml: str = self._handle.lookupByName(name).XMLDesc(flags)
        return xml.encode()

    def define_domain(self, xml: bytes) -> None:
        """Define a domain anew, checked by libvirt's schema first; a running one goes on as it is."""
        with _errors():
            self._handle.defineXMLFlags(xml.decode(), _flag("VIR_DOMAIN_DEFINE_VALIDATE"))

    def update_device(self, uuid: str, xml: bytes) -> None:
        """Change a device of a running domain."""
        with _errors():
            domain = self._handle.lookupByUUIDString(uuid)
            domain.updateDeviceFlags(xml.decode(), _flag("VIR_DOMAIN_AFFECT_LIVE"))

    def _network(self, name: str) -> Any:
        with _errors():
            return self._handle.networkLookupByName(name)


def connect(uri: str = SYSTEM_URI, *, read_only: bool = False) -> Connection:
    """Open ``uri``. Raises PrivilegeError or HostError, with the command that may help."""
    libvirt = _libvirt()
    libvirt.registerErrorHandler(lambda *_: None, None)  # it prints to stderr by itself else
    try:
        handle = libvirt.openReadOnly(uri) if read_only else libvirt.open(uri)
    except libvirt.libvirtError as error:
        message = _one_line(error)
        if error.get_error_code() in _DENIED or "Permission denied" in message:
            raise PrivilegeError(f"libvirt ({uri}): {message}; run this as root") from None
        raise HostError(
            f"can't reach libvirt ({uri}): {message}; see: systemctl status {running.units()}"
        ) from None
    return Connection(handle)


def _network_info(handle: Any) -> NetworkInfo:
    inactive = _flag("VIR_NETWORK_XML_INACTIVE")
    return NetworkInfo(
        name=handle.name(),
        uuid=handle.UUIDString(),
        xml=handle.XMLDesc(inactive).encode(),
        live_xml=handle.XMLDesc(0).encode() if handle.isActive() else b"",
        autostart=bool(handle.autostart()) if handle.isPersistent() else False,
        persistent=bool(handle.isPersistent()),
    )


def _domain_info(handle: Any) -> DomainInfo:
    inactive = _flag("VIR_DOMAIN_XML_INACTIVE")
    return DomainInfo(
        name=handle.name(),
        uuid=handle.UUIDString(),
        xml=handle.XMLDesc(inactive).encode(),
        live_xml=handle.XMLDesc(0).encode() if handle.isActive() else b"",
    )


def _or_gone(read: Any, handle: Any) -> Any:
    try:
        with _errors():
            return read(handle)
    except NotFoundError:
        return None


def _parsed(xml: bytes) -> Network | None:
    if NAMESPACE.encode() not in xml:
        return None
    try:
        return parse_network(xml)
    except InputError:
        return None


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except _libvirt().libvirtError as error:
        raise _translated(error) from None


def _translated(error: Any) -> LoopnetError:
    code, message = error.get_error_code(), _one_line(error)
    if code in _NOT_FOUND:
        return NotFoundError(f"{message}; see: virsh net-list --all, virsh list --all")
    if code in _DENIED:
        return PrivilegeError(f"libvirt: {message}; run this as root")
    if code in _INPUT:
        return InputError(f"libvirt: {message}")
    return HostError(f"libvirt: {message}; see: journalctl {running.units('-u')}")


def _one_line(error: Any) -> str:
    message = error.get_error_message() or str(error)
    return " ".join(message.split())


def _flag(name: str) -> Any:
    return getattr(_libvirt(), name)


def _libvirt() -> Any:
    try:
        import libvirt
    except ImportError:
        raise HostError(
            "Python's libvirt module is missing; install python3-libvirt (libvirt-python)"
        ) from None
    return libvirt
