"""Connections that the kernel tracks (linux/netfilter/nfnetlink_conntrack.h), to be forgotten.

Not by the program ``conntrack``, which is in a package of its own that few hosts have.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network

from .netlink import ACK, NETFILTER, REQUEST, attribute, attributes, dump, message, nfgenmsg, transact

_FAMILIES = {4: 2, 6: 10}
"""NFPROTO_IPV4, NFPROTO_IPV6"""
_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2
"""NFNL_SUBSYS_CTNETLINK; IPCTNL_MSG_CT_GET and IPCTNL_MSG_CT_DELETE."""
_ORIGINAL, _REPLY, _ID, _ZONE = 1, 2, 12, 18
"""CTA_TUPLE_ORIG and the other attributes of an entry."""
_TUPLE_IP = 1
_NESTED = 0x8000
_BATCH = 500
"""Entries that are deleted by one datagram, to keep its answers within a socket's buffer."""


def forget(prefix: IPv4Network | IPv6Network) -> int:
    """Delete each tracked connection with an address in ``prefix``; how many those were. Raises HostError.

    Their address translation goes with them: what still arrives for one is delivered by its own addresses.
    """
    head = nfgenmsg(_FAMILIES[prefix.version])
    entries = (dict(attributes(each[len(head) :])) for each in dump(NETFILTER, _GET, head))
    found = [entry for entry in entries if _concerns(entry, prefix)]
    for start in range(0, len(found), _BATCH):
        batch = found[start : start + _BATCH]
        transact(b"".join(_deletion(head, entry) for entry in batch), len(batch), absent=True)
    return len(found)


def _concerns(entry: dict[int, bytes], prefix: IPv4Network | IPv6Network) -> bool:
    first, mask = int(prefix.network_address), int(prefix.netmask)
    return any(address & mask == first for address in _addresses(entry))


def _addresses(entry: dict[int, bytes]) -> Iterator[int]:
    for direction in (_ORIGINAL, _REPLY):
        inner = dict(attributes(entry.get(direction, b""))).get(_TUPLE_IP, b"")
        for _, value in attributes(inner):
            yield int.from_bytes(value, "big")


def _deletion(head: bytes, entry: dict[int, bytes]) -> bytes:
    """By what tells it from any other, one that has taken its place meanwhile among them (CTA_ID)."""
    kept = [(_NESTED | _ORIGINAL, entry[_ORIGINAL])]
    kept += [(kind, entry[kind]) for kind in (_ID, _ZONE) if kind in entry]
    return message(_DELETE, REQUEST | ACK, head, b"".join(attribute(*each) for each in kept))
