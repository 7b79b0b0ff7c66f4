"""Desired networks and ports to nft text: the data plane and its guards.

Three tables carry our name and nothing else does: ``bridge loopnet`` rewrites addresses, statelessly,
before br_netfilter or conntrack see a packet; ``ip loopnet`` guards the host and masquerades, and ``arp
loopnet`` guards its neighbour table. They are always replaced whole, in one transaction; guests come and
go as set elements.

Chains are named after the network's loop prefix, which no two networks share.

Guards match prefixes rule by rule and not by a set of them: for an instant after a transaction that brings
a set of intervals, the kernel finds nothing in it (seen on Linux 6.18, one replacement in twenty let packets
through). Sets of single addresses, names and MAC addresses are there at once.

A verdict map is never the last word of a guard either: in the same instant a packet that began with the old
rules finds the old map empty (the kernel deactivates the elements of a deleted map, nft_map_deactivate(),
which it does not do with plain sets). After each dispatch to a network's chain what is ours and was not
dispatched is dropped.

What most packets meet comes first and is cheap. Against a comparison of up to 4 bytes, one of a MAC address
takes some three times as long, one of an interface's name five times, a look-up ten, and writing an address,
with its checksums, twenty. So packets are told by their addresses before they are by interfaces.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network

from .model import ANY_ADDRESS, NATIVE, NONE, SERVICES, Binding, Guest, Network, Published
from .prefixes import LOOPBACK, TRANSIT

TABLES = (("bridge", "loopnet"), ("arp", "loopnet"), ("ip", "loopnet"))
ICMP_ERRORS = "{ destination-unreachable, source-quench, time-exceeded, parameter-problem }"
"""ICMP messages that quote the packet they are about (RFC 792, RFC 1812 4.3.2.3)."""
LOCAL = (LOOPBACK, TRANSIT)
"""What must never arrive from, or leave to, anything but lo and our bridges."""


def chain(kind: str, network: Network) -> str:
    return f"{kind}-{network.loop_prefix.network_address}"


def delete_tables() -> str:
    """Take our tables away; right also when they aren't there (``add`` makes ``delete`` succeed)."""
    return "".join(f"add table {f} {t}\ndelete table {f} {t}\n" for f, t in TABLES)


def replace_tables(
    networks: Sequence[Network],
    guests: Sequence[Guest],
    bindings: Sequence[Binding],
    published: Sequence[Published] = (),
) -> str:
    """The nft script that puts our tables in place of whatever was there, in one transaction."""
    return delete_tables() + tables(networks, guests, bindings, published)


def tables(
    networks: Sequence[Network],
    guests: Sequence[Guest],
    bindings: Sequence[Binding],
    published: Sequence[Published] = (),
) -> str:
    """Our tables for these active ``networks``; '' when there are none."""
    if not networks:
        return ""
    made = _bridge_table(networks) + _ip_table(networks, published) + _arp_table(networks)
    return made + add_elements(networks, guests, bindings)


# --- guests: elements of sets and maps -----------------------------------------------------------


def add_elements(networks: Iterable[Network], guests: Iterable[Guest], bindings: Iterable[Binding]) -> str:
    """nft commands that admit ``guests`` and tie them to their taps; adding twice is no error."""
    return "".join(f"add element {line}\n" for line in _elements(networks, guests, bindings))


def delete_elements(networks: Iterable[Network], guests: Iterable[Guest], bindings: Iterable[Binding]) -> str:
    """nft commands that take the same elements away; right also when they aren't there."""
    lines = list(_elements(networks, guests, bindings))
    return "".join(f"add element {line}\ndelete element {line}\n" for line in lines)


def _elements(
    networks: Iterable[Network], guests: Iterable[Guest], bindings: Iterable[Binding]
) -> Iterable[str]:
    """``FAMILY TABLE SET { ELEMENT }``, grouped by set so that a thousand guests are a handful of lines."""
    by_name = {network.name: network for network in networks}
    grouped: dict[str, list[str]] = {}

    def put(where: str, element: str) -> None:
        grouped.setdefault(where, []).append(element)

    macs: set[str] = set()
    for guest in guests:
        network = by_name[guest.network]
        address = network.guest_address(guest.number)
        senders, arp_senders = (
            f"bridge loopnet {chain(kind, network)}" for kind in ("senders", "arp-senders")
        )
        put(senders, f"{guest.mac} . {address}")
        put(arp_senders, f"{guest.mac} . {guest.mac} . {address}")
        put(arp_senders, f"{guest.mac} . {guest.mac} . 0.0.0.0")
        loop = network.loop_address(guest.number)
        put("arp loopnet neighbours", f'"{network.bridge}" . {guest.mac} . {loop}')
        # One MAC may be on two networks (clones); unbound it can be told to one of them only.
        if guest.mac not in macs:
            macs.add(guest.mac)
            put("bridge loopnet unbound", f"{guest.mac} : goto {chain('from', network)}")
            put("bridge loopnet macs", guest.mac)
            put("ip loopnet nics", guest.mac)
    for binding in bindings:
        network = by_name[binding.network]
        nic = f'"{binding.tap}" . {binding.mac}'
        address = network.guest_address(binding.number)
        put("bridge loopnet bound-senders", f"{nic} . {address} : goto {chain('ip-from', network)}")
        put("bridge loopnet bound", f"{nic} : goto {chain('from', network)}")
        put("bridge loopnet taps", f'"{binding.tap}"')
        put("bridge loopnet bound-macs", binding.mac)
    for where, elements in grouped.items():
        yield f"{where} {{ {', '.join(elements)} }}"


