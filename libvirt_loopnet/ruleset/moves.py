"""Rules that nft's language can't say, as netlink messages. Pure: bytes out, no socket.

Claims are about neighbour discovery (ipv6_bridge.py): the kernel looks any bytes of a packet up in a set, nft only
those that it has a name of the set's type for.

All others move addresses from prefix to prefix where nft's own statement can't, or would take longer:

* **quoted** addresses: ICMP errors quote the packet they are about. A write into ICMP's payload has to mend
  ICMP's checksum (offset 2). The kernel's nf_tables does that when asked (NFTA_PAYLOAD_CSUM_TYPE and _OFFSET
  in linux/netfilter/nf_tables.h), but nft's language has no way to ask.
* **both** addresses of a packet, which stand side by side, in one write, which costs less than two, and
  writes are the dearest part of the data plane. Such a rule comes before one of nft's that does the same, so
  that no packet meets an empty chain between the two transactions.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import IPv4Network

from ..model import NATIVE, Network
from ..records import NamedTuple
from .phrases import chain

# linux/netfilter/nfnetlink.h, nf_tables.h and netfilter.h
_NFNL_BATCH_BEGIN, _NFNL_BATCH_END, _SUBSYS_NFTABLES, _NEWRULE = 16, 17, 10, 6
_REQUEST, _ACK, _CREATE, _NESTED = 0x1, 0x4, 0x400, 0x8000
_BRIDGE, _UNSPEC = 7, 0
_REG_VERDICT, _REG, _CSUM_INET, _NF_ACCEPT = 0, 1, 1, 1
_REG32, _NFT_GOTO, _LOOKUP_INVERTED = 8, 2**32 - 4, 1

NETWORK_HEADER, TRANSPORT_HEADER = "nh", "th"
"""As nft calls the headers that an offset counts from."""
_HEADERS = {NETWORK_HEADER: 1, TRANSPORT_HEADER: 2}
_CHECKSUMS = {NETWORK_HEADER: (10, 1), TRANSPORT_HEADER: (2, 0)}
"""Offset of the header's own checksum, and NFT_PAYLOAD_L4CSUM_PSEUDOHDR where TCP's and UDP's cover it too."""
_ADDRESS = 4
_ADDRESSES = (NETWORK_HEADER, 12, 2)
_QUOTED = ((TRANSPORT_HEADER, 20, 1), (TRANSPORT_HEADER, 24, 1))
"""8 bytes of ICMP's header, then the quoted IP header."""
_ANY = IPv4Network((0, 0))


class Move(NamedTuple):
    """A rule: in ``chain``, ``addresses`` addresses at ``offset`` bytes from ``header`` go to prefix ``new``.

    Of a single address only one in prefix ``old`` does.
    """

    chain: str
    header: str
    offset: int
    addresses: int
    old: IPv4Network
    new: IPv4Network

    def __str__(self) -> str:
        return " ".join(map(str, tuple(self)))


class Claim(NamedTuple):
    """A rule: in ``chain``, the target of a neighbour advertisement or solicitation is looked up in ``known``.

    Without ``otherwise``, if the sender's MAC address and it are there, it is accepted; with it, if it alone is not
    there, that chain says what becomes of it.
    """

    chain: str
    known: str
    otherwise: str

    def __str__(self) -> str:
        return " ".join((self.chain, CLAIM, self.known, self.otherwise)).rstrip()


CLAIM = "nd-target"


def parse(text: str) -> Move | Claim:
    """What str() makes of a move or a claim, back to itself."""
    if CLAIM in text.split():
        name, _, known, *otherwise = text.split()
        return Claim(name, known, "".join(otherwise))
    name, header, offset, addresses, old, new = text.split()
    return Move(name, header, int(offset), int(addresses), IPv4Network(old), IPv4Network(new))


def moves(network: Network) -> list[Move]:
    """The rules that ``network`` needs."""
    loop, guest, transit = network.loop_prefix, network.guest_prefix, network.transit_prefix
    both = [("both-to-transit", transit), ("both-to-guest", guest)]
    quoted = [("quoted-from", guest, transit), ("quoted-to", transit, guest)]
    if network.mode != NATIVE:
        both += [("both-to-loop", loop)]
        quoted += [("quoted-host", guest, loop), ("quoted-to", loop, guest)]
    found = [Move(chain(kind, network), *_ADDRESSES, _ANY, new) for kind, new in both]
    return found + [
        Move(chain(kind, network), *place, old, new) for kind, old, new in quoted for place in _QUOTED
    ]


