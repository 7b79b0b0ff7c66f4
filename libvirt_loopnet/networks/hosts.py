"""libvirt's ``<host>`` entries as reservations with the same host numbers."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network

from ..addresses.labels import dns_label
from ..model import Network, Reservation
from ..validation import check_mac, shown
from ..xml.tree import Element
from .dhcp import padded_mac
from .elements import ipv4_elements, place


def merge_hosts(
    root: Element,
    draft: Network,
    declared: Sequence[Reservation],
    prefixes: Sequence[IPv4Network],
) -> tuple[tuple[Reservation, ...], tuple[str, ...]]:
    """``declared`` and the IPv4 ``<host>`` entries, and warnings for those that can't be kept.

    An entry's number is its place in one of ``prefixes``. The first of two with the same number
    or MAC address is kept.
    """
    kept: list[Reservation] = []
    warnings: list[str] = []
    for host in declared:
        _keep(draft, host, kept, warnings)
    for dhcp in ipv4_elements(root)[0].findall("dhcp"):
        for element in dhcp.findall("host"):
            converted = _convert(draft, element, prefixes, warnings)
            if converted:
                _keep(draft, converted, kept, warnings)
    return tuple(kept), tuple(warnings)


def _convert(
    draft: Network, host: Element, prefixes: Sequence[IPv4Network], warnings: list[str]
) -> Reservation | None:
    what = f"network {draft.name}: <host ip={shown(host.get('ip'))}>"
    number = place(host.get("ip"), prefixes)
    if number is None:
        warnings.append(f"{what} is in none of the network's prefixes and was dropped")
        return None
    mac, name = host.get("mac"), host.get("name")
    label = dns_label(name.partition(".")[0])
    if name.lower() not in (name.partition(".")[0].lower(), f"{label}.{draft.domain.lower()}"):
        warnings.append(f"{what}: the name {shown(name)} becomes {label!r}, in the network's domain")
    if not mac:
        warnings.append(
            f"{what} has no MAC address: once its guest runs, give it the address with "
            f"loopnet reserve GUEST {draft.loop_address(number)}"
        )
    return Reservation(number, check_mac(what, padded_mac(mac)) if mac else "", "", label)


def _keep(draft: Network, host: Reservation, kept: list[Reservation], warnings: list[str]) -> None:
    what = f"network {draft.name}: host number {host.number} of {host.mac or host.name or 'a guest'}"
    if host.number not in draft.guest_numbers:
        warnings.append(f"{what} can't be a guest's in {draft.loop_prefix} and was dropped")
    elif host.number in (draft.gateway, draft.host):
        warnings.append(f"{what} is the network's own address and was dropped")
    elif any(host.number == other.number for other in kept):
        warnings.append(f"{what} also belongs to another guest, which keeps it")
    elif host.mac and any(host.mac == other.mac for other in kept):
        warnings.append(f"{what} was dropped, this guest has another number already")
    else:
        kept.append(host)