# --- table bridge: rewriting ---------------------------------------------------------------------


def _bridge_table(networks: Sequence[Network]) -> str:
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
	chain prerouting {{
		type filter hook prerouting priority -300; policy accept;
		iifname . ether saddr . ip saddr vmap @bound-senders
		iifname @taps goto tap
		ether saddr @macs goto mac
	}}
	chain tap {{
		iifname . ether saddr vmap @bound
		drop
	}}
	chain mac {{
		ether saddr @bound-macs drop
		ether saddr vmap @unbound
		drop
	}}
	chain output {{
		type filter hook output priority -300; policy accept;
		ip daddr {LOOPBACK} goto to-guest
		ip saddr {LOOPBACK} goto to-all
		ip saddr {TRANSIT} goto to-all
		meta protocol arp goto arp-to-guest
	}}
	chain to-guest {{
{_by_prefix("ip daddr", networks)}	}}
	chain to-all {{
{_by_prefix("ip saddr", networks)}	}}
	chain arp-to-guest {{
{_by_prefix("arp daddr ip", networks)}	}}
"""
    return head + "".join(_bridge_chains(network) for network in networks) + "}\n"


def _by_prefix(field: str, networks: Sequence[Network]) -> str:
    """Dispatch by the prefix of an address: a masked address is looked up by its hash, in half the time that
    intervals take."""
    rules = ""
    for netmask in sorted({network.loop_prefix.netmask for network in networks}):
        targets = _set(
            f"{prefix.network_address} : goto {chain('to', network)}"
            for network in networks
            for prefix in (network.loop_prefix, network.transit_prefix)
            if prefix.netmask == netmask
        )
        rules += f"\t\t{field} & {netmask} vmap {targets}\n"
    return rules


def _bridge_chains(network: Network) -> str:
    lines = [*_sets(network), *_quoted_chains(network), *_both_chains(network)]
    lines += _chain("icmp-from", network, _icmp_from_guest(network))
    lines += _chain("icmp-to", network, _icmp_to_guest(network))
    lines += _chain("ip-peer", network, _ip_to_peer(network))
    lines += _chain("ip-from", network, _ip_from_guest(network))
    lines += _chain("ip-claimed", network, _ip_claimed(network))
    lines += _chain("arp-from", network, _arp_from_guest(network))
    lines += _chain("from", network, _from_guest(network))
    lines += _chain("arp-to", network, _arp_to_guest(network))
    lines += _chain("to", network, _to_guest(network))
    return "".join(f"\t{line}\n" for line in lines)


def _chain(kind: str, network: Network, rules: Iterable[str]) -> list[str]:
    return [f"chain {chain(kind, network)} {{", *(f"\t{rule}" for rule in rules), "}"]


def _sets(network: Network) -> list[str]:
    return [
        f"set {chain('senders', network)} {{ type ether_addr . ipv4_addr; }}",
        f"set {chain('arp-senders', network)} {{ type ether_addr . ether_addr . ipv4_addr; }}",
    ]


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
        both = f"{_move('ip saddr', prefix)} {_move('ip daddr', prefix)} accept"
        lines += _chain(kind, network, [both])
    return lines


def _from_guest(network: Network) -> list[str]:
    return [
        f"meta protocol ip goto {chain('ip-claimed', network)}",
        # nft's rules for ARP and IPv6 look for it right after the MAC addresses, but what stands behind a
        # VLAN tag 0, or two, is ARP to a guest all the same.
        "ether type { 8021q, 8021ad } drop",
        f"meta protocol arp goto {chain('arp-from', network)}",
        "icmpv6 type { nd-router-advert, nd-redirect } drop",  # no guest is a router, or a DHCP server
        "meta protocol ip6 udp sport 547 drop",
    ]


def _arp_from_guest(network: Network) -> list[str]:
    to_loop = _move("arp saddr ip", network.loop_prefix)
    host, gateway = network.host, network.gateway
    return [
        "arp htype != 1 drop",
        "arp ptype != 0x0800 drop",
        "arp hlen != 6 drop",
        "arp plen != 4 drop",
        f"ether saddr . arp saddr ether . arp saddr ip != @{chain('arp-senders', network)} drop",
        "arp saddr ip 0.0.0.0 accept",  # a probe, RFC 5227
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
        "drop",
    ]


def _ip_from_guest(network: Network) -> list[str]:
    """From a NIC with its own address."""
    to_transit = _move("ip saddr", network.transit_prefix)
    to_loop = "accept" if network.mode == NATIVE else f"goto {chain('both-to-loop', network)}"
    return [
        f"ether daddr != {network.bridge_mac} goto {chain('ip-peer', network)}",
        f"meta l4proto icmp jump {chain('icmp-from', network)}",
        f"ip daddr != {network.guest_prefix} {to_transit} accept",
        f"ip daddr {network.guest_address(network.host)} {to_loop}",
        f"goto {chain('both-to-transit', network)}",
    ]


def _ip_to_peer(network: Network) -> list[str]:
    to_transit = _move("ip saddr", network.transit_prefix)
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
    return [f"icmp type {ICMP_ERRORS} goto {chain('quoted-to', network)}"]


def _to_guest(network: Network) -> list[str]:
    saddr = _move("ip saddr", network.guest_prefix)
    daddr = _move("ip daddr", network.guest_prefix)
    own = _set(map(str, (network.loop_address(network.host), network.transit_address(network.gateway))))
    # A native guest asks DNS at this very address (a 127.x server would be dropped by its resolver).
    spare = f"ip saddr != {network.transit_address(network.host)} " if network.mode == NATIVE else ""
    return [
        f"meta l4proto icmp jump {chain('icmp-to', network)}",
        f"ip daddr {network.loop_prefix} ip saddr {own} goto {chain('both-to-guest', network)}",
        f"ip saddr {network.loop_prefix} {saddr}",
        f"ip saddr {network.transit_prefix} {spare}{saddr}",
        f"ip daddr {network.loop_prefix} {daddr} accept",
        f"ip daddr {network.transit_prefix} {daddr} accept",
        f"meta protocol arp goto {chain('arp-to', network)}",
    ]


def _arp_to_guest(network: Network) -> list[str]:
    saddr = _move("arp saddr ip", network.guest_prefix)
    daddr = _move("arp daddr ip", network.guest_prefix)
    return [
        f"arp saddr ip {network.loop_prefix} {saddr}",
        f"arp saddr ip {network.transit_prefix} {saddr}",
        # Whatever address of its own the host asks with (arp_announce 0), the guest hears the gateway.
        f"arp saddr ip != {network.guest_prefix} arp saddr ip set {network.guest_address(network.gateway)}",
        f"arp daddr ip {network.loop_prefix} {daddr}",
        f"arp daddr ip {network.transit_prefix} {daddr}",
        "accept",
    ]


def _move(field: str, prefix: IPv4Network) -> str:
    """Keep the host number of ``field``, replace its prefix."""
    return f"{field} set {field} & {prefix.hostmask} | {prefix.network_address}"


# --- table ip: guards and masquerade -------------------------------------------------------------


def _ip_table(networks: Sequence[Network], published: Sequence[Published]) -> str:
    """Three questions, from the cheapest on: has it an address that only lo and our bridges may carry, is its
    sender's MAC address a NIC's, and which bridge is it on. On a packet of others the first is enough in
    prerouting, which comes before any DNAT to 127.0.0.1 that an administrator may want.

    What guests send has its transit or loop address by now, but for DHCP, and for what br_netfilter shows of
    frames between guests.
    """
    bridges = _set(f'"{n.bridge}"' for n in networks)
    local = " ".join(f"{field} != {prefix}" for field in ("ip saddr", "ip daddr") for prefix in LOCAL)

    def dispatch(kind: str) -> str:
        return _set(f'"{n.bridge}" : goto {chain(kind, n)}' for n in networks)

    within = _set(f'"{n.bridge}" . "{n.bridge}"' for n in networks)
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
		ip saddr {LOOPBACK} goto from-guest
		iifname != {bridges} accept
		ip saddr 0.0.0.0 udp dport 67 accept
		drop
	}}
	chain from-guest {{
		iifname vmap {dispatch("input")}
		drop
	}}
	chain forward {{
		type filter hook forward priority -10; policy accept;
		ip daddr {TRANSIT} goto inwards
		ip saddr {TRANSIT} goto outwards
		iifname . oifname {within} accept
		iifname {bridges} drop
		oifname {bridges} drop
	}}
	chain outwards {{
		iifname vmap {dispatch("forward")}
		drop
	}}
	chain inwards {{
{_forward_published(bool(published))}\
		oifname {bridges} ct state established,related accept
		drop
	}}
	chain source-nat {{
		type nat hook postrouting priority 100; policy accept;
{_answerable(networks) if published else ""}\
		ip saddr {TRANSIT} oifname != {bridges} masquerade
	}}
	chain postrouting {{
		type filter hook postrouting priority 101; policy accept;
		oif "lo" accept
		udp sport 67 oifname vmap {dispatch("postrouting")}
		{local} accept
		oifname vmap {dispatch("postrouting")}
		drop
	}}
"""
    inwards = _published_chains(networks, bridges, published) if published else ""
    return head + "".join(_ip_chains(network, bridges) for network in networks) + inwards + "}\n"


