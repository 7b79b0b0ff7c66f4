"""Table ``bridge loopnet``: who may send what, and addresses exchanged, before br_netfilter and conntrack."""

from __future__ import annotations

from collections.abc import Sequence

from ..model import NATIVE, NONE, Network
from ..prefixes import LOOPBACK, TRANSIT
from .ipv6_bridge import ipv6_chains, ipv6_from_guest, ipv6_output, ipv6_sets
from .phrases import (
    FEW,
    ICMP_ERRORS,
    block,
    braces,
    chain,
    host_numbers,
    is_free,
    move,
    remember,
    seen,
    unreserved,
)

STRANGERS = "seen-strangers"
"""The set of devices and MAC addresses of what is dropped since it is not the device's own. One that finds it full is
dropped unseen: the rule that remembers goes no further then, and so is one of its own."""


def bridge_table(networks: Sequence[Network], is_ipv6_router: bool = False) -> str:
    """The table; what guests send is told by tap, MAC and IP address at once, or else is looked at closer."""
    from_host = "".join(f"\t\t{_from_host(each)}\n" for each in networks) if len(networks) <= FEW else ""
    head = f"""\
table bridge loopnet {{
	map bound-senders {{
		type ifname . ether_addr . ipv4_addr : verdict
	}}
	map bound {{
		type ifname . ether_addr : verdict
	}}
	set taps {{
		type ifname
	}}
	set bound-macs {{
		type ether_addr
	}}
	map unbound {{
		type ether_addr : verdict
	}}
	set macs {{
		type ether_addr
	}}
	set {STRANGERS} {{
		type ifname . ether_addr
		size 1024
		flags dynamic,timeout
		timeout 10m
	}}
	chain prerouting {{
		type filter hook prerouting priority -300; policy accept;
{_no_ipv6_out(networks)}\
		iifname . ether saddr . ip saddr vmap @bound-senders
		iifname @taps goto tap
		ether saddr @macs goto mac
	}}
	chain tap {{
		iifname . ether saddr vmap @bound
		goto stranger
	}}
	chain mac {{
		ether saddr @bound-macs goto stranger
		ether saddr vmap @unbound
		drop
	}}
	chain stranger {{
		update @{STRANGERS} {{ iifname . ether saddr }}
		drop
	}}
	chain output {{
		type filter hook output priority -300; policy accept;
		ip daddr {LOOPBACK} goto to-guest
		ip saddr {LOOPBACK} goto to-all
		ip saddr {TRANSIT} goto to-all
		meta protocol arp goto arp-to-guest
{ipv6_output(networks, is_ipv6_router)}	}}
	chain to-guest {{
{from_host}{_by_prefix("ip daddr", networks)}	}}
	chain to-all {{
{_by_prefix("ip saddr", networks)}	}}
	chain arp-to-guest {{
{_by_prefix("arp daddr ip", networks)}	}}
"""
    return head + "".join(_chains(network) for network in networks) + "}\n"


def _no_ipv6_out(networks: Sequence[Network]) -> str:
    """What the host would forward comes to the bridge's MAC address; an isolated network has nothing there
    but with the host's fe80 address."""
    macs = [n.bridge_mac for n in networks if n.internet == NONE and not n.ipv6_prefixes]
    return f"\t\tether daddr {braces(macs)} meta protocol ip6 ip6 daddr != fe80::/10 drop\n" if macs else ""


def _from_host(network: Network) -> str:
    """A rule for what the host itself sends to guests, but for ICMP, which may quote addresses; where networks are
    few it comes before these are told."""
    addresses = f"ip saddr {network.loop_address(network.host)} ip daddr {network.loop_prefix}"
    return f"{addresses} meta l4proto != icmp goto {chain('both-to-guest', network)}"


def _by_prefix(field: str, networks: Sequence[Network]) -> str:
    """Dispatch by the prefix of an address: of many a masked address is looked up by its hash, which is faster
    than by intervals."""
    if len(networks) <= FEW:
        prefixes = [(network.loop_prefix, network) for network in networks]
        prefixes += [(network.transit_prefix, network) for network in networks]
        return "".join(f"\t\t{field} {prefix} goto {chain('to', network)}\n" for prefix, network in prefixes)
    rules = ""
    for netmask in sorted({network.loop_prefix.netmask for network in networks}):
        targets = braces(
            f"{prefix.network_address} : goto {chain('to', network)}"
            for network in networks
            for prefix in (network.loop_prefix, network.transit_prefix)
            if prefix.netmask == netmask
        )
        rules += f"\t\t{field} & {netmask} vmap {targets}\n"
    return rules


