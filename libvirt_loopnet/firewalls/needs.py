"""What must pass other people's rules for our networks, as sample packets: what those of IPv4 (needs_ipv4.py) and of
IPv6 (needs_ipv6.py) have in common. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from ..model import Network
from .ways import ELSEWHERE, Ways

CLIENT = 40000
REPLY = "ct state established,related"
NO_DHCP, NO_DNS, NO_PING = "guests get no DHCP", "guests get no DNS", "guests can't ping the gateway"
NO_GUEST, NO_INTERNET = "the host doesn't reach guests", "guests don't reach the internet"
NOT_AMONG = "guests don't reach each other"
NO_LAN = "the LAN doesn't reach published ports"


def devices(uplink: str, ways: Ways) -> Iterable[tuple[str, str]]:
    """(a device by which the host's own traffic goes, how nft tells it, with DIR for iifname or oifname)."""
    if ways.elsewhere:
        device = uplink if uplink and ways.lets_out(uplink) else ELSEWHERE
        yield device, " ".join(f'DIR != "{name}"' for name in ways.closed)
        return
    for name in ways.open:
        yield name, f'DIR "{name}"'


def directions(there: str) -> tuple[str, str]:
    """nft's words for out by a device, and in by it, from what devices() has."""
    return there.replace("DIR", "oifname"), there.replace("DIR", "iifname")


def guest_of(network: Network) -> int:
    """The number of some guest."""
    return next(n for n in network.guest_numbers if n not in (network.host, network.gateway))
