"""The text of definitions: a new network, and the metadata that makes a network loopnet's."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network

from ..addresses.labels import dns_label
from ..model import ALL, FREE, Network, Reservation
from ..prefixes import check_guest_prefix, check_loop_prefix
from ..validation import check_name
from ..xml.edit import escape
from .dnsmasq_options import DNSMASQ_NAMESPACE, dnsmasq_options
from .elements import DEFAULT_DOMAIN, DEFAULT_GATEWAY, NAMESPACE


def own_attributes(network: Network) -> dict[str, str]:
    """The attributes of <loopnet:network>."""
    given = {
        "mode": network.mode,
        "guest-prefix": str(network.guest_prefix),
        "gateway": str(network.gateway),
    }
    if network.guest_to_host != ALL:
        given["guest-to-host"] = network.guest_to_host
    if network.addresses != FREE:
        given["addresses"] = network.addresses
    if network.internet != ALL:
        given["internet"] = network.internet
    return given


def host_attributes(reservation: Reservation) -> dict[str, str]:
    """The attributes of <loopnet:host>, the way a definition reserves a host number."""
    given = (
        ("number", str(reservation.number)),
        ("mac", reservation.mac),
        ("name", reservation.name),
    )
    return {key: value for key, value in given if value}


def start_tag(tag: str, attributes: dict[str, str], end: str = "/>") -> bytes:
    """A start tag, or an empty element, with libvirt's kind of quotes."""
    pairs = (b" %s='%s'" % (key.encode(), escape(value)) for key, value in attributes.items())
    return b"<%s%s%s" % (tag.encode(), b"".join(pairs), end.encode())


def own_metadata(network: Network, hosts: Sequence[Reservation], lead: bytes, unit: bytes) -> bytes:
    """The <loopnet:network> element; ``lead`` is the line break and indentation before it."""
    attributes = {"xmlns:loopnet": NAMESPACE, **own_attributes(network)}
    if not hosts:
        return start_tag("loopnet:network", attributes)
    lines = [start_tag("loopnet:network", attributes, ">")]
    lines += [unit + start_tag("loopnet:host", host_attributes(host)) for host in hosts]
    return lead.join((*lines, b"</loopnet:network>"))


def new_network(
    name: str,
    loop_prefix: IPv4Network,
    guest_prefix: IPv4Network,
    mode: str,
    addresses: str = FREE,
    internet: str = ALL,
) -> bytes:
    """A complete definition, for virsh net-define as it stands; libvirt picks bridge and UUID.

    The gateway is host number 1, the host has the last usable one.
    Raises InputError for a name or prefixes that a loopnet network can't have.
    """
    check_guest_prefix(guest_prefix, check_loop_prefix(loop_prefix), mode)
    host = loop_prefix.num_addresses - 2
    network = Network(
        name=check_name(name),
        uuid="",
        bridge="",
        bridge_mac="",
        mode=mode,
        loop_prefix=loop_prefix,
        guest_prefix=guest_prefix,
        gateway=DEFAULT_GATEWAY,
        host=host,
        domain=dns_label(name) or DEFAULT_DOMAIN,
        addresses=addresses,
        internet=internet,
    )
    ip = {"address": str(network.loop_address(host)), "prefix": str(loop_prefix.prefixlen)}
    lines = (
        start_tag("network", {"xmlns:dnsmasq": DNSMASQ_NAMESPACE}, ">"),
        b"  <name>" + escape(name) + b"</name>",
        b"  <metadata>",
        b"    " + own_metadata(network, (), b"\n    ", b"  "),
        b"  </metadata>",
        b"  <forward mode='open'/>",
        b"  <bridge stp='off' delay='0'/>",
        b"  " + start_tag("domain", {"name": network.domain, "localOnly": "yes"}),
        b"  " + start_tag("ip", ip),
        b"  <dnsmasq:options>",
        *(b"    " + start_tag("dnsmasq:option", {"value": option}) for option in dnsmasq_options(network)),
        b"  </dnsmasq:options>",
        b"</network>",
        b"",
    )
    return b"\n".join(lines)
