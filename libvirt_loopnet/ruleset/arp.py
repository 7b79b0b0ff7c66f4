"""Table ``arp loopnet``: which ARP the host itself believes and answers. What guests may send, in ARP too, is in
bridge.py."""

from __future__ import annotations

from collections.abc import Sequence

from ..model import NATIVE, Network
from .phrases import braces, drop_local, host_numbers, is_free, move, unreserved


def arp_table(networks: Sequence[Network]) -> str:
    """On our bridges the host believes a guest's own word about itself only, and about what nobody has
    reserved; elsewhere it neither says nor hears a word about our addresses (it would answer the LAN for
    each address that it has).

    What guests say to all, as when an address moves from one to another, has their own addresses still.
    """
    bridges = braces(f'"{n.bridge}"' for n in networks)
    guard = drop_local("arp saddr ip", "arp daddr ip")
    known = "iifname . arp saddr ether . arp saddr ip @neighbours accept"
    never = [str(n.loop_address(number)) for n in networks if is_free(n) for number in host_numbers(n)]
    told = [rule for network in networks if network.mode != NATIVE for rule in _to_loop(network)]
    rules = [known, *told, *([known] if told else []), *(_free(n) for n in networks if is_free(n))]
    lines = "".join(f"\t\t{rule}\n" for rule in rules)
    return f"""\
table arp loopnet {{
	set neighbours {{
		type ifname . ether_addr . ipv4_addr
	}}
	set nics {{
		type ifname . ether_addr
	}}
	set reserved_addresses {{
		type ipv4_addr
{f"		elements = {braces(never)}{chr(10)}" if never else ""}	}}
	chain input {{
		type filter hook input priority 0; policy accept;
{lines}		iifname {bridges} drop
{guard}	}}
	chain output {{
		type filter hook output priority 0; policy accept;
		oifname {bridges} accept
{guard}	}}
}}
"""


def _to_loop(network: Network) -> list[str]:
    return [
        f'iifname "{network.bridge}" {field} {network.guest_prefix} {move(field, network.loop_prefix)}'
        for field in ("arp saddr ip", "arp daddr ip")
    ]


def _free(network: Network) -> str:
    free = unreserved("arp saddr ip", network.loop_prefix, "reserved_addresses")
    return f'iifname "{network.bridge}" {free} iifname . arp saddr ether @nics accept'
