"""What guests are called: DNS labels, names in /etc/hosts, aliases of taps."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address

from .model import Guest, Network

_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
MAX_LENGTH = 63
"""RFC 1035, 2.3.4."""


def dns_label(name: str) -> str:
    """``name`` as one DNS label: a-z, 0-9 and '-', at most 63 of them; '' if nothing is left.

    'Web Server_1.example' gives 'web-server-1-example': a dot would make it two labels.
    """
    label = "".join(char if char in _ALLOWED else "-" for char in name.lower())
    while "--" in label:
        label = label.replace("--", "-")
    return label.strip("-")[:MAX_LENGTH].rstrip("-")


def alias(name: str, network: Network, number: int) -> str:
    """What ``ip link`` shows for a guest's tap; state.py reads it back."""
    return f"{name} {network.loop_address(number)}".strip()


def host_names(
    networks: Iterable[Network], guests: Iterable[Guest]
) -> tuple[tuple[IPv4Address, tuple[str, ...]], ...]:
    """(loop address, names) of the named ``guests``, for /etc/hosts."""
    by_name = {network.name: network for network in networks}
    named = [(by_name[guest.network], guest) for guest in guests if guest.name]
    return tuple(
        (network.loop_address(guest.number), (f"{guest.name}.{network.domain}",)) for network, guest in named
    )
