"""libvirt's network XML -> Network, Port, Reservation. On the path of every hook: expat only.

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
from ..validation import check_mac, check_uuid, shown
from ..xml.tree import Element, local_name, parse
from .dnsmasq_options import dnsmasq_options, given_options
from .elements import NAMESPACE, host_number, network_element, network_of, own_element

__all__ = [
    "NAMESPACE",
    "declared_hosts",
    "dnsmasq_options",
    "dnsmasq_options_of",
    "missing_options",
    "parse_hook",
    "parse_hosts",
    "parse_network",
    "parse_port",
]


def parse_network(data: bytes) -> Network | None:
    """The network in a definition, a live dump or a status file; None if it isn't loopnet's."""
    return network_of(network_element(parse(data)))


def parse_hook(data: bytes) -> tuple[Network | None, Port | None]:
    """What libvirt gives the network hook on stdin: ``<hookData><network/><networkport/>``.

    The network is None if it isn't loopnet's, the port if the event has none.
    """
    root = parse(data)
    if root.tag != "hookData":
        raise InputError(f"expected <hookData>, got <{local_name(root.tag)}>; libvirt runs the hook")
    element = network_element(root)
    network = network_of(element)
    port = root.find("networkport")
    return network, None if port is None else _port(element.findtext("name"), port)


def parse_port(network_name: str, data: bytes) -> Port:
    """A port as libvirt keeps it in /run/libvirt/network/NAME/ports/UUID.xml."""
    root = parse(data)
    if root.tag != "networkport":
        raise InputError(f"expected <networkport>, got <{local_name(root.tag)}>")
    return _port(network_name, root)


def parse_hosts(data: bytes) -> tuple[Reservation, ...]:
    """The host numbers the definition itself reserves; mac or name may be ''."""
    element = network_element(parse(data))
    network, own = network_of(element), own_element(element)
    return declared_hosts(network, own) if network and own else ()


def declared_hosts(network: Network, own: Element) -> tuple[Reservation, ...]:
    """The reservations in ``own``, the metadata element of ``network``."""
    return tuple(_host(network, child) for child in own)


def missing_options(data: bytes, network: Network) -> tuple[str, ...]:
    """Which of ``dnsmasq_options(network)`` the XML of parse_network or parse_hook lacks."""
    given = given_options(network_element(parse(data)))
    return tuple(option for option in dnsmasq_options(network) if option not in given)


def dnsmasq_options_of(data: bytes) -> tuple[str, ...]:
    """All dnsmasq options in the XML of parse_network or parse_hook."""
    return given_options(network_element(parse(data)))


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
