"""Arithmetic on IPv6: the prefix that a network may have beside its IPv4 ones, and what becomes of host numbers in it.

Nothing is exchanged in IPv6: no network but this host has its unique local prefix (RFC 4193), so a guest is
at the same address for everybody.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Address, IPv6Network

from .errors import ConflictError, InputError
from .records import NamedTuple
from .validation import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ULA = IPv6Network("fc00::/7")
"""RFC 4193, 3.1; what is made here is in its second half, fd00::/8."""
GLOBAL = IPv6Network("2000::/3")
"""RFC 3587: global unicast addresses."""
LINK_LOCAL = IPv6Network("fe80::/10")
LENGTH = 64
"""SLAAC needs 64 bits for the interface (RFC 4862, RFC 7421)."""
GLOBAL_ID_BYTES = 5


def parse_ipv6_prefix(text: str, what: str) -> IPv6Network:
    """Read a prefix that a network may have; ``what`` names it in the error.

    Raises InputError when it is not an IPv6 prefix, is neither ULA nor global, is not a /64, or has host bits set.
    """
    address, slash, length = text.partition("/")
    try:
        if not (slash and length.isascii() and length.isdigit()):
            raise ValueError
        prefix = IPv6Network((IPv6Address(address), int(length)), strict=False)
    except ValueError:
        raise InputError(
            f"{what} {shown(text)} is not an IPv6 prefix; write it as fd12:3456:789a:1::/64, or use ula"
        ) from None
    if prefix.prefixlen != LENGTH:
        raise InputError(
            f"{what} {prefix} must be a /{LENGTH}, as guests choose the rest; use one of that length"
        )
    if prefix.network_address != IPv6Address(address):
        raise InputError(f"{what} {shown(text)} has host bits set; did you mean {prefix}?")
    if not (prefix.subnet_of(ULA) or prefix.subnet_of(GLOBAL)):
        raise InputError(
            f"{what} {prefix} is neither in {ULA} nor in {GLOBAL}; use ula, or a prefix routed here"
        )
    return prefix


def is_routed(prefix: IPv6Network, routes: Iterable[IPv6Network]) -> bool:
    """Does one of the host's ``routes``, the default route not counted, lead here what is sent to ``prefix``?"""
    return any(route.prefixlen and prefix.subnet_of(route) for route in routes)


def ula_prefix(global_id: bytes, loop_prefix: IPv4Network) -> IPv6Network:
    """The network's /64: fd, 40 bits of the host's, and 16 that stand for the loop prefix.

    127.A.B.0/24 has A and B for its subnet ID; two longer prefixes in one /24 get different ones.
    """
    _, second, third, last = loop_prefix.network_address.packed
    subnet = (second << 8 | third) ^ (last * 0x9E37 & 0xFFFF)
    return IPv6Network((b"\xfd" + global_id + subnet.to_bytes(2, "big") + bytes(8), LENGTH))


def link_local(mac: str) -> IPv6Address:
    """The address that a NIC has before it is told any: its MAC address as modified EUI-64 (RFC 4291, appendix A)."""
    packed = bytes.fromhex(mac.replace(":", ""))
    interface = bytes((packed[0] ^ 2,)) + packed[1:3] + b"\xff\xfe" + packed[3:]
    return IPv6Address(b"\xfe\x80" + bytes(6) + interface)


def check_ipv6_overlap(name: str, prefix: IPv6Network, others: Iterable[tuple[str, IPv6Network]]) -> None:
    """Raise ConflictError if ``prefix`` of network ``name`` overlaps that of another network."""
    for other, taken in others:
        if other != name and prefix.overlaps(taken):
            raise ConflictError(
                f"IPv6 prefix {prefix} of network {name} overlaps {taken} of network {other}; choose another: "
                f"virsh net-dumpxml --inactive {name} | loopnet rewrite --ipv6 PREFIX"
            )


class Choice(NamedTuple):
    """What somebody wants for a network: a prefix, one made of a global ID, or neither."""

    prefix: IPv6Network | None = None
    global_id: Callable[[], bytes] | None = None
    """Asked when all else is known to be right, since it may make one."""

    def of(self, loop_prefix: IPv4Network) -> IPv6Network | None:
        """The prefix of a network with this loop prefix."""
        return ula_prefix(self.global_id(), loop_prefix) if self.global_id else self.prefix
