"""Published ports in IPv6: parts of table ``ip6 loopnet`` that are there only while there are any.

For the LAN, containers and guests of libvirt's other networks, at the host's own addresses, and where the guest has its
number's address. Guests of ours have IPv4 for that, and each other; so has who is named with ``--from``.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..model import ANY_ADDRESS, EVERYBODY, Network, Published
from .phrases import braces

_PORTS = "meta l4proto { tcp, udp }"


def for_ipv6(published: Sequence[Published]) -> list[Published]:
    """Those that are for everybody, at all of the host's addresses."""
    return [
        each
        for each in published
        if each.publication.address == ANY_ADDRESS and each.publication.clients == EVERYBODY
    ]


def published6_chains(networks: Sequence[Network], bridges: str, published: Sequence[Published]) -> str:
    """What comes for a port of the host's goes to a guest instead."""
    by_name = {network.name: network for network in networks}
    ports: list[str] = []
    targets: set[str] = set()
    for name, number, publication, _ in published:
        guest = by_name[name].ipv6_address(number)
        for port, guest_port in publication.pairs:
            ports.append(f"{publication.protocol} . {port} : {guest} . {guest_port}")
            targets.add(f"{guest} . {publication.protocol} . {guest_port}")
    return f"""\
	map published {{
		type inet_proto . inet_service : ipv6_addr . inet_service
		elements = {braces(ports)}
	}}
	set published-to {{
		type ipv6_addr . inet_proto . inet_service
		elements = {braces(sorted(targets))}
	}}
	chain from-lan {{
		type nat hook prerouting priority -100; policy accept;
		iif "lo" accept
		iifname {bridges} accept
		fib daddr type local {_PORTS} dnat ip6 to meta l4proto . th dport map @published
	}}
"""


def forward_published6(bridges: str) -> str:
    """What isn't published any more is dropped though it is established, so that it ends at once."""
    inwards = f"ct direction original ct status dnat {_PORTS}"
    return (
        f"\t\tiifname != {bridges} {inwards} ip6 daddr . meta l4proto . th dport @published-to accept\n"
        f"\t\t{inwards} drop\n"
    )
