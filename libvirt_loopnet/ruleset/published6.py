"""Published ports in IPv6: parts of table ``ip6 loopnet`` that are there only while there are any.

For all who reach the host's own addresses, where the guest has its number's address. Not at ::1, as the kernel has no
route_localnet in IPv6 (DNAT and SNAT alone were tried in vain): who is refused there asks 127.0.0.1 next. Who is named
with ``--from`` is so in one family.

The guest itself has no answer where br_netfilter shows IPv6 to these rules: the kernel replaces the destination while
it is a frame, finds it on the same bridge, and bridges it (br_nf_pre_routing_finish_ipv6() in br_netfilter_ipv6.c) back
to the port that it came by, which a bridge never does (should_deliver() in br_forward.c). In IPv4 the transit address
has a neighbour that leads to the bridge itself; here the guest has one address for all.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..model import Network, Published
from .clients import PORTS, by_clients, closed, coming_from, forwarded, listed, named
from .phrases import braces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .clients import Clients

_SERVICES = "{ 53, 547 }"
"""What dnsmasq has at the gateway stays there."""


def for_ipv6(published: Sequence[Published]) -> list[Published]:
    """Those that are for anybody who comes by IPv6."""
    return [each for each in published if each.publication.is_ipv6]


def published6_chains(networks: Sequence[Network], published: Sequence[Published]) -> str:
    """What comes for a port of the host's goes to a guest instead."""
    groups = by_clients(published)
    by_name = {network.name: network for network in networks}
    maps = "".join(_maps(clients, by_name, each) for clients, each in groups.items())
    to_guests, from_host = (
        "".join(f"\t\t{who(clients)}{PORTS} {_redirect(clients)}\n" for clients in groups)
        for who in (coming_from, lambda _: "")
    )
    gateways = braces(f'"{n.bridge}" . {own}' for n in networks for own in n.ipv6_own)
    prefixes = braces(str(prefix) for n in networks for prefix in n.ipv6_prefixes)
    return f"""\
{maps}\
	chain published {{
{to_guests}	}}
	chain published-to-host {{
{from_host}	}}
	chain at-gateway {{
		{PORTS} th dport {_SERVICES} accept
		iifname . ip6 daddr {gateways} goto published
	}}
	chain from-lan {{
		type nat hook prerouting priority -100; policy accept;
		iif "lo" accept
{closed(networks)}		ip6 daddr {prefixes} goto at-gateway
		fib daddr type local goto published
	}}
	chain from-host {{
		type nat hook output priority -100; policy accept;
		ip6 daddr ::1 accept
		ip6 daddr {prefixes} accept
		fib daddr type local goto published-to-host
	}}
	chain published-source {{
		type nat hook postrouting priority 99; policy accept;
{"".join(_answerable(network, prefixes) for network in networks)}	}}
"""


def _maps(clients: Clients, networks: dict[str, Network], published: Sequence[Published]) -> str:
    ports: list[str] = []
    targets: set[str] = set()
    for name, number, publication, _ in published:
        guest = networks[name].ipv6_address(number)
        for port, guest_port in publication.pairs:
            ports.append(f"{publication.protocol} . {port} : {guest} . {guest_port}")
            targets.add(f"{guest} . {publication.protocol} . {guest_port}")
    return f"""\
	map {named("published", clients)} {{
		type inet_proto . inet_service : ipv6_addr . inet_service
{listed(ports)}	}}
	set {named("published-to", clients)} {{
		type ipv6_addr . inet_proto . inet_service
{listed(sorted(targets))}	}}
"""


def _redirect(clients: Clients) -> str:
    return f"dnat ip6 to meta l4proto . th dport map @{named('published', clients)}"


def _answerable(network: Network, prefixes: str) -> str:
    """Other guests, whom it would look for on its own wire, and the host itself, a guest sees as the gateway."""
    return "".join(
        f'\t\toifname "{network.bridge}" ct status dnat {who} snat to {network.ipv6_own[0]}\n'
        for who in (f"ip6 saddr {prefixes}", "fib saddr type local")
    )


def forward_published6(published: Sequence[Published]) -> str:
    """Rules of what comes for guests."""
    return forwarded("ip6", published)
