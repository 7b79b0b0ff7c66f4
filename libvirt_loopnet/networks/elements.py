"""A ``<network>`` element, with our attributes in its metadata (which new.py writes) -> Network. What parsing.py reads
from libvirt and rewrite.py changes."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Interface, IPv6Network

from ..addresses.labels import dns_label
from ..errors import InputError
from ..ipv6 import parse_ipv6_prefix
from ..model import (
    ADDRESSES,
    ALL,
    FREE,
    GUEST_TO_HOST,
    INTERNET,
    IPV6_FORWARD,
    MAPPED,
    MODES,
    NAT,
    NATIVE,
    NONE,
    Network,
)
from ..prefixes import check_guest_prefix, check_loop_prefix, default_guest_prefix, parse_prefix
from ..validation import check_device, check_domain, check_mac, check_name, check_uuid, shown
from ..xml.tree import Element, local_name

NAMESPACE = "https://libvirt-loopnet.org/xml/network/1"
OWN_TAG = f"{{{NAMESPACE}}}network"
OWN_HOST_TAG = f"{{{NAMESPACE}}}host"
OWN_ATTRIBUTES = (
    "mode",
    "guest-prefix",
    "gateway",
    "guest-to-host",
    "addresses",
    "internet",
    "ipv6",
    "ipv6-forward",
)

_AROUND = ("networkstatus", "hookData")

DEFAULT_GATEWAY = 1
DEFAULT_DOMAIN = "loopnet"


def network_element(root: Element) -> Element:
    """The ``<network>`` of a definition, a status file or what a hook is given."""
    element = root.find("network") if root.tag in _AROUND else root
    if element is None or element.tag != "network":
        raise InputError(
            f"expected <network>, got <{local_name(root.tag)}>; get it from: virsh net-dumpxml NETWORK"
        )
    return element


def own_element(network: Element) -> Element | None:
    """Our element in the network's metadata, None when there is none."""
    found = [
        child
        for metadata in network.findall("metadata")
        for child in metadata
        if child.tag.startswith(f"{{{NAMESPACE}}}")
    ]
    if not found:
        return None
    if len(found) > 1 or found[0].tag != OWN_TAG:
        name = network.findtext("name")
        raise InputError(
            f"network {shown(name)}: metadata must hold one <loopnet:network>; fix it with: virsh net-edit"
        )
    return found[0]


def network_of(element: Element) -> Network | None:
    """The Network that a ``<network>`` element describes, None if it isn't loopnet's."""
    own = own_element(element)
    if own is None:
        return None
    network = describe(element, own)
    _check_forward(network.name, element)
    return network


def describe(element: Element, own: Element) -> Network:
    """The same for our metadata element ``own``, whatever ``<forward>`` says."""
    name = check_name(element.findtext("name"))
    _check_own(name, own)
    mode = own.get("mode", MAPPED)
    loop_prefix, host = _loop_prefix(name, element)
    guest_prefix = _guest_prefix(own, loop_prefix, mode)
    gateway = host_number(name, "gateway", own.get("gateway", str(DEFAULT_GATEWAY)), loop_prefix)
    if gateway == host:
        raise InputError(f"network {name}: the gateway and the host both have number {host}; change one")
    bridge, bridge_mac = bridge_of(name, element)
    uuid = element.findtext("uuid")
    ipv6 = _ipv6(name, element, own.get("ipv6", NONE))
    forward = own.get("ipv6-forward", NAT if ipv6 else "")
    return Network(
        name=name,
        uuid=check_uuid(f"network {name}", uuid) if uuid else "",
        bridge=bridge,
        bridge_mac=bridge_mac,
        mode=mode,
        loop_prefix=loop_prefix,
        guest_prefix=guest_prefix,
        gateway=gateway,
        host=host,
        domain=domain_of(name, element),
        guest_to_host=own.get("guest-to-host", ALL),
        addresses=own.get("addresses", FREE),
        internet=own.get("internet", ALL),
        ipv6=ipv6,
        ipv6_forward=forward,
        ipv6_given=ipv6_given(name, element) if forward else (),
    )


def ipv4_elements(network: Element) -> list[Element]:
    """The ``<ip>`` elements that are IPv4, which is what no family means."""
    return [ip for ip in network.findall("ip") if ip.get("family", "ipv4") == "ipv4"]


def ipv6_elements(network: Element) -> list[Element]:
    """The ``<ip>`` elements that are IPv6."""
    return [ip for ip in network.findall("ip") if ip.get("family") == "ipv6"]


def ipv6_given(name: str, network: Element) -> tuple[IPv6Interface, ...]:
    """The addresses and prefixes of the IPv6 ``<ip>`` elements."""
    return tuple(_ipv6_interface(name, ip) for ip in ipv6_elements(network))


def _ipv6_interface(name: str, ip: Element) -> IPv6Interface:
    try:
        # libvirt's virSocketAddrGetIPPrefix: 64 where none is given
        return IPv6Interface((ip.get("address"), int(ip.get("prefix") or 64)))
    except ValueError:
        given = " ".join(f"{key}={shown(value)}" for key, value in ip.attrib.items())
        raise InputError(f"network {name}: <ip {given}> is not an IPv6 address with a prefix") from None