def _ip_chains(network: Network, bridges: str) -> str:
    lines = _chain("input", network, _input(network))
    lines += _chain("forward", network, _forward(network, bridges))
    lines += _chain("postrouting", network, _postrouting(network))
    return "".join(f"\t{line}\n" for line in lines)


def _input(network: Network) -> list[str]:
    host = network.loop_address(network.host)
    rules = [
        *(f"ip saddr {network.transit_prefix} {rule}" for rule in _from_transit(network)),
        f"ip saddr {network.loop_prefix} ip daddr {host} ct state established,related accept",
    ]
    if network.mode == NATIVE:  # dnsmasq gives the bridge's own address as server identifier there
        rules.append(f"ip saddr {network.loop_prefix} ip daddr {host} udp dport 67 accept")
    return [*rules, "drop"]


def _from_transit(network: Network) -> list[str]:
    """What guests may begin with the host, in the order of the accepts."""
    addresses = [str(address) for address in own_transit(network)]
    own = addresses[0] if len(addresses) == 1 else _set(addresses)
    answers = "ct state established,related accept"
    dhcp = f"ip daddr {_set(['255.255.255.255', *addresses])} udp dport 67 accept"
    if network.guest_to_host == NONE:
        return [answers, dhcp]
    if network.guest_to_host == SERVICES:
        dns = [f"ip daddr {own} {protocol} dport 53 accept" for protocol in ("udp", "tcp")]
        return [answers, dhcp, *dns, f"ip daddr {own} icmp type echo-request accept"]
    return [f"ip daddr {own} accept", *(f"ip daddr {prefix} drop" for prefix in LOCAL), "accept"]


