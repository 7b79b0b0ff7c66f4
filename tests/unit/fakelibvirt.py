"""libvirt as convert and revert see it, in memory; anything can fail or be killed at any step."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address

from libvirt_loopnet.daemon.connection import Connection, DomainInfo, NetworkInfo
from libvirt_loopnet.errors import HostError, NotFoundError
from libvirt_loopnet.guests.interfaces import interfaces
from libvirt_loopnet.model import Network, Port
from libvirt_loopnet.networks.conversion.originals import Original, Originals
from libvirt_loopnet.networks.parsing import NAMESPACE, parse_network


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
        self.refuse: Callable[[str, bytes], None] = lambda what, xml: None

    def close(self) -> None:
        pass

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
        old = self.known.get(name) or NetworkInfo(name, "", b"", b"", False, True)
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

    def update_device(self, uuid: str, xml: bytes) -> None:
        guest = self.guests[uuid]
        new = interfaces(b"<domain><devices>" + xml + b"</devices></domain>")[0]
        old = next(each for each in interfaces(guest.live_xml) if each.mac == new.mac)
        self.refuse("update", xml)
        self.steps.step(f"update {guest.name} to {new.kind}")
        if new.kind == "network" and (old.kind, old.network) != (new.kind, new.network):
            self.plugged.append(Port(new.network, new.mac, guest.name, uuid))
        live = guest.live_xml.replace(old.xml, new.xml)
        self.guests[uuid] = guest._replace(live_xml=live)


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
