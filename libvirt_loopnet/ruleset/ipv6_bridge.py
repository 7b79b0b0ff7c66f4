"""What a guest may send in IPv6: parts of table ``bridge loopnet``, for networks whose IPv6 rules are ours.

No address is exchanged there. A NIC may send as its reservation, from a fe80 address, and from others in the
network's prefix that nobody has reserved (SLAAC, RFC 4862), as in IPv4. The same holds for what it says
by neighbour discovery (RFC 4861) that it has: the target of an advertisement, and of a solicitation from ``::`` by
which it finds out whether it is alone with an address (RFC 4862, 5.4). A fe80 address made of a MAC address is
that NIC's while it is live.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network

from ..ipv6 import LINK_LOCAL, link_local
from ..model import NONE, Network
from .moves import TRANSPORT_HEADER, Claim, Move
from .phrases import block, braces, chain, host_numbers, is_free

_LIFETIME = 1800
"""Seconds for which guests keep the host as their router: three of dnsmasq's longest intervals (RFC 4861, 6.2.1)."""
_LIFETIME_OFFSET = 6
"""Of the router lifetime in an advertisement; two bytes of the reachable time follow, which stay."""


def ipv6_sets(network: Network) -> list[str]:
    """Who may be which address, and whom nobody else may be."""
    if not network.ipv6_prefixes:
        return []
    never = [*network.ipv6_own, *([link_local(network.bridge_mac)] if network.bridge_mac else [])]
    if network.ipv6:
        never += [network.ipv6[number] for number in host_numbers(network) if number != network.gateway]
    elements = braces(map(str, sorted(set(never))))
    return [
        f"set {chain('senders6', network)} {{ type ether_addr . ipv6_addr; }}",
        f"set {chain('reserved6', network)} {{ type ipv6_addr; elements = {elements}; }}",
    ]


def ipv6_from_guest(network: Network) -> list[str]:
    """The end of the chain for all that a known NIC sends."""
    if network.ipv6_prefixes:
        return [f"meta protocol ip6 goto {chain('ip6-from', network)}"]
    return _NO_SERVERS


_NO_SERVERS = [
    "icmpv6 type { nd-router-advert, nd-redirect } drop",  # no guest is a router, or a DHCP server
    "meta protocol ip6 udp sport 547 drop",
]


def ipv6_chains(network: Network) -> list[str]:
    """All chains, in an order in which none is unknown."""
    if not network.ipv6_prefixes:
        return []
    claim, claimed = chain("nd-claim", network), chain("ip6-claimed", network)
    senders, reserved = chain("senders6", network), chain("reserved6", network)
    prefixes, own = network.ipv6_prefixes, braces(map(str, network.ipv6_own))
    lines = block("nd-free", network, [*_free_targets(network), "drop"])
    # What claims() has is put before this: nft of Debian 12 knows no way to look a target up.
    lines += block("nd-claim", network, ["drop"])
    lines += block(
        "ip6-claimed",
        network,
        [
            # Not through the host and back: that would lead around port isolation.
            *(
                f"ether daddr {network.bridge_mac} ip6 daddr {prefix} ip6 daddr != {own} drop"
                for prefix in prefixes
            ),
            f"icmpv6 type nd-neighbor-advert goto {claim}",
            "accept",
        ],
    )
    lines += block(
        "ip6-unspecified",
        network,
        [
            f"icmpv6 type nd-neighbor-solicit goto {claim}",
            "icmpv6 type { nd-router-solicit, mld-listener-report, mld-listener-done, mld2-listener-report } accept",
            "drop",
        ],
    )
    lines += block(
        "ip6-from",
        network,
        [
            *_NO_SERVERS,
            f"ether saddr . ip6 saddr @{senders} goto {claimed}",
            f"ip6 saddr :: goto {chain('ip6-unspecified', network)}",
            f"ip6 saddr @{reserved} drop",
            *(f"ip6 saddr {prefix} goto {claimed}" for prefix in _free_prefixes(network)),
            f"ip6 saddr {LINK_LOCAL} goto {claimed}",
            "drop",
        ],
    )
    return [*lines, *block("router", network, [])]


def _free_prefixes(network: Network) -> tuple[IPv6Network, ...]:
    """Where guests choose addresses: what libvirt gives them is its own affair."""
    return network.ipv6_prefixes if is_free(network) or not network.ipv6 else ()


def _free_targets(network: Network) -> list[str]:
    """The target stands 8 bytes behind the beginning of the message (RFC 4861, 4.3 and 4.4)."""
    rules = []
    for prefix in _free_prefixes(network):
        value = int(prefix.network_address) >> (128 - prefix.prefixlen)
        rules.append(f"@th,64,{prefix.prefixlen} {value:#x} accept")
    return [*rules, "@th,64,10 0x3fa accept"]


def claims(network: Network) -> list[Claim]:
    """What a NIC may claim; in the order in which the rules are inserted, each before the last."""
    if not network.ipv6_prefixes:
        return []
    claim = chain("nd-claim", network)
    return [
        Claim(claim, chain("reserved6", network), chain("nd-free", network)),
        Claim(claim, chain("senders6", network), ""),
    ]


def router(network: Network) -> list[Move]:
    """What makes the host the guests' router in its advertisement, in a chain that is used only while it is one."""
    if not network.ipv6_prefixes:
        return []
    lifetime = IPv4Network((_LIFETIME << 16, 16))
    return [
        Move(chain("router", network), TRANSPORT_HEADER, _LIFETIME_OFFSET, 1, IPv4Network((0, 0)), lifetime)
    ]


def ipv6_output(networks: Sequence[Network], is_router: bool) -> str:
    """What the host says of itself, where it has a way out to offer."""
    return "".join(
        f"\t\tether saddr {n.bridge_mac} icmpv6 type nd-router-advert jump {chain('router', n)}\n"
        for n in networks
        if is_router and n.ipv6 and n.internet != NONE
    )