def _forward(network: Network, bridges: str) -> list[str]:
    """Not back into a bridge: that would lead around port isolation, or to another network."""
    return [f"ip saddr {network.transit_prefix} oifname != {bridges} accept", "drop"]


def _postrouting(network: Network) -> list[str]:
    """One neighbour entry, the loop address, for all: the nexthop is read after this hook."""
    to_loop = _move("ip daddr", network.loop_prefix)
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


def own_transit(network: Network) -> list[IPv4Address]:
    """The transit addresses that are the host's: the gateway, and a native network's DNS server."""
    numbers = [network.gateway] + ([network.host] if network.mode == NATIVE else [])
    return [network.transit_address(number) for number in numbers]


def _drop_local(*fields: str) -> str:
    return "".join(f"\t\t{field} {prefix} drop\n" for field in fields for prefix in LOCAL)


def _set(elements: Iterable[str]) -> str:
    return f"{{ {', '.join(elements)} }}"


# --- published ports -----------------------------------------------------------------------------


def _published_chains(networks: Sequence[Network], bridges: str, published: Sequence[Published]) -> str:
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
    return f"\t\telements = {_set(elements)}\n" if elements else ""


def _forward_published(published: bool) -> str:
    """What isn't published any more is dropped though it is established, so that it ends at once."""
    inwards = "ct direction original ct status dnat meta l4proto { tcp, udp }"
    accept = f"\t\t{inwards} ip daddr . meta l4proto . th dport @published-to accept\n"
    return f"{accept if published else ''}\t\t{inwards} drop\n"


def _answerable(networks: Iterable[Network]) -> str:
    """A client whose address is in the guest prefix is at home there to the guest, which would look for it
    on its own wire; so it hears the gateway instead. All others keep their address."""
    return "".join(
        f'\t\toifname "{n.bridge}" ip saddr {n.guest_prefix} ct status dnat'
        f" snat to {n.transit_address(n.gateway)}\n"
        for n in networks
        if n.mode != NATIVE
    )


# --- table arp: the host's neighbours ------------------------------------------------------------


def _arp_table(networks: Sequence[Network]) -> str:
    """On our bridges the host believes a guest's own word about itself only; elsewhere it neither says
    nor hears a word about our addresses (it would answer the LAN for each address that it has)."""
    bridges = _set(f'"{n.bridge}"' for n in networks)
    guard = _drop_local("arp saddr ip", "arp daddr ip")
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
