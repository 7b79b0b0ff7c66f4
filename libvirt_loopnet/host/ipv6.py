"""What the kernel says of IPv6: read from /proc, since an event must not pay for one more program."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from ipaddress import IPv6Address, IPv6Network

from ..firewalls.openings import Firewalls
from ..model import Network
from ..planning.ipv6 import FORWARDING, MARK, Observed6, Route6, settings, uplinks
from . import other_firewalls

ROUTES = "/proc/net/ipv6_route"
ADDRESSES = "/proc/net/if_inet6"
SYSCTLS = "/proc/sys/net/ipv6/conf"

_RTF_UP, _RTF_REJECT, _RTF_ADDRCONF = 0x1, 0x200, 0x40000  # linux/route.h, linux/ipv6_route.h


def routes() -> list[IPv6Network]:
    """Where the routes lead, of all tables; those to devices that answer for nobody (unreachable) too: such a route is
    how a prefix is kept that the provider sends here."""
    return [IPv6Network((int(words[0], 16), int(words[1], 16)), strict=False) for words in _lines(ROUTES)]


def _lines(path: str) -> list[list[str]]:
    """Words of the file, by line; none where there is no IPv6."""
    try:
        with open(path, encoding="ascii") as file:
            return [line.split() for line in file]
    except OSError:
        return []


def has_ipv6() -> bool:
    """Has the kernel IPv6 at all, be it disabled by sysctl for now? Not with ipv6.disable=1, or built without."""
    return os.path.exists(ADDRESSES)


def is_enabled() -> bool:
    """Has the kernel IPv6, and is it not disabled by sysctl on all interfaces (ip-sysctl.rst, disable_ipv6)?"""
    return _sysctl("all/disable_ipv6") == "0"


def _sysctl(key: str) -> str:
    try:
        with open(f"{SYSCTLS}/{key}", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def observe(bridges: Iterable[str], chains: str | None, *, first: bool) -> Observed6:
    """What the kernel holds; of sysctls those of ``bridges``.

    ``chains`` is nft's list of all chains, if it could be had; it is asked for the ``first`` look only.
    """
    found = tuple(_routes())
    wanted = (*settings(bridges), FORWARDING, MARK)
    addresses = frozenset((words[5], IPv6Address(bytes.fromhex(words[0]))) for words in _lines(ADDRESSES))
    held = frozenset(line for line in wanted if _holds(line))
    devices = {dev for dev, address in addresses if not address.is_link_local}
    return Observed6(
        enabled=is_enabled(),
        has_table="table ip6 loopnet {" in chains if chains is not None else first,
        addresses=addresses,
        routes=found,
        settings=held,
        accept_ra=frozenset(r.dev for r in found if r.learned and _sysctl(f"{r.dev}/accept_ra") == "1"),
        forwarding=_forwarding(devices) if FORWARDING not in held else frozenset(),
    )


def _forwarding(devices: Iterable[str]) -> frozenset[str]:
    return frozenset(dev for dev in (*devices, "default") if _sysctl(f"{dev}/forwarding") == "1")


def with_ip6tables(seen: Firewalls, observed: Observed6, networks: Iterable[Network]) -> Firewalls:
    """``seen`` with what it takes to know of IPv6, where it is, or was, of ``networks``' concern. Raises HostError."""
    if not (observed.has_table or any(network.ipv6_prefixes for network in networks)):
        return seen
    saved = tuple((tool, other_firewalls.save(tool)) for tool in seen.ip6tools)
    return seen._replace(
        ip6tables=saved,
        bridges=other_firewalls.bridges() if saved else seen.bridges,
        uplink6=next(iter(uplinks(observed.routes)), ""),
    )


def _routes() -> Iterator[Route6]:
    for words in _lines(ROUTES):
        flags = int(words[8], 16)
        if flags & _RTF_UP and not flags & _RTF_REJECT:
            prefix = IPv6Network((int(words[0], 16), int(words[1], 16)), strict=False)
            yield Route6(prefix, words[9], int(words[5], 16), bool(flags & _RTF_ADDRCONF))


def _holds(line: str) -> bool:
    key, _, value = line.partition("=")
    return _sysctl(key.removeprefix("net/ipv6/conf/")) == value


def endangered() -> tuple[str, ...]:
    """Devices by which the kernel has a default route that it would lose if it began to forward."""
    seen = observe((), None, first=False)
    if FORWARDING in seen.settings:
        return ()
    defaults = (route for route in seen.routes if route.learned and not route.prefix.prefixlen)
    return tuple(sorted({route.dev for route in defaults} & seen.accept_ra))
