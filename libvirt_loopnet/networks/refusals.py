"""Which network definitions can't become loopnet's, and why: one table, one line each.

The table is also the documentation: tests count libvirt's own definitions by these reasons.
"""

from __future__ import annotations

from ..errors import InputError
from ..validation import shown
from ..xml.tree import Element, local_name
from .elements import ipv4_elements

REFUSALS = {
    "name": "network name {name} must be letters, digits and any of -_.+, and begin with a letter "
    "or digit; rename the network",
    "no-name": "the network has no <name>; give it one",
    "forwarder": "network {name} is isolated (no <forward>), but its DNS asks others (<dns><forwarder>), "
    "which is a way out; remove the forwarder or add a <forward>",
    "device": "network {name}: forward mode {mode} puts guests on a device of the host's LAN, so "
    "that libvirt gives them no addresses to replace; define a new network with: loopnet define",
    "hostdev": "network {name}: forward mode {mode} hands a device of the host to each guest, so "
    "that no bridge sees their packets; define a new network with: loopnet define",
    "forward": "network {name}: forward mode {mode} is unknown; use nat, route or open",
    "no-ip": "network {name} has no <ip>, hence no addresses to replace; add one, or make a "
    "network with: loopnet define",
    "ipv6-only": "network {name} has IPv6 addresses only; add an IPv4 <ip> first",
    "many-ipv4": "network {name} has {count} IPv4 <ip> elements, and a guest's host number must "
    "stand for one address; keep one of them",
    "family": "network {name}: <ip family={family}> is neither ipv4 nor ipv6; correct it",
    "long": "network {name}: {prefix} has no room for a guest beside gateway and host; use /29 "
    "or shorter, or give --guest-prefix",
    "short": "network {name}: {prefix} doesn't fit beside 127.0.0.0/16 in 127.0.0.0/8; use /9 or "
    "longer, or give --guest-prefix",
    "gateway": "network {name}: its own address {address} is the first or last of {prefix}; give it another",
    "loopback": "network {name} is in 127.0.0.0/8 already ({prefix}); use --mode native, or give "
    "--guest-prefix",
    "element": "network {name}: <{element}> in <{parent}> is unknown; check the definition with: "
    "virt-xml-validate FILE network",
}
"""Reason -> message. Malformed XML and prefixes in conflict have errors of their own."""

_DEVICE_MODES = ("bridge", "private", "vepa", "passthrough")
_ROUTED_MODES = ("nat", "route", "open")
_CHILDREN = {
    "network": "name uuid title description metadata bridge mtu mac forward virtualport portgroup "
    "domain dns bandwidth vlan port ip route",
    "ip": "tftp dhcp",
    "dhcp": "range host bootp",
    "forward": "interface address pf driver nat",
}
"""Elements of libvirt's network.rng up to 11.3, where a change of ours has to know all."""


def refusal(reason: str, **facts: object) -> InputError:
    """The error for a reason of REFUSALS."""
    return InputError(REFUSALS[reason].format(**facts))


def check_rewritable(network: Element) -> None:
    """Raise InputError for a ``<network>`` that has no IPv4 prefix of its own to move."""
    name = network.findtext("name")
    if not name:
        raise refusal("no-name")
    _check_known(name, network)
    for child in (*network.findall("ip"), *network.findall("forward")):
        _check_known(name, child)
        for dhcp in child.findall("dhcp"):
            _check_known(name, dhcp)
    _check_forward(name, network)
    _check_addresses(name, network)


def _check_known(name: str, element: Element) -> None:
    known = _CHILDREN[element.tag].split()
    for child in element:
        if "}" not in child.tag and child.tag not in known:
            raise refusal("element", name=shown(name), element=local_name(child.tag), parent=element.tag)


def _check_forward(name: str, network: Element) -> None:
    forward = network.find("forward")
    if forward is None:
        if any(dns.find("forwarder") is not None for dns in network.findall("dns")):
            raise refusal("forwarder", name=shown(name))
        return
    mode = forward.get("mode", "nat")
    if mode == "hostdev":
        raise refusal("hostdev", name=shown(name), mode=mode)
    if mode in _DEVICE_MODES:
        raise refusal("device", name=shown(name), mode=mode)
    if mode not in _ROUTED_MODES:
        raise refusal("forward", name=shown(name), mode=shown(mode))


def _check_addresses(name: str, network: Element) -> None:
    families = [ip.get("family", "ipv4") for ip in network.findall("ip")]
    for family in families:
        if family not in ("ipv4", "ipv6"):
            raise refusal("family", name=shown(name), family=shown(family))
    if not families:
        raise refusal("no-ip", name=shown(name))
    count = len(ipv4_elements(network))
    if count == 0:
        raise refusal("ipv6-only", name=shown(name))
    if count > 1:
        raise refusal("many-ipv4", name=shown(name), count=count)
