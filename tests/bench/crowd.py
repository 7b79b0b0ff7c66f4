"""Many guests for little: files as libvirt and we leave them, devices for taps, `loopnet sync`."""

from __future__ import annotations

import uuid

from libvirt_loopnet.addresses.reservations import render
from libvirt_loopnet.model import Network, Reservation
from tests.netns.lab import RUN, STATE, Lab, LabNetwork
from tests.sandbox import Sandbox

PORT = (
    "<networkport><uuid>{uuid}</uuid><owner><name>{name}</name><uuid>{uuid}</uuid></owner>"
    "<mac address='{mac}'/><plug type='network' bridge='{bridge}'/></networkport>"
)
FIRST = 2
"""The lowest host number of a guest."""


def wide_network(lab: Lab, ipv6: str = "") -> LabNetwork:
    """A network with room for a thousand guests; started."""
    network = lab.network(1, guest_prefix="10.128.0.0/21", length=21, ipv6=ipv6)
    lab.start(network)
    return network


def add_crowd(sandbox: Sandbox, network: Network, count: int) -> None:
    """``count`` guests for an active ``network`` without any: reserved, live, with taps.

    libvirtd itself doesn't know of them. A bridge has room for 1023 taps.
    """
    guests = [_guest(network, FIRST + index) for index in range(count)]
    sandbox.path(STATE).mkdir(exist_ok=True)
    sandbox.path(f"{STATE}/{network.name}.reservations").write_text(render(guests))
    directory = sandbox.path(f"{RUN}/{network.name}/ports")
    directory.mkdir(parents=True, exist_ok=True)
    for guest in guests:
        xml = PORT.format(uuid=guest.uuid, name=guest.name, mac=guest.mac, bridge=network.bridge)
        (directory / f"{guest.uuid}.xml").write_text(xml)
    taps = "".join(
        f"tuntap add crowd{guest.number} mode tap\n"
        f"link set crowd{guest.number} address fe{guest.mac[2:]} master {network.bridge} up\n"
        for guest in guests
    )
    sandbox.host.run(["ip", "-batch", "-"], input=taps, timeout=300)
    sandbox.host.run(["loopnet", "sync"], timeout=300)


def add_network(lab: Lab, network: LabNetwork) -> None:
    """An active network without guests; the next `loopnet sync` sees to it."""
    lab.make_bridge(network)
    status = f"<networkstatus>{network.xml}</networkstatus>"
    lab.path(f"{RUN}/{network.model.name}.xml").write_text(status)


def _guest(network: Network, number: int) -> Reservation:
    mac = f"52:54:00:cc:{number >> 8:02x}:{number & 255:02x}"
    name = f"crowd-{number}"
    return Reservation(number, mac, str(uuid.uuid5(uuid.NAMESPACE_DNS, network.name + name)), name)