def batch(needed: Iterable[Move | Claim]) -> tuple[bytes, int]:
    """One nfnetlink transaction that inserts a rule for each, and how many answers it brings."""
    rules = [_rule(sequence, each) for sequence, each in enumerate(needed, start=2)]
    begin = _message(_NFNL_BATCH_BEGIN, _REQUEST, 1, _UNSPEC, _SUBSYS_NFTABLES, b"")
    end = _message(_NFNL_BATCH_END, _REQUEST, len(rules) + 2, _UNSPEC, _SUBSYS_NFTABLES, b"")
    return begin + b"".join(rules) + end, len(rules)


def _rule(sequence: int, rule: Move | Claim) -> bytes:
    if isinstance(rule, Claim):
        expressions = _claim(rule)
    else:
        expressions = _both(rule) if rule.addresses > 1 else _one(rule)
    attributes = _string(1, "loopnet") + _string(2, rule.chain) + _nest(4, b"".join(expressions))
    return _message(
        (_SUBSYS_NFTABLES << 8) | _NEWRULE, _REQUEST | _ACK | _CREATE, sequence, _BRIDGE, 0, attributes
    )


def _claim(claim: Claim) -> list[bytes]:
    """Registers of 4 bytes hold what is looked up: a MAC address fills two."""
    if claim.otherwise:
        verdict = _u32(1, _NFT_GOTO) + _string(2, claim.otherwise)
        return [_target(_REG32), _lookup(claim.known, _LOOKUP_INVERTED), _verdict(verdict)]
    sender = _expression("payload", _u32(1, _REG32) + _u32(2, 0) + _u32(3, 6) + _u32(4, 6))
    return [sender, _target(_REG32 + 2), _lookup(claim.known, 0), _verdict(_u32(1, _NF_ACCEPT))]


def _target(register: int) -> bytes:
    place = _u32(2, _HEADERS[TRANSPORT_HEADER]) + _u32(3, 8) + _u32(4, 16)
    return _expression("payload", _u32(1, register) + place)


def _lookup(known: str, flags: int) -> bytes:
    return _expression("lookup", _string(1, known) + _u32(2, _REG32) + _u32(5, flags))


def _verdict(verdict: bytes) -> bytes:
    return _expression("immediate", _u32(1, _REG_VERDICT) + _nest(2, _nest(2, verdict)))


def _one(move: Move) -> list[bytes]:
    """@HEADER,OFFSET,32 & netmask == old prefix, then the write."""
    matches = _expression("cmp", _u32(1, _REG) + _u32(2, 0) + _data(3, move.old.network_address.packed))
    return [_load(move), _bitwise(move.old.netmask.packed, bytes(_ADDRESS)), matches, *_write(move)]


def _both(move: Move) -> list[bytes]:
    """The write, and the packet is done with."""
    return [*_write(move), _verdict(_u32(1, _NF_ACCEPT))]


def _write(move: Move) -> list[bytes]:
    """@HEADER,OFFSET,32 set @HEADER,OFFSET,32 & hostmask | new prefix"""
    mask, prefix = move.new.hostmask.packed, move.new.network_address.packed
    return [_load(move), _bitwise(mask * move.addresses, prefix * move.addresses), _store(move)]


def _place(move: Move) -> bytes:
    return _u32(2, _HEADERS[move.header]) + _u32(3, move.offset) + _u32(4, _ADDRESS * move.addresses)


def _load(move: Move) -> bytes:
    return _expression("payload", _u32(1, _REG) + _place(move))


def _store(move: Move) -> bytes:
    checksum, flags = _CHECKSUMS[move.header]
    mended = _u32(6, _CSUM_INET) + _u32(7, checksum) + _u32(8, flags)
    return _expression("payload", _place(move) + _u32(5, _REG) + mended)


def _bitwise(mask: bytes, xor: bytes) -> bytes:
    registers = _u32(1, _REG) + _u32(2, _REG) + _u32(3, len(mask))
    return _expression("bitwise", registers + _data(4, mask) + _data(5, xor))


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
