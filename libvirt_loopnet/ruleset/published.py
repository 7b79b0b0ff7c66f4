"""Published ports: parts of table ``ip loopnet`` that are there only while there are any.

Everybody reaches a port of a guest who would reach the same port of the host: the LAN, containers, guests of
libvirt's other networks and of ours, the host itself. So what comes for the host goes to the guest's transit
address, and who asks keeps his own address where the guest can answer it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..model import ANY_ADDRESS, LOCALHOST, NATIVE, Network, Published
from ..prefixes import LOOPBACK, TRANSIT
from .clients import PORTS, by_clients, closed, coming_from, forwarded, listed, named
from .phrases import LOCAL, braces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .clients import Clients

_SERVICES = "{ 53, 67, 69 }"
"""DNS, DHCP and TFTP: what dnsmasq has at the gateway stays there."""


def published_chains(networks: Sequence[Network], bridges: str, published: Sequence[Published]) -> str:
    """What comes for a port of the host's goes to a guest's transit address instead.

    At 127.0.0.1 only the host itself comes for it, and only where no program had the port before.
    """
    groups = by_clients(published)
    by_name = {network.name: network for network in networks}
    maps = "".join(_maps(clients, by_name, each) for clients, each in groups.items())
    to_guests = "".join(_redirect(clients, coming_from(clients)) for clients in groups)
    from_host = "".join(_redirect(clients, "") for clients in groups)
    gateways = braces(f'"{n.bridge}" . {address}' for n in networks for address in n.own_transit)
    return f"""\
{maps}\
	chain published {{
{to_guests}	}}
	chain published-to-host {{
{from_host}	}}
	chain at-gateway {{
		{PORTS} th dport {_SERVICES} accept
		iifname . ip daddr {gateways} goto published
	}}
	chain from-lan {{
		type nat hook prerouting priority -100; policy accept;
{closed(networks)}		ip daddr {LOOPBACK} accept
		ip daddr {TRANSIT} goto at-gateway
		fib daddr type local goto published
	}}
	chain from-host {{
		type nat hook output priority -100; policy accept;
		ip daddr {LOCALHOST} goto published-to-host
{_spare_local()}		fib daddr type local goto published-to-host
	}}
	chain published-source {{
		type nat hook postrouting priority 99; policy accept;
{"".join(_answerable(network) for network in networks)}\
		oifname {bridges} ct status dnat snat to ip saddr
	}}
"""


def _maps(clients: Clients, networks: dict[str, Network], published: Iterable[Published]) -> str:
    here: list[str] = []
    anywhere: list[str] = []
    targets: set[str] = set()
    for name, number, publication, taken in published:
        guest = networks[name].transit_address(number)
        for port, guest_port in publication.pairs:
            element = f"{publication.protocol} . {port} : {guest} . {guest_port}"
            targets.add(f"{guest} . {publication.protocol} . {guest_port}")
            if publication.address != ANY_ADDRESS:
                here.append(f"{publication.address} . {element}")
                continue
            anywhere.append(element)
            if port not in taken:
                here.append(f"{LOCALHOST} . {element}")
    service, at = "inet_proto . inet_service", "ipv4_addr . inet_service"
    return f"""\
	map {named("published", clients)} {{
		type ipv4_addr . {service} : {at}
{listed(here)}	}}
	map {named("published-anywhere", clients)} {{
		type {service} : {at}
{listed(anywhere)}	}}
	set {named("published-to", clients)} {{
		type ipv4_addr . {service}
{listed(sorted(targets))}	}}
"""


def _redirect(clients: Clients, who: str) -> str:
    """By the address asked for; 127.0.0.1 isn't any of the host's addresses, to those who ask for it."""
    here, anywhere = named("published", clients), named("published-anywhere", clients)
    return (
        f"\t\t{who}{PORTS} dnat ip to ip daddr . meta l4proto . th dport map @{here}\n"
        f"\t\t{who}{PORTS} ip daddr != {LOOPBACK} dnat ip to meta l4proto . th dport map @{anywhere}\n"
    )


def _spare_local() -> str:
    return "".join(f"\t\tip daddr {prefix} accept\n" for prefix in LOCAL)


def forward_published(published: Sequence[Published]) -> str:
    """Rules of what comes for guests."""
    return forwarded("ip", published)


def _answerable(network: Network) -> str:
    """Whom the guest could not answer, it sees as the gateway: another guest, of which it would think that
    it is on its own wire, or that no such address exists; the host as 127.0.0.1; a client whose address is
    in the guest prefix. All others keep their address, and that is decided here, before Docker, libvirt and
    the like masquerade what leaves their own networks: the bridge's address would tell the guest nothing, and
    its answers would not come back."""
    prefixes = [*LOCAL, *([] if network.mode == NATIVE else [network.guest_prefix])]
    gateway = network.transit_address(network.gateway)
    return "".join(
        f'\t\toifname "{network.bridge}" ip saddr {prefix} ct status dnat snat to {gateway}\n'
        for prefix in prefixes
    )


def answers_to_localhost(published: Sequence[Published]) -> list[str]:
    """Rules of input: what 127.0.0.1 asked of a published port is answered from a transit address."""
    return [f"ip daddr {LOCALHOST} ct status dnat ct state established,related accept"] if published else []
