"""The whole ruleset, and what takes it away."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..model import Binding, Guest, Network, Published
from .arp import arp_table
from .bridge import bridge_table
from .elements import add_elements
from .ip import ip_table
from .ip6 import ip6_table

TABLES = (("bridge", "loopnet"), ("arp", "loopnet"), ("ip", "loopnet"))
IPV6_TABLE = ("ip6", "loopnet")
"""Is there only while a network has IPv6 whose rules are ours; a kernel without IPv6 has no such tables."""
ALL_TABLES = (*TABLES, IPV6_TABLE)


def delete_tables(*, with_ipv6: bool = True) -> str:
    """Take our tables away; right also when they aren't there (``add`` makes ``delete`` succeed)."""
    tables = ALL_TABLES if with_ipv6 else TABLES
    return "".join(f"add table {f} {t}\ndelete table {f} {t}\n" for f, t in tables)


def make_tables(
    networks: Sequence[Network],
    guests: Sequence[Guest],
    bindings: Sequence[Binding],
    published: Sequence[Published] = (),
    reserved: Iterable[tuple[str, int]] = (),
    is_ipv6_router: bool = False,
    published6: Sequence[Published] = (),
) -> str:
    """Our tables for these active ``networks``; '' when there are none.

    ``published6`` are those of ``published`` whose guests have their address in IPv6.
    """
    if not networks:
        return ""
    of_ipv4 = [each for each in published if each.publication.is_ipv4]
    made = bridge_table(networks, is_ipv6_router) + ip_table(networks, of_ipv4) + arp_table(networks)
    return (
        made
        + ip6_table(networks, published6 if is_ipv6_router else ())
        + add_elements(networks, guests, bindings, reserved)
    )
