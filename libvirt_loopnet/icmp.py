"""ICMP errors quote the packet they are about; these rules move the quoted addresses as well.

A write into ICMP's payload has to mend ICMP's checksum (offset 2). The kernel's nf_tables does that
when asked (NFTA_PAYLOAD_CSUM_TYPE and _OFFSET in linux/netfilter/nf_tables.h), but nft's language has
no way to ask, so the rules are built here as netlink messages. Pure: bytes out, no socket.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import IPv4Network

from .model import NATIVE, Network
from .record import NamedTuple
from .ruleset import chain

# linux/netfilter/nfnetlink.h and nf_tables.h
_NFNL_BATCH_BEGIN, _NFNL_BATCH_END, _SUBSYS_NFTABLES, _NEWRULE = 16, 17, 10, 6
_REQUEST, _ACK, _CREATE, _APPEND, _NESTED = 0x1, 0x4, 0x400, 0x800, 0x8000
_BRIDGE, _UNSPEC = 7, 0
_REG, _TRANSPORT, _CSUM_INET, _ICMP_CHECKSUM = 1, 2, 1, 2

QUOTED_SOURCE, QUOTED_DESTINATION = 20, 24
"""Offsets in bytes from ICMP's header: 8 of its own, then the quoted IP header."""


class Move(NamedTuple):
    """One rule: in ``chain``, the quoted address at ``offset`` goes from prefix ``old`` to ``new``."""

    chain: str
    offset: int
    old: IPv4Network
    new: IPv4Network


def parse(text: str) -> Move:
    """A move as Step text, its four fields parted by blanks, back to itself."""
    name, offset, old, new = text.split()
    return Move(name, int(offset), IPv4Network(old), IPv4Network(new))


def moves(network: Network) -> list[Move]:
    """The rules that ``network`` needs."""
    loop, guest, transit = network.loop_prefix, network.guest_prefix, network.transit_prefix
    changes = [("icmp-from", guest, transit), ("icmp-to", transit, guest)]
    if network.mode != NATIVE:
        changes += [("icmp-host", guest, loop), ("icmp-to", loop, guest)]
    return [
        Move(chain(kind, network), offset, old, new)
        for kind, old, new in changes
        for offset in (QUOTED_SOURCE, QUOTED_DESTINATION)
    ]


def batch(needed: Iterable[Move]) -> tuple[bytes, int]:
    """One nfnetlink transaction that appends a rule for each move, and how many answers it brings."""
    rules = [_rule(sequence, move) for sequence, move in enumerate(needed, start=2)]
    begin = _message(_NFNL_BATCH_BEGIN, _REQUEST, 1, _UNSPEC, _SUBSYS_NFTABLES, b"")
    end = _message(_NFNL_BATCH_END, _REQUEST, len(rules) + 2, _UNSPEC, _SUBSYS_NFTABLES, b"")
    return begin + b"".join(rules) + end, len(rules)


def _rule(sequence: int, move: Move) -> bytes:
    offset, old, new = move.offset, move.old, move.new
    expressions = [
        # @th,OFFSET,32 & netmask == old prefix
        _load(offset),
        _bitwise(old.netmask.packed, bytes(4)),
        _expression("cmp", _u32(1, _REG) + _u32(2, 0) + _data(3, old.network_address.packed)),
        # @th,OFFSET,32 set @th,OFFSET,32 & hostmask | new prefix
        _load(offset),
        _bitwise(old.hostmask.packed, new.network_address.packed),
        _store(offset),
    ]
    attributes = _string(1, "loopnet") + _string(2, move.chain) + _nest(4, b"".join(expressions))
    flags = _REQUEST | _ACK | _CREATE | _APPEND
    return _message((_SUBSYS_NFTABLES << 8) | _NEWRULE, flags, sequence, _BRIDGE, 0, attributes)


def _load(offset: int) -> bytes:
    return _expression("payload", _u32(1, _REG) + _u32(2, _TRANSPORT) + _u32(3, offset) + _u32(4, 4))


def _store(offset: int) -> bytes:
    place = _u32(2, _TRANSPORT) + _u32(3, offset) + _u32(4, 4) + _u32(5, _REG)
    return _expression("payload", place + _u32(6, _CSUM_INET) + _u32(7, _ICMP_CHECKSUM))


def _bitwise(mask: bytes, xor: bytes) -> bytes:
    return _expression("bitwise", _u32(1, _REG) + _u32(2, _REG) + _u32(3, 4) + _data(4, mask) + _data(5, xor))


def _expression(name: str, data: bytes) -> bytes:
    return _nest(1, _string(1, name) + _nest(2, data))


def _message(kind: int, flags: int, sequence: int, family: int, resource: int, attributes: bytes) -> bytes:
    body = struct.pack("!BBH", family, 0, resource) + attributes
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _nest(kind: int, value: bytes) -> bytes:
    return _attribute(kind | _NESTED, value)


def _u32(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("!I", value))


def _string(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _data(kind: int, value: bytes) -> bytes:
    return _nest(kind, _attribute(1, value))
