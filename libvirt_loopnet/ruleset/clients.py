"""What the rules of published ports have in common in IPv4 and IPv6: who may reach one, and what is forwarded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network

from ..model import EVERYBODY, NONE, Network, Published
from ..prefixes import LOOPBACK, transit_prefix
from .phrases import braces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    Clients = Union[IPv4Network, IPv6Network]

PORTS = "meta l4proto { tcp, udp }"


def by_clients(published: Iterable[Published]) -> dict[Clients, list[Published]]:
    """Publications for the same clients."""
    groups: dict[Clients, list[Published]] = {}
    for each in published:
        groups.setdefault(each.publication.clients, []).append(each)
    return groups


def named(kind: str, clients: Clients) -> str:
    """A map or set for these clients; nft takes no colons there."""
    if clients == EVERYBODY:
        return kind
    is_ipv4 = isinstance(clients, IPv4Network)
    first = str(clients.network_address) if is_ipv4 else f"{int(clients.network_address):x}"
    return f"{kind}-{first}/{clients.prefixlen}"


def coming_from(clients: Clients) -> str:
    """Guests are known by their loop addresses, and come with their transit addresses."""
    if clients == EVERYBODY:
        return ""
    if not isinstance(clients, IPv4Network):
        return f"ip6 saddr {clients} "
    return f"ip saddr {transit_prefix(clients) if clients.subnet_of(LOOPBACK) else clients} "


def closed(networks: Sequence[Network]) -> str:
    """Guests of an isolated network reach no guest of another."""
    bridges = [f'"{network.bridge}"' for network in networks if network.internet == NONE]
    return f"\t\tiifname {braces(bridges)} accept\n" if bridges else ""


def listed(elements: Sequence[str]) -> str:
    """A map's or set's, if there are any."""
    return f"\t\telements = {braces(elements)}\n" if elements else ""


def forwarded(family: str, published: Sequence[Published]) -> str:
    """What isn't published any more is dropped though it is established, so that it ends at once."""
    inwards = f"ct direction original ct status dnat {PORTS}"
    accepts = "".join(
        f"\t\t{inwards} {coming_from(clients)}{family} daddr . meta l4proto . th dport"
        f" @{named('published-to', clients)} accept\n"
        for clients in by_clients(published)
    )
    return f"{accepts}\t\t{inwards} drop\n"
