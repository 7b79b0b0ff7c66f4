"""Desired networks and ports to nft text: the data plane and its guards.

Four tables carry our name and nothing else does: ``bridge loopnet`` says who may send what, in ARP too, and rewrites
addresses, statelessly, before br_netfilter or conntrack see a packet; ``ip loopnet`` guards the host and
masquerades, as ``ip6 loopnet`` does while a network has IPv6; and ``arp loopnet`` guards the host's neighbour
table. They are always replaced whole, in one transaction; guests come and go as set elements.

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
