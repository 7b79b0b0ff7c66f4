"""Definitions that are made: a new network, and the metadata that makes a network loopnet's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network

from ..addresses.labels import dns_label
from ..model import ALL, FREE, NAT, Network, Reservation
from ..prefixes import check_guest_prefix, check_loop_prefix
from ..validation import check_name
from ..xml.document import Node, make, pretty
from .dnsmasq_options import OPTION_TAG, OPTIONS_TAG, dnsmasq_options
from .elements import DEFAULT_DOMAIN, DEFAULT_GATEWAY, OWN_HOST_TAG, OWN_TAG


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
    if network.ipv6:
        given["ipv6"] = str(network.ipv6)
    if network.ipv6_forward != (NAT if network.ipv6 else ""):
        given["ipv6-forward"] = network.ipv6_forward
    return given


def host_attributes(reservation: Reservation) -> dict[str, str]:
    """The attributes of <loopnet:host>, the way a definition reserves a host number."""
    given = (
        ("number", str(reservation.number)),
        ("mac", reservation.mac),
        ("name", reservation.name),
    )
    return {key: value for key, value in given if value}


def own_metadata(network: Network, hosts: Sequence[Reservation]) -> Node:
    """The <loopnet:network> element."""
    children = [make(OWN_HOST_TAG, host_attributes(host)) for host in hosts]
    return make(OWN_TAG, own_attributes(network), *children, prefix="loopnet")


def dnsmasq_element(values: Iterable[str]) -> Node:
    """The <dnsmasq:options> element."""
    return make(OPTIONS_TAG, {}, *map(dnsmasq_option, values), prefix="dnsmasq")


def dnsmasq_option(value: str) -> Node:
    """One of its children."""
    return make(OPTION_TAG, {"value": value}, prefix="dnsmasq")


def new_network(
    name: str,
    loop_prefix: IPv4Network,
    guest_prefix: IPv4Network,
    mode: str,
    addresses: str = FREE,
    internet: str = ALL,
    ipv6: IPv6Network | None = None,
    *,
    uuid: str = "",
    bridge: str = "",
    bridge_mac: str = "",
) -> bytes:
    """A complete definition, for virsh net-define as it stands; libvirt picks UUID and bridge where they aren't given.

    The gateway is host number 1, the host has the last usable one.
    Raises InputError for a name or prefixes that a loopnet network can't have.
    """
    check_guest_prefix(guest_prefix, check_loop_prefix(loop_prefix), mode)
    host = loop_prefix.num_addresses - 2
    network = Network(
        name=check_name(name),
        uuid=uuid,
        bridge=bridge,
        bridge_mac=bridge_mac,
        mode=mode,
        loop_prefix=loop_prefix,
        guest_prefix=guest_prefix,
        gateway=DEFAULT_GATEWAY,
        host=host,
        domain=dns_label(name) or DEFAULT_DOMAIN,
        addresses=addresses,
        internet=internet,
        ipv6=ipv6,
        ipv6_forward=NAT if ipv6 else "",
    )
    # netmask, as libvirt's own network has it: vagrant-libvirt compares nothing else (network_util.rb)
    ip = {"address": str(network.loop_address(host)), "netmask": str(loop_prefix.netmask)}
    given = {"name": bridge} if bridge else {}
    return pretty(
        make(
            "network",
            {},
            make("name", {}, text=name),
            *([make("uuid", {}, text=uuid)] if uuid else []),
            make("metadata", {}, own_metadata(network, ())),
            make("forward", {"mode": "open"}),
            make("bridge", {**given, "stp": "off", "delay": "0"}),
            *([make("mac", {"address": bridge_mac})] if bridge_mac else []),
            make("domain", {"name": network.domain, "localOnly": "yes"}),
            make("ip", ip),
            dnsmasq_element(dnsmasq_options(network)),
        )
    )
