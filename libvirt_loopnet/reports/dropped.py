"""What a guest sends from in vain, and the command that would let it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import NamedTuple

from ..model import Network, Reservation

_ANOTHER = "give it another address, in the guest; see: loopnet list"


class Dropped(NamedTuple):
    """An address that a NIC uses and may not."""

    what: str
    command: str
    inside: bool
    """It is of the network, and no packet of somebody behind the guest."""


def explain(network: Network, kept: Sequence[Reservation], mac: str, address: IPv4Address) -> Dropped:
    """Why ``address``, as the guest calls it, is not let in from the NIC ``mac``."""
    who = _called(kept, mac)
    number = network.number(address) if address in network.guest_prefix else None
    what = f"guest {who} sends from {address}"
    if number is None:
        return Dropped(
            f"{what}, which is not in {network.guest_prefix} of network {network.name}",
            "let the guest use DHCP, and NAT for those behind it",
            False,
        )
    loop = network.loop_address(number)
    holders = [each for each in kept if number in each.numbers]
    if number in (0, network.gateway, network.host, network.loop_prefix.num_addresses - 1):
        return Dropped(f"{what}, which is the host's in network {network.name}", _ANOTHER, True)
    if holders:
        names = ", ".join(each.name or each.mac for each in holders)
        shared = number in holders[0].shared
        command = f"loopnet reserve --shared {loop} {who}" if shared else _ANOTHER
        verb = "shared by" if shared else "reserved for"
        return Dropped(f"{what}, which is {verb} {names} in network {network.name}", command, True)
    return Dropped(
        f"{what}, which is not reserved for it, and network {network.name} has addresses='own'",
        f"loopnet reserve {who} --also {loop}",
        True,
    )


def _called(kept: Sequence[Reservation], mac: str) -> str:
    """As ``loopnet reserve`` knows this very NIC: by its name, if its guest has no other in the network."""
    mine = next(each for each in kept if each.mac == mac)
    others = [each for each in kept if each.uuid == mine.uuid and each.mac != mac]
    return mac if not mine.name or (mine.uuid and others) else mine.name
