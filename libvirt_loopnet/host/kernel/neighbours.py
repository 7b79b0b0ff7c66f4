"""Which addresses the host has seen in use on a bridge: how guests with static addresses are known."""

from __future__ import annotations

from ipaddress import IPv4Address

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
