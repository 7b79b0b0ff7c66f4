"""libvirt's network XML -> Network, Port, Reservation; elements.py reads a network's own element and attributes. On the
path of every hook: expat only.

    <network>
      <name>loopnet</name>
      <metadata>
        <loopnet:network xmlns:loopnet='https://libvirt-loopnet.org/xml/network/1'
                         mode='mapped' guest-prefix='10.127.1.0/24' gateway='1'>
          <loopnet:host number='5' mac='52:54:00:00:00:05' name='vm1'/>   the definition's own
        </loopnet:network>
      </metadata>
      <forward mode='open'/>
      <ip address='127.1.0.254' prefix='24'/>                              loop prefix, host number
      <dnsmasq:options> what dnsmasq_options() says, anything else beside it </dnsmasq:options>
    </network>

Every error is an InputError that names the network and the next command.
"""

from __future__ import annotations

from ..addresses.labels import dns_label
from ..errors import InputError
from ..model import Network, Port, Reservation
from ..records import NamedTuple
from ..validation import check_mac, check_uuid, shown
from ..xml.tree import Element, local_name, parse
from .dnsmasq_options import dnsmasq_options, given_options, lease_option, tftp_options
from .elements import NAMESPACE, host_number, network_element, network_of, own_element

__all__ = [
    "NAMESPACE",
    "Definition",
    "Event",
    "declared_hosts",
    "definition_of",
    "dnsmasq_options",
    "given_options",
    "hosts_of",
    "missing_options",
    "parse_hook",
    "parse_network",
    "parse_port",
]


Definition = Element
"""A ``<network>``."""


class Event(NamedTuple):
    """What libvirt gives the network hook on stdin: ``<hookData><network/><networkport/>``, read once."""

    definition: Definition
    network: Network | None
    """None if it isn't loopnet's."""
    port: Port | None
    """None if the event is about no port."""


def definition_of(data: bytes) -> Definition:
    """The ``<network>`` in a definition, a live dump, a status file or what a hook is given."""
    return network_element(parse(data))


def parse_network(data: bytes) -> Network | None:
    """The network in what definition_of() takes; None if it isn't loopnet's."""
    return network_of(definition_of(data))


def parse_hook(data: bytes) -> Event:
    """What libvirt gives the network hook on stdin."""
    root = parse(data)
    if root.tag != "hookData":
        raise InputError(f"expected <hookData>, got <{local_name(root.tag)}>; libvirt runs the hook")
    element = network_element(root)
    port = root.find("networkport")
    return Event(
        element, network_of(element), None if port is None else _port(element.findtext("name"), port)
    )


def parse_port(network_name: str, data: bytes) -> Port:
    """A port as libvirt keeps it in /run/libvirt/network/NAME/ports/UUID.xml."""
    root = parse(data)
    if root.tag != "networkport":
        raise InputError(f"expected <networkport>, got <{local_name(root.tag)}>")
    return _port(network_name, root)


def hosts_of(definition: Definition, network: Network) -> tuple[Reservation, ...]:
    """The host numbers the ``definition`` of ``network`` itself reserves; mac or name may be ''."""
    own = own_element(definition)
    return declared_hosts(network, own) if own else ()


def declared_hosts(network: Network, own: Element) -> tuple[Reservation, ...]:
    """The reservations in ``own``, the metadata element of ``network``."""
    return tuple(_host(network, child) for child in own)


def missing_options(definition: Definition, network: Network) -> tuple[str, ...]:
    """Which of ``dnsmasq_options(network)`` its ``definition`` lacks."""
    given = given_options(definition)
    return tuple(option for option in dnsmasq_options(network) if option not in given)


def check_options(definition: Definition, network: Network) -> None:
    """Raise InputError for a definition with which the network would not work."""
    spare = () if network.ipv6 else (lease_option(network.name),)
    missing = [option for option in missing_options(definition, network) if option not in spare]
    if missing:
        raise InputError(
            f"network {network.name} lacks the dnsmasq option {missing[0]!r}; fix it: "
            f"virsh net-dumpxml --inactive {network.name} | loopnet rewrite > new.xml; virsh net-define new.xml"
        )
    tftp_options(definition)  # raises for what dnsmasq can't be told


def _host(network: Network, host: Element) -> Reservation:
    what = f"network {network.name}"
    wrong = [key for key in host.attrib if key not in ("number", "mac", "name")]
    if wrong:
        raise InputError(f"{what}: <loopnet:host> does not know {shown(wrong[0])}; it has number, mac, name")
    number = host_number(network.name, "reserved number", host.get("number"), network.loop_prefix)
    if number in (network.gateway, network.host):
        raise InputError(f"{what}: number {number} is the host's own; reserve another")
    mac = host.get("mac")
    return Reservation(number, check_mac(what, mac) if mac else "", "", dns_label(host.get("name")))


def _port(network_name: str, port: Element) -> Port:
    owner = port.find("owner")
    mac = port.find("mac")
    if owner is None or mac is None:
        raise InputError(f"network {network_name}: <networkport> has no owner or no MAC address")
    name = owner.findtext("name")
    what = f"port of {shown(name)} in network {network_name}"
    return Port(
        network=network_name,
        mac=check_mac(what, mac.get("address")),
        owner=name,
        owner_uuid=check_uuid(what, owner.findtext("uuid")),
        uuid=check_uuid(what, port.findtext("uuid")),
    )