def _chains(network: Network) -> str:
    lines = [*_sets(network), *_quoted_chains(network), *_both_chains(network)]
    lines += block("icmp-from", network, _icmp_from_guest(network))
    lines += block("icmp-to", network, _icmp_to_guest(network))
    lines += block("ip-peer", network, _ip_to_peer(network))
    lines += block("ip-from", network, _ip_from_guest(network))
    lines += block("ip-claimed", network, _ip_claimed(network))
    lines += block("arp-claimed", network, _arp_claimed(network))
    lines += block("arp-from", network, _arp_from_guest(network))
    lines += ipv6_chains(network)
    lines += block("from", network, _from_guest(network))
    lines += block("arp-to", network, _arp_to_guest(network))
    lines += block("to", network, _to_guest(network))
    return "".join(f"\t{line}\n" for line in lines)


def _sets(network: Network) -> list[str]:
    sets = [
        f"set {chain('senders', network)} {{ type ether_addr . ipv4_addr; }}",
        f"set {chain('arp-senders', network)} {{ type ether_addr . ether_addr; }}",
        seen(network),
    ]
    if is_free(network):
        never = braces(str(network.guest_address(number)) for number in host_numbers(network))
        sets.append(f"set {chain('reserved', network)} {{ type ipv4_addr; elements = {never}; }}")
    return sets + ipv6_sets(network)


def _free(field: str, network: Network) -> list[str]:
    """What a rule begins with that lets in an address which nobody has reserved."""
    if not is_free(network):
        return []
    return [unreserved(field, network.guest_prefix, chain("reserved", network))]


def _quoted_chains(network: Network) -> list[str]:
    """Empty here: nft's language can't say what their rules do; see moves.moves()."""
    return [f"chain {chain(kind, network)} {{ }}" for kind in ("quoted-host", "quoted-from", "quoted-to")]


def _both_chains(network: Network) -> list[str]:
    """Both addresses go to a prefix; what does that faster comes before it, see moves.moves()."""
    prefixes = {
        "both-to-loop": network.loop_prefix,
        "both-to-transit": network.transit_prefix,
        "both-to-guest": network.guest_prefix,
    }
    lines: list[str] = []
    for kind, prefix in prefixes.items():
        both = f"{move('ip saddr', prefix)} {move('ip daddr', prefix)} accept"
        lines += block(kind, network, [both])
    return lines


def _from_guest(network: Network) -> list[str]:
    return [
        f"meta protocol ip goto {chain('ip-claimed', network)}",
        # nft's rules for ARP and IPv6 look for it right after the MAC addresses, but what stands behind a
        # VLAN tag 0, or two, is ARP to a guest all the same.
        "ether type { 0x8100, 0x88a8 } drop",  # 802.1Q and 802.1ad: nft before 0.9.9 has no name for both
        f"meta protocol arp goto {chain('arp-from', network)}",
        *ipv6_from_guest(network),
    ]


def _arp_from_guest(network: Network) -> list[str]:
    claimed = chain("arp-claimed", network)
    return [
        "arp htype != 1 drop",
        "arp ptype != 0x0800 drop",
        "arp hlen != 6 drop",
        "arp plen != 4 drop",
        f"ether saddr . arp saddr ether != @{chain('arp-senders', network)} drop",
        "arp saddr ip 0.0.0.0 accept",  # a probe, RFC 5227
        f"ether saddr . arp saddr ip @{chain('senders', network)} goto {claimed}",
        remember("arp saddr ip", network),
        *(f"{free} goto {claimed}" for free in _free("arp saddr ip", network)),
        "drop",
    ]


def _arp_claimed(network: Network) -> list[str]:
    """Of an address that is its sender's, or that nobody has reserved. What is for all goes on as it is;
    the host hears it by way of table arp."""
    to_loop = move("arp saddr ip", network.loop_prefix)
    host, gateway = network.host, network.gateway
    return [
        f"arp daddr ip {network.guest_address(host)}"
        f" arp daddr ip set {network.loop_address(host)} {to_loop} {_only_to_host(network)} accept",
        f"arp daddr ip {network.guest_address(gateway)}"
        f" arp daddr ip set {network.transit_address(gateway)} {to_loop} {_only_to_host(network)} accept",
        f"ether daddr {network.bridge_mac} {to_loop} accept",  # an answer to the host
    ]


