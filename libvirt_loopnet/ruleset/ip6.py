"""Table ``ip6 loopnet``: guards of the host and its guests in IPv6, and masquerade.

There while a network has IPv6 whose rules are ours; others' IPv6 passes as ever. Guests reach the host at its own
address in their prefix, which is what their router and DNS server is.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv6Network

from ..ipv6 import LINK_LOCAL
from ..model import NAT, NONE, ROUTE, SERVICES, Network, Published
from .phrases import block, braces, chain
from .published import forwarded, ipv6_chains

_DISCOVERY = (
    "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, "
    "mld-listener-report, mld-listener-done, mld2-listener-report } accept"
)
"""What conntrack does not track, and what no host is without (RFC 4890, 4.4.1)."""
_ANSWERS = "ct state established,related accept"


def ip6_table(networks: Sequence[Network], published: Sequence[Published] = ()) -> str:
    """The table, '' where no network needs it; ``published`` to guests that have their address."""
    ours = [network for network in networks if network.ipv6_prefixes]
    if not ours:
        return ""
    bridges = braces(f'"{n.bridge}"' for n in ours)
    published = [each for each in published if each.publication.is_ipv6]

    def dispatch(kind: str) -> str:
        return braces(f'"{n.bridge}" : goto {chain(kind, n)}' for n in ours)

    within = braces(f'"{n.bridge}" . "{n.bridge}"' for n in ours)
    hidden = [prefix for n in ours if n.ipv6_forward == NAT for prefix in n.ipv6_prefixes]
    head = f"""\
table ip6 loopnet {{
	set nics {{
		type ether_addr
	}}
	chain prerouting {{
		type filter hook prerouting priority -300; policy accept;
		iif "lo" accept
		iifname {bridges} ether saddr @nics accept
		iifname {bridges} drop
{_drop("ip6 saddr", hidden)}{_drop("ip6 daddr", hidden)}	}}
	chain input {{
		type filter hook input priority -10; policy accept;
		iifname != {bridges} accept
		iifname vmap {dispatch("input")}
		drop
	}}
	chain forward {{
		type filter hook forward priority -10; policy accept;
		iifname . oifname {within} accept
		oifname {bridges} goto inwards
		iifname {bridges} goto outwards
{_drop("ip6 saddr", hidden)}{_drop("ip6 daddr", hidden)}	}}
	chain inwards {{
{forwarded("ip6", published) if published else ""}		{_ANSWERS}
		iifname {bridges} drop
		oifname vmap {dispatch("inwards")}
		drop
	}}
	chain outwards {{
		iifname vmap {dispatch("outwards")}
		drop
	}}
	chain source-nat {{
		type nat hook postrouting priority 100; policy accept;
		oif "lo" accept
		oifname {bridges} accept
{"".join(f"		ip6 saddr {prefix} masquerade{chr(10)}" for prefix in hidden)}	}}
	chain postrouting {{
		type filter hook postrouting priority 101; policy accept;
		oif "lo" accept
		oifname {bridges} accept
{_drop("ip6 saddr", hidden)}	}}
"""
    lines: list[str] = []
    for network in ours:
        others = [prefix for n in ours if n != network for prefix in n.ipv6_prefixes]
        lines += block("input", network, _input(network, others))
        lines += block("inwards", network, _inwards(network))
        lines += block("outwards", network, _outwards(network))
    inwards = ipv6_chains(ours, published) if published else ""
    return head + "".join(f"\t{line}\n" for line in lines) + inwards + "}\n"


def _drop(field: str, prefixes: Sequence[IPv6Network]) -> str:
    return "".join(f"\t\t{field} {prefix} drop\n" for prefix in prefixes)


def _input(network: Network, others: Sequence[IPv6Network]) -> list[str]:
    """What guests may begin with the host, as in table ip."""
    own = braces([str(LINK_LOCAL), *map(str, network.ipv6_own)])
    rules = [
        _DISCOVERY,
        _ANSWERS,
        f"ip6 daddr {braces(['ff02::1:2', 'ff05::1:3'])} udp dport 547 accept",
        f"ip6 daddr {own} udp dport 547 accept",
    ]
    if network.guest_to_host == NONE:
        return [*rules, "drop"]
    if network.guest_to_host == SERVICES:
        dns = [f"ip6 daddr {own} {protocol} dport 53 accept" for protocol in ("udp", "tcp")]
        return [*rules, *dns, f"ip6 daddr {own} icmpv6 type echo-request accept", "drop"]
    return [*rules, *(f"ip6 daddr {prefix} drop" for prefix in others), "accept"]


def _inwards(network: Network) -> list[str]:
    """New connections come to guests where libvirt let them, to prefixes that it routes."""
    if network.ipv6_forward != ROUTE or network.internet == NONE:
        return ["drop"]
    return [*(f"ip6 daddr {prefix} accept" for prefix in network.ipv6_prefixes), "drop"]


def _outwards(network: Network) -> list[str]:
    if network.internet == NONE:
        return ["drop"]
    return [*(f"ip6 saddr {prefix} accept" for prefix in network.ipv6_prefixes), "drop"]
