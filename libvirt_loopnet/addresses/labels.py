"""What guests are called: DNS labels, the names that host/hosts_file.py writes, aliases of taps."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

from ..model import Guest, Network

_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_IDNA = "xn--"
_LETTERS = frozenset(("Ll", "Lo", "Lm", "Mn", "Mc", "Nd"))
MAX_LENGTH = 63
"""RFC 1035, 2.3.4."""


def dns_label(name: str) -> str:
    """``name`` as one DNS label: a-z, 0-9 and '-', at most 63 of them; '' if nothing is left.

    'Web Server_1.example' gives 'web-server-1-example': a dot would make it two labels. Letters beyond ASCII
    get the form that browsers and ssh make of them, 'Büro' 'xn--bro-hoa' (IDNA, RFC 5891); a name in
    that form stays as it is.
    """
    lower = name.lower()
    if (
        lower.startswith(_IDNA)
        and len(lower) <= MAX_LENGTH
        and _ALLOWED.issuperset(lower)
        and lower[-1] != "-"
    ):
        return lower
    if name.isascii():
        return _tidy(lower)[:MAX_LENGTH].rstrip("-")
    return _idna(name)


def with_suffix(label: str, suffix: str) -> str:
    """``label`` with ``suffix``, which is ASCII, in 63 characters: 'vm1-7'; 'xn--bro-7-kva', as what it stands for."""
    if label.startswith(_IDNA):
        with suppress(UnicodeError):  # somebody's own xn--…
            return dns_label(label[len(_IDNA) :].encode().decode("punycode") + suffix)
    return label[: MAX_LENGTH - len(suffix)].rstrip("-") + suffix


def _tidy(name: str, further: Callable[[str], bool] = lambda char: False) -> str:
    label = "".join(char if char in _ALLOWED or further(char) else "-" for char in name)
    while "--" in label:
        label = label.replace("--", "-")
    return label.strip("-")


def _idna(name: str) -> str:
    """The codec "idna" is that of RFC 3490, which makes ss of a German sharp s, and takes long to import."""
    import unicodedata

    def is_letter(char: str) -> bool:
        """Letters, marks and digits, RFC 5892, 2.1; those alone that stay what they are, 2.2."""
        category = unicodedata.category(char)
        return category in _LETTERS and unicodedata.normalize("NFKC", char.lower()) == char

    label = _tidy(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).lower()), is_letter)
    while (
        label and unicodedata.category(label[0])[0] == "M"
    ):  # a label can't begin with one, RFC 5891, 4.2.3.2
        label = label[1:].lstrip("-")
    while not label.isascii():
        encoded = _IDNA + label.encode("punycode").decode("ascii")
        if len(encoded) <= MAX_LENGTH:
            return encoded
        label = label[:-1].rstrip("-")
    return label[:MAX_LENGTH].rstrip("-")


def alias(name: str, network: Network, number: int) -> str:
    """What ``ip link`` shows for a guest's tap; state.py reads it back."""
    return f"{name} {network.loop_address(number)}".strip()


def host_names6(
    networks: Iterable[Network], guests: Iterable[Guest], leased: Container[IPv6Address]
) -> tuple[tuple[IPv6Address, tuple[str, ...]], ...]:
    """The same in IPv6, of those that have their address: programs try it first, and would wait for an answer."""
    by_name = {network.name: network for network in networks}
    named = ((by_name[guest.network], guest) for guest in guests if guest.name)
    pairs = ((n.ipv6_address(guest.number), f"{guest.name}.{n.domain}") for n, guest in named)
    return tuple((address, (name,)) for address, name in pairs if address and address in leased)


def host_names(
    networks: Iterable[Network], guests: Iterable[Guest]
) -> tuple[tuple[IPv4Address, tuple[str, ...]], ...]:
    """(loop address, names) of the named ``guests``, for /etc/hosts."""
    by_name = {network.name: network for network in networks}
    named = [(by_name[guest.network], guest) for guest in guests if guest.name]
    return tuple(
        (network.loop_address(guest.number), (f"{guest.name}.{network.domain}",)) for network, guest in named
    )
