"""The ``<interface>`` elements of a running guest, as libvirt's update-device takes them.

After net-destroy and net-start a guest's tap has no bridge, and libvirt's network has no port for it.
Updating the device as it is changes nothing to libvirt, so it is updated twice: to a bridge made for the
purpose, which attaches the tap there, and back to the network, for which libvirt makes a port, runs the
hook and attaches the tap (qemuDomainChangeNet and qemuDomainChangeNetBridge in src/qemu/qemu_hotplug.c).
By way of the network's own bridge that works on libvirt 9 only: from 11 on libvirt does nothing where the
bridge's name stays the same. The guest's link stays up all the time.
"""

from __future__ import annotations

from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..xml.document import Node

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
    tap: str = ""
    """The host's device for it, '' while the guest does not run."""
    link_down: bool = False
    """libvirt has its link down, so the guest sees no carrier (virsh domif-setlink); the tap on the host does."""


def interfaces(domain_xml: bytes) -> list[Interface]:
    """All interfaces of a domain, or of what a driver saves of it, in order. Raises InputError for malformed XML."""
    from ..xml.document import Document  # lxml: listing networks and guests goes without

    root = Document(domain_xml).root
    domain = root.find("domain") if root.tag == "domstatus" else root
    return [] if domain is None else [_interface(element) for element in domain.findall("devices/interface")]


def _interface(element: Node) -> Interface:
    from ..xml.document import source

    def given(child: str, name: str) -> str:
        found = element.find(child)
        return "" if found is None else found.get(name, "")

    return Interface(
        mac=given("mac", "address").lower(),
        kind=element.get("type", ""),
        network=given("source", "network"),
        bridge=given("source", "bridge"),
        xml=source(element),
        tap=given("target", "dev"),
        link_down=given("link", "state") == "down",
    )


def spare_name(network_uuid: str) -> str:
    """The bridge by way of which guests of a network are plugged in again; 15 characters, as many as a
    device's name may have."""
    return f"loopnet-{network_uuid[:7]}"


def is_spare(device: str) -> bool:
    """Is this the name of such a bridge?"""
    head, _, tail = device.partition("-")
    return head == "loopnet" and len(tail) == 7 and set(tail) <= set("0123456789abcdef")


def is_of(interface: Interface, network: str, spare: str) -> bool:
    """Does it belong to ``network``? On the ``spare`` bridge it was left by a kill in the midst of it all."""
    if interface.kind == NETWORK:
        return interface.network == network
    return is_bridged(interface, spare)


def is_bridged(interface: Interface, bridge: str) -> bool:
    """Is it plugged into ``bridge`` by itself?"""
    return (interface.kind, interface.bridge) == (BRIDGE, bridge)


def on_bridge(interface: Interface, bridge: str) -> bytes:
    """The interface, plugged into ``bridge`` by itself."""
    return _plugged(interface, BRIDGE, {"bridge": bridge}, ("network", "portid", "portgroup"))


def on_network(interface: Interface, network: str) -> bytes:
    """The interface, plugged into libvirt's ``network``; libvirt will make a new port for it."""
    return _plugged(interface, NETWORK, {"network": network}, ("bridge", "portid"))


def _plugged(interface: Interface, kind: str, given: dict[str, str], dropped: tuple[str, ...]) -> bytes:
    from ..xml.document import Document

    document = Document(interface.xml)
    document.set(document.root, "type", kind)
    source = document.root.find("source")
    if source is not None:
        for name in dropped:
            document.unset(source, name)
        for name, value in given.items():
            document.set(source, name, value)
    return document.render()
