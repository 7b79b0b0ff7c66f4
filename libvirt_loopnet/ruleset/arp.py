"""Table ``arp loopnet``: guards of the host's neighbour table."""

from __future__ import annotations

from collections.abc import Sequence

from ..model import Network
from .phrases import braces, drop_local


def arp_table(networks: Sequence[Network]) -> str:
    """On our bridges the host believes a guest's own word about itself only; elsewhere it neither says
    nor hears a word about our addresses (it would answer the LAN for each address that it has)."""
    bridges = braces(f'"{n.bridge}"' for n in networks)
    guard = drop_local("arp saddr ip", "arp daddr ip")
    return f"""\
table arp loopnet {{
	set neighbours {{
		type ifname . ether_addr . ipv4_addr
	}}
	chain input {{
		type filter hook input priority 0; policy accept;
		iifname . arp saddr ether . arp saddr ip @neighbours accept
		iifname {bridges} drop
{guard}	}}
	chain output {{
		type filter hook output priority 0; policy accept;
		oifname {bridges} accept
{guard}	}}
}}
"""