def ipv4_address(name: str, ip: Element) -> tuple[IPv4Address, IPv4Network]:
    """Address and prefix of an IPv4 ``<ip>``."""
    try:
        address = IPv4Address(ip.get("address"))
        return address, IPv4Network((address, _length(address, ip)), strict=False)
    except ValueError:
        given = " ".join(f"{key}={shown(value)}" for key, value in ip.attrib.items())
        raise InputError(f"network {name}: <ip {given}> is not an IPv4 address with a prefix") from None


def prefixes_of(network: Element, old: Network | None) -> tuple[IPv4Network, ...]:
    """The prefixes a definition's addresses are in; ``old``: it as loopnet's, if it is."""
    if old:
        return old.loop_prefix, old.guest_prefix
    return (ipv4_address(network.findtext("name"), ipv4_elements(network)[0])[1],)


def place(address: str, prefixes: Iterable[IPv4Network]) -> int | None:
    """The host number of ``address`` in the first of ``prefixes`` that holds it, else None."""
    try:
        parsed = IPv4Address(address)
    except ValueError:
        return None
    return next((int(parsed) - int(p.network_address) for p in prefixes if parsed in p), None)


def _length(address: IPv4Address, ip: Element) -> int:
    if "netmask" not in ip.attrib:
        # libvirt's virSocketAddrGetIPPrefix: by class, as in the eighties
        first = address.packed[0]
        classful = 8 if first < 128 else 16 if first < 192 else 24
        return int(ip.get("prefix") or classful)
    mask = int(IPv4Address(ip.get("netmask")))
    length = bin(mask).count("1")
    if mask != 2**32 - 2 ** (32 - length):
        raise ValueError("netmask has holes")
    return length


def _check_own(name: str, own: Element) -> None:
    wrong = [key for key in own.attrib if key not in OWN_ATTRIBUTES]
    wrong += [local_name(child.tag) for child in own if child.tag != OWN_HOST_TAG]
    if wrong:
        raise InputError(
            f"network {name}: <loopnet:network> does not know {shown(wrong[0])}; "
            f"it has {', '.join(OWN_ATTRIBUTES)}"
        )
    choices = (
        ("mode", MODES), ("guest-to-host", GUEST_TO_HOST), ("addresses", ADDRESSES), ("internet", INTERNET),
        ("ipv6-forward", IPV6_FORWARD),
    )  # fmt: skip
    for key, known in choices:
        given = own.get(key, known[0])
        if given not in known:
            raise InputError(f"network {name}: {key} {shown(given)} is unknown; use {' or '.join(known)}")


def _loop_prefix(name: str, element: Element) -> tuple[IPv4Network, int]:
    ips = ipv4_elements(element)
    if len(ips) != 1:
        raise InputError(
            f"network {name} has {len(ips)} IPv4 <ip> elements, a loopnet network has one; "
            f"virsh net-edit {name}"
        )
    address, prefix = ipv4_address(name, ips[0])
    check_loop_prefix(prefix)
    number = int(address) - int(prefix.network_address)
    return prefix, host_number(name, "host number", str(number), prefix)


def _guest_prefix(own: Element, loop_prefix: IPv4Network, mode: str) -> IPv4Network:
    default = loop_prefix if mode == NATIVE else default_guest_prefix(loop_prefix)
    text = own.get("guest-prefix")
    prefix = parse_prefix(text, "guest prefix") if text else default
    return check_guest_prefix(prefix, loop_prefix, mode)


def _ipv6(name: str, element: Element, text: str) -> IPv6Network | None:
    if text == NONE:
        return None
    prefix = parse_ipv6_prefix(text, f"network {name}: ipv6")
    if ipv6_elements(element):
        raise InputError(
            f"network {name} has an IPv6 <ip> of its own, so loopnet gives it no prefix; "
            "remove one of the two"
        )
    return prefix


def host_number(name: str, what: str, text: str, prefix: IPv4Network) -> int:
    """``text`` as a usable host number of ``prefix``; ``what`` of network ``name`` it is."""
    last = prefix.num_addresses - 2
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= last):
        raise InputError(f"network {name}: {what} {shown(text)} must be from 1 to {last} in {prefix}")
    return int(text)


def _check_forward(name: str, element: Element) -> None:
    forward = element.find("forward")
    mode = "" if forward is None else forward.get("mode", "nat")
    if mode != "open":
        raise InputError(
            f"network {name}: a loopnet network has <forward mode='open'/>, not "
            f"{shown(mode) if mode else 'none'}; see: virsh net-dumpxml {name} | loopnet rewrite"
        )


def bridge_of(name: str, element: Element) -> tuple[str, str]:
    """The bridge's device and MAC address, '' for what libvirt has not chosen yet."""
    bridge, mac = element.find("bridge"), element.find("mac")
    device = bridge.get("name") if bridge else ""
    address = mac.get("address") if mac else ""
    if "%" in device:  # a template like virbr%d: libvirt has not chosen yet
        device = ""
    if device:
        check_device(f"network {name}", device)
    return device, check_mac(f"network {name}", address) if address else ""


def domain_of(name: str, element: Element) -> str:
    """The DNS domain of the guests' names: what the XML says, else the network's name."""
    domain = element.find("domain")
    given = domain.get("name") if domain else ""
    if given:
        return check_domain(f"network {name}", given)
    return dns_label(name) or DEFAULT_DOMAIN
