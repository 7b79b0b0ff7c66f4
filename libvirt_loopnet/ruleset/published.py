"""Published ports: parts of table ``ip loopnet`` that are there only while there are any."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..model import ANY_ADDRESS, NATIVE, Network, Published
from .phrases import LOCAL, braces


def published_chains(networks: Sequence[Network], bridges: str, published: Sequence[Published]) -> str:
    """What comes for a port of the host's goes to a guest's transit address instead.

    Only what comes for an address of the host's, from the LAN or from the host itself; guests find there
    what the host has. 127/8 is spared: answers could not come back to it.
    """
    by_name = {network.name: network for network in networks}
    here: list[str] = []
    anywhere: list[str] = []
    targets: set[str] = set()
    for name, number, (protocol, address, port, guest_port) in published:
        guest = by_name[name].transit_address(number)
        element = f"{protocol} . {port} : {guest} . {guest_port}"
        if address == ANY_ADDRESS:
            anywhere.append(element)
        else:
            here.append(f"{address} . {element}")
        targets.add(f"{guest} . {protocol} . {guest_port}")
    service, at = "inet_proto . inet_service", "ipv4_addr . inet_service"
    return f"""\
	map published {{
		type ipv4_addr . {service} : {at}
{_listed(here)}	}}
	map published-anywhere {{
		type {service} : {at}
{_listed(anywhere)}	}}
	set published-to {{
		type ipv4_addr . {service}
{_listed(sorted(targets))}	}}
	chain published {{
		meta l4proto {{ tcp, udp }} dnat ip to ip daddr . meta l4proto . th dport map @published
		meta l4proto {{ tcp, udp }} dnat ip to meta l4proto . th dport map @published-anywhere
	}}
	chain from-lan {{
		type nat hook prerouting priority -100; policy accept;
		iifname {bridges} accept
		fib daddr type local jump published
	}}
	chain from-host {{
		type nat hook output priority -100; policy accept;
{_spare_local()}		fib daddr type local jump published
	}}
"""


def _spare_local() -> str:
    return "".join(f"\t\tip daddr {prefix} accept\n" for prefix in LOCAL)


def _listed(elements: Sequence[str]) -> str:
    return f"\t\telements = {braces(elements)}\n" if elements else ""


def forward_published(published: bool) -> str:
    """What isn't published any more is dropped though it is established, so that it ends at once."""
    inwards = "ct direction original ct status dnat meta l4proto { tcp, udp }"
    accept = f"\t\t{inwards} ip daddr . meta l4proto . th dport @published-to accept\n"
    return f"{accept if published else ''}\t\t{inwards} drop\n"


def answerable(networks: Iterable[Network]) -> str:
    """A client whose address is in the guest prefix is at home there to the guest, which would look for it
    on its own wire; so it hears the gateway instead. All others keep their address."""
    return "".join(
        f'\t\toifname "{n.bridge}" ip saddr {n.guest_prefix} ct status dnat'
        f" snat to {n.transit_address(n.gateway)}\n"
        for n in networks
        if n.mode != NATIVE
    )
