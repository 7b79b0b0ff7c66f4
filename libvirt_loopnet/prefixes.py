"""Arithmetic on prefixes: what part of 127.0.0.0/8 a network may take, its other two prefixes."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from .errors import ConflictError, InputError
from .validation import shown

LOOPBACK = IPv4Network("127.0.0.0/8")
HOST_RESERVED = IPv4Network("127.0.0.0/16")
"""What lo keeps: 127.0.0.1, Debian's 127.0.1.1, systemd-resolved's 127.0.0.53 and .54."""
TRANSIT = IPv4Network("247.0.0.0/8")
"""Class E (240.0.0.0/4, RFC 1112): Linux forwards it, nobody routes it."""

SHORTEST = 9
LONGEST = 29

KNOWN_USERS = (
    (IPv4Network("127.1.27.0/24"), "kubefwd"),
    (IPv4Network("127.127.0.0/16"), "NTP reference clocks"),
    (IPv4Network("127.192.0.0/10"), "Tor's automatic addresses"),
)
"""Parts of 127/8 that known software uses; taking one is allowed and worth a warning."""


def parse_prefix(text: str, what: str) -> IPv4Network:
    """Read ADDRESS/LENGTH; ``what`` names it in the error.

    Raises InputError when it is not an IPv4 prefix, has host bits set, or has no length.
    """
    if "/" not in text:
        raise InputError(f"{what} {shown(text)} has no length; write it as ADDRESS/LENGTH")
    address, _, length = text.partition("/")
    try:
        prefix = IPv4Network((IPv4Address(address), int(length)), strict=False)
    except ValueError:
        raise InputError(f"{what} {shown(text)} is not an IPv4 prefix; write it as ADDRESS/LENGTH") from None
    if prefix.network_address != IPv4Address(address):
        raise InputError(f"{what} {address}/{prefix.prefixlen} has host bits set; did you mean {prefix}?")
    return prefix


def check_loop_prefix(prefix: IPv4Network) -> IPv4Network:
    """Return ``prefix`` if a network may have it as its loop prefix, else raise InputError."""
    if not prefix.subnet_of(LOOPBACK):
        raise InputError(f"loop prefix {prefix} is outside 127.0.0.0/8; for example, use 127.1.0.0/24")
    if prefix.overlaps(HOST_RESERVED):
        raise InputError(
            f"loop prefix {prefix} overlaps 127.0.0.0/16, which stays the host's; for example, use 127.1.0.0/24"
        )
    _check_length(prefix, "loop prefix")
    return prefix


def check_guest_prefix(prefix: IPv4Network, loop_prefix: IPv4Network, mode: str) -> IPv4Network:
    """Return ``prefix`` if it can be the guest prefix of ``loop_prefix``, else raise InputError."""
    if prefix.prefixlen != loop_prefix.prefixlen:
        raise InputError(
            f"guest prefix {prefix} and loop prefix {loop_prefix} differ in length; give both the same"
        )
    if mode == "native":
        if prefix != loop_prefix:
            raise InputError(f"in native mode the guest prefix is the loop prefix, {loop_prefix}")
        return prefix
    for other, name in (
        (LOOPBACK, "127.0.0.0/8; only mode native has guests there"),
        (IPv4Network("0.0.0.0/8"), "0.0.0.0/8"),
        (IPv4Network("224.0.0.0/3"), "224.0.0.0/3"),
    ):
        if prefix.overlaps(other):
            raise InputError(f"guest prefix {prefix} is inside {name}; for example, use 10.127.1.0/24")
    _check_length(prefix, "guest prefix")
    return prefix


def _check_length(prefix: IPv4Network, what: str) -> None:
    if not SHORTEST <= prefix.prefixlen <= LONGEST:
        raise InputError(f"{what} {prefix} must have a length from /{SHORTEST} to /{LONGEST}")


def transit_prefix(loop_prefix: IPv4Network) -> IPv4Network:
    """The loop prefix with 127 replaced by 247."""
    return _replace_first_octet(loop_prefix, 247)


def default_guest_prefix(loop_prefix: IPv4Network) -> IPv4Network:
    """127.1.0.0/24 gives 10.127.1.0/24; what is too large for that gives 10.x as 127.x.

    Two loop prefixes may get the same guest prefix: no harm, the bridges are apart.
    """
    if loop_prefix.prefixlen < 24:
        return _replace_first_octet(loop_prefix, 10)
    _, second, _, last = loop_prefix.network_address.packed
    return IPv4Network((bytes((10, 127, second, last)), loop_prefix.prefixlen))


def _replace_first_octet(prefix: IPv4Network, octet: int) -> IPv4Network:
    return IPv4Network((bytes((octet,)) + prefix.network_address.packed[1:], prefix.prefixlen))


def known_user(prefix: IPv4Network) -> str | None:
    """Who else is known to use part of ``prefix``, or None."""
    for used, name in KNOWN_USERS:
        if prefix.overlaps(used):
            return f"{name} ({used})"
    return None


def free_loop_prefix(length: int, taken: Iterable[IPv4Network]) -> IPv4Network:
    """The lowest loop prefix of ``length`` that overlaps none of ``taken``.

    127.1.0.0, 127.2.0.0, … come first, so that prefixes up to /16 are told apart by one octet.
    Known users are avoided while there is room beside them: the only /9 holds Tor's addresses.
    Raises ConflictError when 127/8 is full.
    """
    reserved = [*taken, HOST_RESERVED]
    careful = reserved + [used for used, _ in KNOWN_USERS]
    for avoid in (careful, reserved):
        for block in sorted({min(length, 16), length}):
            for candidate in LOOPBACK.subnets(new_prefix=block):
                first = IPv4Network((candidate.network_address, length))
                if not any(first.overlaps(other) for other in avoid):
                    return first
    raise ConflictError(
        f"no free prefix of length /{length} is left in 127.0.0.0/8; use a longer one, or "
        "undefine a loopnet network that is no longer needed"
    )


def check_overlap(name: str, prefix: IPv4Network, others: Iterable[tuple[str, IPv4Network]]) -> None:
    """Raise ConflictError if ``prefix`` of network ``name`` overlaps that of another network."""
    for other, taken in others:
        if other != name and prefix.overlaps(taken):
            raise ConflictError(
                f"loop prefix {prefix} of network {name} overlaps {taken} of network {other}; choose another"
            )
