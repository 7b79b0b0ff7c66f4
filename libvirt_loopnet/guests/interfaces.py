"""The ``<interface>`` elements of a running guest, as libvirt's update-device takes them.

After net-destroy and net-start a guest's tap has no bridge, and libvirt's network has no port for it.
Updating the device as it is changes nothing to libvirt, so it is updated twice: to the bridge itself,
which attaches the tap, and back to the network, for which libvirt makes a port and runs the hook
(qemuDomainChangeNet and qemuDomainChangeNetBridge in src/qemu/qemu_hotplug.c). The guest's link stays
up all the time.
"""

from __future__ import annotations

from typing import NamedTuple

from ..xml.edit import element_end
from ..xml.editor import Editor
from ..xml.tree import Element, parse

NETWORK, BRIDGE = "network", "bridge"


class Interface(NamedTuple):
    """One ``<interface>``."""

    mac: str
    """Lower case."""
    kind: str
    """Its type attribute."""
    network: str
    """libvirt network it says it is on, '' for none."""
    bridge: str
    """Bridge it says it is on; known of running guests only."""
    xml: bytes


def interfaces(domain_xml: bytes) -> list[Interface]:
    """All interfaces of a domain, in order. Raises InputError for malformed XML."""
    devices = parse(domain_xml).first("devices")
    found = devices.all("interface") if devices else ()
    return [_interface(domain_xml, element) for element in found]


def _interface(data: bytes, element: Element) -> Interface:
    mac, source = element.first("mac"), element.first("source")
    return Interface(
        mac=mac.get("address").lower() if mac else "",
        kind=element.get("type"),
        network=source.get("network") if source else "",
        bridge=source.get("bridge") if source else "",
        xml=data[element.start : element_end(data, element)],
    )


def on_bridge(interface: Interface, bridge: str) -> bytes:
    """The interface, plugged into ``bridge`` by itself."""
    return _plugged(interface, BRIDGE, {"bridge": bridge}, ("network", "portid", "portgroup"))


def on_network(interface: Interface, network: str) -> bytes:
    """The interface, plugged into libvirt's ``network``; libvirt will make a new port for it."""
    return _plugged(interface, NETWORK, {"network": network}, ("bridge", "portid"))


def _plugged(interface: Interface, kind: str, given: dict[str, str], dropped: tuple[str, ...]) -> bytes:
    root = parse(interface.xml)
    editor = Editor(interface.xml, root)
    editor.set_attribute(root, "type", kind)
    source = root.first("source")
    if source is not None:
        for name in dropped:
            editor.drop_attribute(source, name)
        for name, value in given.items():
            editor.set_attribute(source, name, value)
    return editor.apply()
