"""Table ``ip loopnet``: guards of the host, and masquerade."""

from __future__ import annotations

from collections.abc import Sequence

from ..model import NATIVE, NONE, SERVICES, Network, Published
from ..prefixes import LOOPBACK, TRANSIT
from .phrases import LOCAL, block, braces, by_bridge, chain, move
from .published import answers_to_localhost, forwarded, ipv4_chains


def ip_table(networks: Sequence[Network], published: Sequence[Published]) -> str:
    """Three questions, the cheapest first where it can be: has it an address that only lo and our bridges may
    carry, is its sender's MAC address a NIC's, and which interface is it on. In prerouting, before any DNAT to
    127.0.0.1 that an administrator may want, a packet with such an address passes by the MAC address; the
    bridge is asked for in input and forward. One without passes unless it is on a bridge of ours.

    What guests send has its transit or loop address by now, but for DHCP, for what br_netfilter shows of
    frames between guests, and for what the kernel took out of IPsec, as the host's own policies have it.
    """
    bridges = braces(f'"{n.bridge}"' for n in networks)
    local = " ".join(f"{field} != {prefix}" for field in ("ip saddr", "ip daddr") for prefix in LOCAL)
    dispatch = braces(f'"{n.bridge}" : goto {chain("postrouting", n)}' for n in networks)
    within = braces(f'"{n.bridge}" . "{n.bridge}"' for n in networks)
    head = f"""\
table ip loopnet {{
	set nics {{
		type ether_addr
	}}
	chain prerouting {{
		type filter hook prerouting priority -300; policy accept;
		ip saddr {TRANSIT} ether saddr @nics accept
		iif "lo" accept
		{local} goto ordinary
		ip saddr {LOOPBACK} ether saddr @nics accept
		drop
	}}
	chain ordinary {{
		iifname != {bridges} accept
		ether saddr @nics accept
		drop
	}}
	chain input {{
		type filter hook input priority -10; policy accept;
		ip saddr {TRANSIT} goto from-guest
		iif "lo" accept
		ip saddr {LOOPBACK} goto answers
		iifname != {bridges} accept
		meta secpath exists accept
		ip saddr 0.0.0.0 udp dport 67 accept
		drop
	}}
	chain from-guest {{
{by_bridge("iifname", "input", networks)}		drop
	}}
	chain answers {{
{by_bridge("iifname", "answers", networks)}		drop
	}}
	chain forward {{
		type filter hook forward priority -10; policy accept;
		ip daddr {TRANSIT} goto inwards
		ip saddr {TRANSIT} goto outwards
		iifname . oifname {within} accept
		iifname {bridges} meta secpath missing drop
		oifname {bridges} drop
	}}
	chain outwards {{
{by_bridge("iifname", "forward", networks)}		drop
	}}
	chain inwards {{
{forwarded("ip", published)}\
		oifname {bridges} ct state established,related accept
		drop
	}}
	chain source-nat {{
		type nat hook postrouting priority 100; policy accept;
		ip saddr {TRANSIT} oifname != {bridges} masquerade
	}}
	chain postrouting {{
		type filter hook postrouting priority 101; policy accept;
		oif "lo" accept
		ip daddr {LOOPBACK} goto to-bridge
		udp sport 67 oifname vmap {dispatch}
		ip saddr != {LOOPBACK} ip saddr != {TRANSIT} ip daddr != {TRANSIT} accept
		goto to-bridge
	}}
	chain to-bridge {{
{by_bridge("oifname", "postrouting", networks)}		drop
	}}
"""
    inwards = ipv4_chains(networks, bridges, published) if published else ""
    return head + "".join(_chains(network, bridges, published) for network in networks) + inwards + "}\n"


def _chains(network: Network, bridges: str, published: Sequence[Published]) -> str:
    lines = block("input", network, _input(network, published))
    lines += block("answers", network, _answers(network))
    lines += block("forward", network, _forward(network, bridges))
    lines += block("postrouting", network, _postrouting(network))
    return "".join(f"\t{line}\n" for line in lines)


def _input(network: Network, published: Sequence[Published]) -> list[str]:
    return [f"ip saddr != {network.transit_prefix} drop", *_begun(network, published), "drop"]


def _answers(network: Network) -> list[str]:
    """To what the host began with guests, from their loop addresses."""
    ours = f"ip saddr {network.loop_prefix} ip daddr {network.loop_address(network.host)}"
    rules = [f"{ours} ct state established,related accept"]
    if network.mode == NATIVE:  # dnsmasq gives the bridge's own address as server identifier there
        rules.append(f"{ours} udp dport 67 accept")
    return [*rules, "drop"]


def _begun(network: Network, published: Sequence[Published]) -> list[str]:
    """What guests may begin with the host, in the order of the accepts."""
    addresses = [str(address) for address in network.own_transit]
    own = addresses[0] if len(addresses) == 1 else braces(addresses)
    answers = "ct state established,related accept"
    dhcp = f"ip daddr {braces(['255.255.255.255', *addresses])} udp dport 67 accept"
    if network.guest_to_host == NONE:
        return [answers, dhcp]
    if network.guest_to_host == SERVICES:
        dns = [f"ip daddr {own} {protocol} dport 53 accept" for protocol in ("udp", "tcp")]
        return [answers, dhcp, *dns, f"ip daddr {own} icmp type echo-request accept"]
    guard = [*answers_to_localhost(published), *(f"ip daddr {prefix} drop" for prefix in LOCAL)]
    return [f"ip daddr {own} accept", *guard, "accept"]


def _forward(network: Network, bridges: str) -> list[str]:
    """Not back into a bridge: that would lead around port isolation, or to another network."""
    if network.internet == NONE:
        return ["drop"]
    return [f"ip saddr {network.transit_prefix} oifname != {bridges} accept", "drop"]


def _postrouting(network: Network) -> list[str]:
    """One neighbour entry, the loop address, for all: the nexthop is read after this hook."""
    to_loop = move("ip daddr", network.loop_prefix)
    rules = [
        f"ip daddr {network.loop_prefix} ip saddr {network.loop_prefix} accept",
        # The guest could not answer any other source of the host's; EPERM now beats a time-out later.
        f"ip daddr {network.loop_prefix} drop",
        f"ip daddr {network.transit_prefix} {to_loop} accept",
    ]
    if network.mode != NATIVE:
        # dnsmasq's unicast answer to a renewing guest: no route says which source the kernel should take.
        gateway, host = network.guest_address(network.gateway), network.loop_address(network.host)
        rules.append(
            f"ip saddr {{ {gateway}, {host} }} ip daddr {network.guest_prefix} udp sport 67"
            f" ip saddr set {gateway} {to_loop}"
        )
    return [*rules, "accept"]