def _ip_claimed(network: Network) -> list[str]:
    """From a NIC that is known, with an address that has to be looked at."""
    return [
        "ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept",
        f"ether saddr . ip saddr @{chain('senders', network)} goto {chain('ip-from', network)}",
        *(f"{free} goto {chain('ip-from', network)}" for free in _free("ip saddr", network)),
        remember("ip saddr", network),
        "drop",
    ]


def _ip_from_guest(network: Network) -> list[str]:
    """From a NIC with an address that it may use."""
    to_transit = move("ip saddr", network.transit_prefix)
    to_loop = "accept" if network.mode == NATIVE else f"goto {chain('both-to-loop', network)}"
    return [
        f"ether daddr != {network.bridge_mac} goto {chain('ip-peer', network)}",
        f"meta l4proto icmp jump {chain('icmp-from', network)}",
        f"ip daddr != {network.guest_prefix} {to_transit} accept",
        f"ip daddr {network.guest_address(network.host)} {to_loop}",
        f"goto {chain('both-to-transit', network)}",
    ]


def _ip_to_peer(network: Network) -> list[str]:
    to_transit = move("ip saddr", network.transit_prefix)
    return [
        "udp sport 67 drop",  # no guest is a DHCP server
        # A rebinding client broadcasts with its address, which rp_filter=1 would take for the LAN's.
        f"ip daddr 255.255.255.255 udp dport 67 {to_transit} {_only_to_host(network)} accept",
        # A native guest has route_localnet on: what listens on its loopback is no other guest's business.
        f"ip daddr {LOOPBACK} ip daddr != {network.guest_prefix} drop",
        "accept",
    ]


def _icmp_from_guest(network: Network) -> list[str]:
    return [
        "icmp type redirect drop",
        f"icmp type != {ICMP_ERRORS} return",
        f"ip daddr {network.guest_address(network.host)} goto {chain('quoted-host', network)}",
        f"goto {chain('quoted-from', network)}",
    ]


def _only_to_host(network: Network) -> str:
    """What has been broadcast and is of no interest to guests, which would see our addresses in it."""
    return f"ether daddr set {network.bridge_mac}"


def _icmp_to_guest(network: Network) -> list[str]:
    return [
        # The host tells a guest that another is on its own wire: it asked for a published port.
        "icmp type redirect drop",
        f"icmp type {ICMP_ERRORS} goto {chain('quoted-to', network)}",
    ]


def _to_guest(network: Network) -> list[str]:
    saddr = move("ip saddr", network.guest_prefix)
    daddr = move("ip daddr", network.guest_prefix)
    gateway, both = network.transit_address(network.gateway), chain("both-to-guest", network)
    # A native guest asks DNS at this very address (a 127.x server would be dropped by its resolver).
    spare = f"ip saddr != {network.transit_address(network.host)} " if network.mode == NATIVE else ""
    return [
        _from_host(network),
        f"meta l4proto icmp jump {chain('icmp-to', network)}",
        f"ip saddr {gateway} ip daddr {network.loop_prefix} goto {both}",
        f"ip saddr {network.loop_prefix} {saddr}",
        f"ip saddr {network.transit_prefix} {spare}{saddr}",
        f"ip daddr {network.loop_prefix} {daddr} accept",
        f"ip daddr {network.transit_prefix} {daddr} accept",
        f"meta protocol arp goto {chain('arp-to', network)}",
    ]


def _arp_to_guest(network: Network) -> list[str]:
    saddr = move("arp saddr ip", network.guest_prefix)
    daddr = move("arp daddr ip", network.guest_prefix)
    # Of its DNS server a native guest may ask where it is: it need not be behind the default route.
    dns = network.transit_address(network.host)
    answers = [f"arp operation reply arp saddr ip {dns} accept"] if network.mode == NATIVE else []
    return [
        *answers,
        f"arp saddr ip {network.loop_prefix} {saddr}",
        f"arp saddr ip {network.transit_prefix} {saddr}",
        # Whatever address of its own the host asks with (arp_announce 0), the guest hears the gateway.
        f"arp saddr ip != {network.guest_prefix} arp saddr ip set {network.guest_address(network.gateway)}",
        f"arp daddr ip {network.loop_prefix} {daddr}",
        f"arp daddr ip {network.transit_prefix} {daddr}",
        "accept",
    ]
