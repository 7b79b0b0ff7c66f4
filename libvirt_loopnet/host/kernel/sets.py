"""What is in an nft set (linux/netfilter/nf_tables.h), without a run of nft: that takes ten times as long."""

from __future__ import annotations

from collections.abc import Iterator

from .netlink import NETFILTER, attribute, attributes, dump, nfgenmsg

BRIDGE = 7
"""NFPROTO_BRIDGE"""
_GETSETELEM = 10 << 8 | 13
_TABLE, _SET, _ELEMENTS, _ELEMENT, _KEY, _VALUE = 1, 2, 3, 1, 1, 1
"""NFTA_SET_ELEM_LIST_TABLE, _SET and _ELEMENTS; NFTA_LIST_ELEM, NFTA_SET_ELEM_KEY, NFTA_DATA_VALUE."""


def elements(family: int, table: str, name: str) -> list[bytes]:
    """The keys of the set ``name``; none if there is no such set. Raises HostError."""
    head = nfgenmsg(family)
    wanted = attribute(_TABLE, _text(table)) + attribute(_SET, _text(name))
    return [
        value
        for answer in dump(NETFILTER, _GETSETELEM, head, wanted)
        for listed in _inside(answer[len(head) :], _ELEMENTS)
        for element in _inside(listed, _ELEMENT)
        for key in _inside(element, _KEY)
        for value in _inside(key, _VALUE)
    ]


def _inside(data: bytes, kind: int) -> Iterator[bytes]:
    return (value for found, value in attributes(data) if found == kind)


def _text(text: str) -> bytes:
    return text.encode() + bytes(1)
