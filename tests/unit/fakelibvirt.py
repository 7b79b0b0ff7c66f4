"""libvirt as convert and revert see it, in memory; anything can fail or be killed at any step.

It is libvirt 11 in that an update of a device attaches its tap only where the bridge's name changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

from libvirt_loopnet.daemon.connection import Connection, DomainInfo, NetworkInfo
from libvirt_loopnet.daemon.domains import LiveNic
from libvirt_loopnet.errors import HostError, NotFoundError
from libvirt_loopnet.guests.interfaces import Interface, interfaces, is_of
from libvirt_loopnet.model import Network, Port
from libvirt_loopnet.networks.conversion.change import bridge_name
from libvirt_loopnet.networks.conversion.originals import Original, Originals
from libvirt_loopnet.networks.parsing import NAMESPACE, parse_network
from libvirt_loopnet.plugging.bridge_ports import Place
from libvirt_loopnet.xml.document import alike


class Killed(BaseException):
    """kill -9."""


class Steps:
    """Counts what changes anything; raises Killed before the step with number ``last``."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.last: int | None = None

    def step(self, what: str) -> None:
        if self.last == len(self.log):
            raise Killed
        self.log.append(what)


class FakeLibvirt(Connection):
    """Networks by name, domains by UUID. ``refuse`` may raise where libvirt or a hook would."""

    def __init__(self, steps: Steps) -> None:
        super().__init__(None)
        self.steps = steps
        self.known: dict[str, NetworkInfo] = {}
        self.guests: dict[str, DomainInfo] = {}
        self.plugged: list[Port] = []
        self.given: list[tuple[str, IPv4Address]] = []
        self.taps: dict[str, str] = {}
        """Tap -> the bridge that it is a port of."""
        self.believed: dict[str, str] = {}
        """The same as libvirt thinks."""
        self.believes_only = False
        """To attach a tap is believed and not done."""
        self.late = 0
        """How often it says that a domain doesn't run, as it does right after its start."""
        self.refuse: Callable[[str, bytes], None] = lambda what, xml: None

    def close(self) -> None:
        pass

    @property
    def driver(self) -> str:
        return "qemu"

    def networks(self) -> list[NetworkInfo]:
        return sorted(self.known.values())

    def loopnet_networks(self) -> list[tuple[Network, NetworkInfo]]:
        parsed = [(parse_network(i.xml), i) for i in self.networks() if NAMESPACE.encode() in i.xml]
        return [(network, info) for network, info in parsed if network]

    def network(self, name: str) -> NetworkInfo:
        if name not in self.known:
            raise NotFoundError(f"network not found: {name}; see: virsh net-list --all")
        return self.known[name]

    def define(self, xml: bytes, *, validate: bool = True) -> None:
        name = xml.split(b"<name>")[1].split(b"</name>")[0].decode()
        self.refuse("define", xml)
        self.steps.step(f"define {name}")
        uuid = xml.partition(b"<uuid>")[2].partition(b"<")[0].decode()
        old = self.known.get(name) or NetworkInfo(name, uuid, b"", b"", False, True)
        self.known[name] = old._replace(xml=xml)

    def start(self, name: str) -> None:
        info = self.network(name)
        if info.active:
            raise HostError(f"network {name} is already active")
        self.refuse("start", info.xml)
        self.steps.step(f"start {name}")
        self.known[name] = info._replace(live_xml=info.xml)

    def stop(self, name: str) -> None:
        if not self.network(name).active:
            raise HostError(f"network {name} is not active")
        self.steps.step(f"stop {name}")
        self.drop_bridge(bridge_name(self.network(name).live_xml))
        self.known[name] = self.network(name)._replace(live_xml=b"")
        self.plugged = [port for port in self.plugged if port.network != name]

    def set_autostart(self, name: str, autostart: bool) -> None:
        self.steps.step(f"autostart {name} {autostart}")
        self.known[name] = self.network(name)._replace(autostart=autostart)

    def ports(self, name: str) -> list[Port]:
        return [port for port in self.plugged if port.network == name]

    def leases(self, name: str) -> list[tuple[str, IPv4Address]]:
        return self.given

    def domains(self) -> list[DomainInfo]:
        return sorted(self.guests.values())

    def live_domain(self, uuid: str) -> bytes:
        self.late -= 1
        return b"" if self.late >= 0 else self.guests[uuid].live_xml

    def drop_bridge(self, bridge: str) -> None:
        self.taps = {tap: "" if at == bridge else at for tap, at in self.taps.items()}

    def update_device(self, uuid: str, xml: bytes) -> None:
        guest = self.guests[uuid]
        new = interfaces(b"<domain><devices>" + xml + b"</devices></domain>")[0]
        old = next(each for each in interfaces(guest.live_xml) if each.mac == new.mac)
        self.refuse("update", xml)
        self.steps.step(f"update {guest.name} to {new.kind}")
        if new.kind == "bridge":
            self.plugged = [port for port in self.plugged if port.mac != new.mac]
        elif (old.kind, old.network) != (new.kind, new.network):
            self.plugged.append(Port(new.network, new.mac, guest.name, uuid))
        bridge = new.bridge if new.kind == "bridge" else bridge_name(self.network(new.network).live_xml)
        if self.believed.get(old.tap, "virbr0") != bridge:
            self.believed[old.tap] = bridge
            self.taps[old.tap] = "" if self.believes_only else bridge
        live = alike(guest.live_xml).encode().replace(old.xml, new.xml)
        self.guests[uuid] = guest._replace(live_xml=live)


class FakePlugs:
    """The taps of FakeLibvirt's guests."""

    def __init__(self, libvirt: FakeLibvirt) -> None:
        self.libvirt = libvirt
        self.bridges: set[str] = set()
        self.dead: set[str] = set()

    def unplugged(self, place: Place) -> list[LiveNic]:
        ports = {port.mac for port in self.libvirt.ports(place.network)}

        def is_in(interface: Interface) -> bool:
            return self.libvirt.taps.get(interface.tap) == place.bridge and interface.mac in ports

        return [
            LiveNic("qemu", guest.name, guest.uuid, interface)
            for guest in self.libvirt.guests.values()
            for interface in (interfaces(guest.live_xml) if guest.live_xml else [])
            if is_of(interface, place.network, place.spare) and not is_in(interface)
        ]

    def is_dead(self, tap: str) -> bool:
        return tap in self.dead

    def attach(self, tap: str, bridge: str) -> None:
        self.libvirt.taps[tap] = bridge

    @contextmanager
    def spare_bridge(self, name: str) -> Iterator[None]:
        self.bridges.add(name)
        try:
            yield
        except Killed:
            raise
        except BaseException:
            self._drop(name)
            raise
        self._drop(name)

    def _drop(self, name: str) -> None:
        self.bridges.remove(name)
        self.libvirt.drop_bridge(name)


class KillableOriginals(Originals):
    """Originals whose every write is a step."""

    def __init__(self, directory: str, steps: Steps) -> None:
        super().__init__(directory)
        self.steps = steps

    def save(self, name: str, original: Original) -> None:
        self.steps.step("save original")
        super().save(name, original)

    def remove(self, name: str) -> None:
        self.steps.step("remove original")
        super().remove(name)

    def begin_restart(self, name: str) -> None:
        self.steps.step("begin restart")
        super().begin_restart(name)

    def end_restart(self, name: str) -> None:
        self.steps.step("end restart")
        super().end_restart(name)
