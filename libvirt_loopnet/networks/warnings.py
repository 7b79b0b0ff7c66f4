"""What guests or the host will find different after a rewrite, one line each."""

from __future__ import annotations

from collections.abc import Iterator

from ..model import Network
from ..prefixes import known_user
from ..validation import shown
from ..xml.tree import Element
from .elements import ipv4_address, ipv4_elements, ipv6_elements

_ALL_PORTS = {"start": "1024", "end": "65535"}
"""What libvirt writes for a network that says nothing of ports."""


def find_warnings(root: Element, network: Network, old: Network | None) -> tuple[str, ...]:
    """Warnings for the definition ``root`` becoming ``network``; ``old``: what it was of ours."""
    found = [*_forward(root), *_prefixes(root, network, old)]
    if old is None:
        found += [*_dhcp(root), *_ipv6(root, network)]
    return tuple(f"network {network.name}: {text}" for text in found)


def _forward(root: Element) -> Iterator[str]:
    forward = root.find("forward")
    if forward is None:
        return
    device = forward.get("dev") or next((i.get("dev") for i in forward.findall("interface")), "")
    if device:
        yield f"guests go out by any route of the host, no longer only through {shown(device)}"
    if forward.get("mode", "nat") == "route":
        yield "guests go out by masquerade, and nothing new reaches them from outside any more"
    nat = forward.find("nat")
    if nat is None:
        return
    port = nat.find("port")
    if nat.find("address") or (port and port.attrib != _ALL_PORTS):
        yield "masquerade takes the host's own addresses and ports, no longer those of <nat>"


def _prefixes(root: Element, network: Network, old: Network | None) -> Iterator[str]:
    former = old.guest_prefix if old else ipv4_address(network.name, ipv4_elements(root)[0])[1]
    if former != network.guest_prefix:
        yield f"guests with static addresses must move from {former} to {network.guest_prefix}"
    user = known_user(network.loop_prefix)
    if user:
        yield f"{network.loop_prefix} is also used by {user}; choose another if you use that"
    if any(route.get("family", "ipv4") == "ipv4" for route in root.findall("route")):
        yield "IPv4 <route> stays, but what a guest forwards for others is dropped"


def _dhcp(root: Element) -> Iterator[str]:
    dhcp = [child for ip in ipv4_elements(root) for child in ip.findall("dhcp")]
    if not dhcp:
        yield (
            "it had no DHCP, now guests that ask get the address reserved for them; reserve those "
            "set by hand with loopnet reserve GUEST ADDRESS"
        )
    if any(list(child) for each in dhcp for child in each):
        yield "lease times go away: addresses are reserved for good"


def _ipv6(root: Element, network: Network) -> Iterator[str]:
    if ipv6_elements(root) and not network.ipv6_forward:
        yield "libvirt has no firewall rules for its IPv6 any more, as always in forward mode open"
