"""Who was seen to use which address on a network: by the host's neighbour table and by our rules."""

from __future__ import annotations

from ipaddress import IPv4Address

from ..errors import HostError
from ..model import FREE, Network
from ..ruleset.phrases import chain
from .kernel import sets
from .kernel.neighbours import neighbours


def heard(network: Network) -> list[tuple[str, IPv4Address]]:
    """(MAC, address) of what was sent in the last half hour with an address that is not its sender's
    (ruleset/bridge.py); empty where there are no rules, and for whom may not look."""
    try:
        keys = sets.elements(sets.BRIDGE, "loopnet", chain("seen", network))
    except HostError:
        return []
    # A key has its parts at multiples of 4 bytes.
    return [(key[:6].hex(":"), IPv4Address(key[8:12])) for key in keys if len(key) == 12]


def in_use(network: Network, but: str) -> set[int]:
    """Host numbers that others than the NIC ``but`` were seen to use; () where none may use a free one."""
    if network.addresses != FREE:
        return set()
    seen = [*neighbours(network.bridge), *heard(network)]
    return {network.number(address) or 0 for mac, address in seen if mac != but}
