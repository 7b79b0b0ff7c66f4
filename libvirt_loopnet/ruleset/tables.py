"""The whole ruleset, and what takes it away."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..model import Binding, Guest, Network, Published
from .arp import arp_table
from .bridge import bridge_table
from .elements import add_elements
from .ip import ip_table

TABLES = (("bridge", "loopnet"), ("arp", "loopnet"), ("ip", "loopnet"))


def delete_tables() -> str:
    """Take our tables away; right also when they aren't there (``add`` makes ``delete`` succeed)."""
    return "".join(f"add table {f} {t}\ndelete table {f} {t}\n" for f, t in TABLES)


def replace_tables(
    networks: Sequence[Network],
    guests: Sequence[Guest],
    bindings: Sequence[Binding],
    published: Sequence[Published] = (),
    reserved: Iterable[tuple[str, int]] = (),
) -> str:
    """The nft script that puts our tables in place of whatever was there, in one transaction."""
    return delete_tables() + make_tables(networks, guests, bindings, published, reserved)


def make_tables(
    networks: Sequence[Network],
    guests: Sequence[Guest],
    bindings: Sequence[Binding],
    published: Sequence[Published] = (),
    reserved: Iterable[tuple[str, int]] = (),
) -> str:
    """Our tables for these active ``networks``; '' when there are none."""
    if not networks:
        return ""
    made = bridge_table(networks) + ip_table(networks, published) + arp_table(networks)
    return made + add_elements(networks, guests, bindings, reserved)
