"""``loopnet status``: is everything as it should be? Status 0 if so, 1 if not.

``--json`` prints one object::

    ok        true if nothing below needs repair
    networks  array, one object for each loopnet network that is active or defined:
              name, active, mode, bridge ("" before libvirt has chosen one), bridge_exists,
              loop_prefix, guest_prefix, transit_prefix,
              gateway, host: addresses of these two, the guest's and the loop address,
              domain, up: NICs plugged in, reserved: NICs that have an address
    lo        object: addresses (array, "127.0.0.1/16"), shrunk, reason
    rules     true if all of our tables are loaded
    published array of objects, as with list, and: guest (its name, or MAC address), network, active
              (the network is)
    dropped   array of objects, one for each address that a guest recently sent from and that was
              not let in: guest and network as above, mac, address (as the guest writes it), command
    hooks     object: network and qemu, each "installed", "missing", "foreign" or "dead"
    drift     array of lines: what ``loopnet sync`` would do
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import NamedTuple

from ..addresses.store import Store
from ..converge.drift import Look, brief, broken, look
from ..daemon import hookfiles
from ..model import LOCALHOST, NONE, Network
from ..planning.ipv6 import is_router
from ..planning.lo import FOUND, NARROW, SHRUNK, WIDE
from ..ruleset.tables import TABLES
from .list import as_json
from .publish import line_of
from .shared.inventory import UP, Entry, dropped, entries, links_down, most_dropped, networks_of_files
from .shared.output import print_json, print_table
from .shared.plugging import lacking, out_of_place
from .shared.privileges import require_root
from .shared.untold import WAITING, untold

COLUMNS = ("network", "state", "mode", "bridge", "loop_prefix", "guest_prefix", "up", "reserved")
_HOOKS = {
    hookfiles.INSTALLED: "installed",
    hookfiles.MISSING: "missing, run: loopnet install-hooks",
    hookfiles.FOREIGN: "another program's file, see: " + hookfiles.DIRECTORY,
    hookfiles.DEAD: "broken, run: loopnet install-hooks",
}


class Status(NamedTuple):
    """All that status says."""

    look: Look
    lacking: tuple[str, ...]
    """A line for each running guest that is not plugged into its network, and each NIC that waits to be let in."""
    active: tuple[Network, ...]
    inactive: tuple[Network, ...]
    entries: tuple[Entry, ...]
    hooks: dict[str, str]

    @property
    def drift(self) -> list[str]:
        return [*self.mended_alone, *self.lacking]

    @property
    def mended_alone(self) -> list[str]:
        """Drift but for guests."""
        stale = (f"dnsmasq: {path}" for path in self.look.stale)
        return [*brief(self.look.steps), *stale, *map(broken, self.look.broken)]

    @property
    def ok(self) -> bool:
        return not self.drift and set(self.hooks.values()) == {hookfiles.INSTALLED}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs; the keys are stable")


def run(arguments: Namespace) -> int:
    require_root("status")
    status = gather()
    if arguments.json:
        print_json(_as_json(status))
    else:
        _print(status)
    return 0 if status.ok else 1


def gather() -> Status:
    """Look at everything."""
    seen = look()
    found = networks_of_files()
    hooks = {driver: hookfiles.state(driver) for driver in hookfiles.DRIVERS}
    waiting = [str(each) for each in untold(Store(), found.ports) if each.why == WAITING]
    missing = (*map(lacking, out_of_place()), *waiting)
    return Status(seen, missing, found.active, found.inactive, tuple(entries(found, Store())), hooks)


def _as_json(status: Status) -> dict[str, object]:
    seen = status.look
    return {
        "ok": status.ok,
        "networks": list(_networks(status)),
        "lo": {
            "addresses": [f"{entry.address}/{entry.length}" for entry in seen.observed.lo],
            "shrunk": _is_shrunk(seen),
            "reason": _reason(seen),
        },
        "rules": _has_rules(seen),
        "published": [
            {
                "guest": entry.reservation.name or entry.reservation.mac,
                "network": entry.network_name,
                "active": entry.network in status.active,
                **as_json(each),
            }
            for entry in status.entries
            for each in entry.reservation.published
        ],
        "dropped": [
            {
                "guest": entry.reservation.name or entry.reservation.mac,
                "network": entry.network_name,
                "mac": entry.reservation.mac,
                "address": str(address),
                "command": why.command,
            }
            for entry, address, why in dropped(status.entries)
        ],
        "hooks": status.hooks,
        "drift": status.drift,
    }


def _networks(status: Status) -> Iterator[dict[str, object]]:
    gone = {network.name for network in status.look.broken}
    for network in _sorted(status):
        active = network in status.active
        up, reserved = _count(status, network)
        yield {
            "name": network.name,
            "active": active,
            "mode": network.mode,
            "addresses": network.addresses,
            "bridge": network.bridge,
            "bridge_exists": active and network.name not in gone,
            "loop_prefix": str(network.loop_prefix),
            "guest_prefix": str(network.guest_prefix),
            "transit_prefix": str(network.transit_prefix),
            "ipv6_prefixes": [str(prefix) for prefix in network.ipv6_prefixes],
            "gateway": str(network.guest_address(network.gateway)),
            "host": str(network.loop_address(network.host)),
            "domain": network.domain,
            "up": up,
            "reserved": reserved,
        }


def _count(status: Status, network: Network) -> tuple[int, int]:
    """(NICs plugged in, NICs with a reservation)"""
    inside = [entry for entry in status.entries if entry.network_name == network.name]
    return sum(1 for entry in inside if entry.state == UP), len(inside)


def _print(status: Status) -> None:
    seen = status.look
    print_table(COLUMNS, [_row(status, network) for network in _sorted(status)])
    print()
    for line in _ipv6(status):
        print(f"ipv6:   {line}")
    for entry in seen.observed.lo:
        print(f"lo:     {entry.address}/{entry.length}")
    print(f"        {_reason(seen)}")
    wanted = "" if seen.desired.networks else "; none are needed"
    print(f"rules:  {'loaded' if _has_rules(seen) else 'not loaded'}{wanted}")
    for line in _ports(status):
        print(f"port:   {line}")
    for what, command in links_down(status.entries):
        print(f"link:   {what}: {command}")
    for why in most_dropped(status.entries):
        print(f"drops:  {why.what}: {why.command}")
    for driver, state in status.hooks.items():
        print(f"hook:   {driver} {_HOOKS[state]}")
    print(f"drift:  {'repair it with: loopnet sync' if status.drift else 'none'}")
    for line in status.drift:
        print(f"        {line}")


def _ipv6(status: Status) -> Iterator[str]:
    """A line for each prefix, and whether guests have a way out by it."""
    seen = status.look
    for network in _sorted(status):
        for prefix in network.ipv6_prefixes:
            if network not in status.active:
                yield f"{network.name} {prefix}"
            elif network.ipv6 and not seen.observed.ipv6.enabled:
                yield f"{network.name} {prefix}, unused: this host has no IPv6"
            elif network.internet == NONE:
                yield f"{network.name} {prefix}, isolated"
            elif network.ipv6 and not is_router(seen.observed.ipv6, seen.desired.networks):
                yield f"{network.name} {prefix}, no way out"
            else:
                yield f"{network.name} {prefix}"


def _ports(status: Status) -> Iterator[str]:
    for entry in status.entries:
        active = "" if entry.network in status.active else ", once its network is active"
        for each in entry.reservation.published:
            yield f"{line_of(each, entry.reservation, entry)}{active}"


def _sorted(status: Status) -> list[Network]:
    return sorted((*status.active, *status.inactive))


def _row(status: Status, network: Network) -> tuple[str, ...]:
    up, reserved = _count(status, network)
    return (
        network.name,
        "active" if network in status.active else "inactive",
        network.mode,
        network.bridge,
        str(network.loop_prefix),
        str(network.guest_prefix),
        str(up),
        str(reserved),
    )


def _is_shrunk(seen: Look) -> bool:
    """Shrunk by us; the route that stands in for the rest of 127/8 says so (lo.py)."""
    return SHRUNK in seen.observed.routes and _lengths(seen) == {NARROW}


def _lengths(seen: Look) -> set[int]:
    return {entry.length for entry in seen.observed.lo if entry.address == LOCALHOST}


def _reason(seen: Look) -> str:
    if seen.options.lo == "keep":
        return "left alone: lo = keep in the configuration"
    if not seen.desired.shrink_lo:
        return "as is: no network is active"
    if _is_shrunk(seen):
        return f"shrunk from /{WIDE} while a network is active"
    if FOUND in seen.observed.routes and WIDE not in _lengths(seen):
        return f"left alone: {LOCALHOST}/{WIDE} was not there to begin with"
    return "not shrunk, see drift"


def _has_rules(seen: Look) -> bool:
    listing = seen.observed.ruleset or ""
    return all(f"table {family} {name} {{" in listing for family, name in TABLES)
