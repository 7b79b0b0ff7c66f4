"""Which addresses the host has seen in use on a bridge: how guests with static addresses are known."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from ... import process
from ...errors import HostError

ARP = "/proc/net/arp"
COMPLETE = 0x2
"""ATF_COM in linux/if_arp.h."""


def neighbours(bridge: str, path: str = ARP) -> list[tuple[str, IPv4Address]]:
    """(MAC, address) of the IPv4 neighbours on ``bridge``; empty where there is no such file.

    Not libvirt's virDomainInterfaceAddresses with source ARP: libvirt 9.0's fails on kernel 6.18
    ("wrong nlmsg len").
    """
    try:
        with open(path, encoding="ascii") as file:
            rows = [line.split() for line in file][1:]
    except OSError:
        return []
    return [
        (mac.lower(), IPv4Address(address))
        for address, _kind, flags, mac, _mask, device in (row for row in rows if len(row) == 6)
        if device == bridge and int(flags, 16) & COMPLETE
    ]


def neighbours6(bridge: str) -> list[tuple[str, IPv6Address]]:
    """(MAC, address) of the IPv6 neighbours on ``bridge``, fe80 not counted: those first that have answered of late.

    By iproute2, as /proc has no such file; empty where it can't be asked.
    """
    try:
        result = process.run(["ip", "-6", "-oneline", "neighbour", "show", "dev", bridge])
    except HostError:
        return []
    rows = [line.split() for line in result.stdout.decode(errors="replace").splitlines()]
    known = [(row, row.index("lladdr") + 1) for row in rows if "lladdr" in row[:-1] and row[-1] != _FAILED]
    known.sort(key=lambda each: each[0][-1] != _REACHABLE)
    found = [(row[at].lower(), IPv6Address(row[0])) for row, at in known]
    return [(mac, address) for mac, address in found if not address.is_link_local]


_REACHABLE, _FAILED = "REACHABLE", "FAILED"  # nud_state_n2a() in iproute2
