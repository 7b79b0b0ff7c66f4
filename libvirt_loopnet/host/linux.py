"""The running machine: iproute2, nft, netlink, /proc/sys, /sys.

iproute2's batch mode, not pyroute2: it starts in 2 ms where importing pyroute2 takes 150, and the lines
it runs are the very lines ``loopnet plan`` prints.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from ipaddress import ip_address, ip_network

from .. import process
from ..errors import HostError, PrivilegeError
from ..firewalls.openings import Firewalls
from ..log import warn
from ..model import Network
from ..planning.plan import CONNTRACK, HOSTS, IP, NETLINK, NFT, SYSCTL, Step, inserts
from ..planning.state import Observed, Tap
from ..ruleset.moves import batch, parse
from ..ruleset.tables import ALL_TABLES
from . import hosts_file, ipv6, listing, other_firewalls
from .kernel import conntrack, iproute, netlink
from .kernel.nftables import nft

SYSCTL_ROOT = "/proc/sys"
SYSFS_NET = "/sys/class/net"


class Linux:
    """Host as ruled by the kernel this runs on, in the network namespace this runs in."""

    def __init__(self) -> None:
        self._given, self._listed = ("", b""), ""
        """What canonical() was last given, and its answer: each takes a namespace and two nft."""

    def observe(
        self,
        devices: Iterable[str],
        *,
        ruleset: bool = False,
        firewalls: Firewalls | None = None,
        trusted: Collection[str] = (),
    ) -> Observed:
        chains = other_firewalls.nft_chains() if firewalls is None else None
        seen = iproute.look()
        looked_at = {*devices, *(r.dev for r in seen.routes if r.ours and r.dev != "lo")}
        return Observed(
            lo=seen.lo,
            addresses=seen.addresses,
            routes=seen.routes,
            route_localnet=frozenset(dev for dev in looked_at if _route_localnet(dev)),
            ruleset=listing.listed() if ruleset else _empty_or_unknown(chains),
            hosts=_published_names(),
            firewalls=other_firewalls.observe(chains, trusted) if firewalls is None else firewalls,
            macs=frozenset((dev, _sysfs(dev, "address")) for dev in looked_at),
            neighbours=seen.neighbours,
            ipv6=ipv6.observe(looked_at, chains, first=firewalls is None),
        )

    def canonical(self, networks: Sequence[Network], script: str) -> str:
        """As listing.foretell() has it."""
        messages, acknowledgements = batch(each for network in networks for each in inserts(network))
        given = script, messages
        if given != self._given:
            self._given, self._listed = given, listing.foretell(script, messages, acknowledgements)
        return self._listed

    def taps(self, bridges: Iterable[str]) -> list[Tap]:
        return [
            Tap(name, bridge, _sysfs(name, "ifalias"), _sysfs(name, "address"))
            for bridge in bridges
            for name in sorted(_listdir(f"{SYSFS_NET}/{bridge}/brif"))
        ]

    def run(self, steps: Sequence[Step]) -> None:
        for tool, texts in _grouped(steps):
            if tool in _RUNNERS:
                _RUNNERS[tool](texts)
            else:
                _run_firewall(tool, texts)


def is_device(name: str) -> bool:
    """Is there a network device ``name``?"""
    return os.path.exists(f"{SYSFS_NET}/{name}")


def is_bridge(name: str, mac: str) -> bool:
    """Is there a bridge called so, with this MAC address?"""
    return os.path.isdir(f"{SYSFS_NET}/{name}/bridge") and _sysfs(name, "address") == mac


def routes_loopback(dev: str) -> bool:
    """Does the kernel take 127/8 on device ``dev`` for ordinary addresses? (IN_DEV_ROUTE_LOCALNET)"""
    return _route_localnet("all") or _route_localnet(dev)


def delete_device(name: str) -> None:
    """Delete the network device ``name``, if it is there. Raises HostError."""
    if is_device(name):
        _run_ip([f"link delete dev {name}"])


# --- doing ---------------------------------------------------------------------------------------


def _grouped(steps: Sequence[Step]) -> Iterable[tuple[str, list[str]]]:
    """Runs of steps of one tool, in order."""
    group: list[str] = []
    tool = ""
    for step in steps:
        if step.tool != tool and group:
            yield tool, group
            group = []
        tool = step.tool
        group.append(step.text)
    if group:
        yield tool, group


def _run_ip(lines: list[str]) -> None:
    result = process.run(["ip", "-batch", "-"], "\n".join(lines).encode())
    if result.status:
        if b"Operation not permitted" in result.stderr:
            raise PrivilegeError("ip was not permitted to change addresses and routes; run this as root")
        raise HostError(f"ip refused: {_failed_line(lines, result.stderr)}")


def _run_nft(scripts: list[str]) -> None:
    for script in scripts:
        nft(script)


def _run_netlink(texts: list[str]) -> None:
    netlink.transact(*batch(map(parse, texts)))


def _run_conntrack(texts: list[str]) -> None:
    """A kernel that can't do it (CONFIG_NF_CT_NETLINK) is no reason to leave anything else undone."""
    for text in texts:
        try:
            conntrack.forget(ip_network(text))
        except HostError as error:
            warn(f"{error}; packets of old connections to {text} may be routed until they time out")


def _run_sysctl(texts: list[str]) -> None:
    for text in texts:
        key, _, value = text.partition("=")
        try:
            with open(f"{SYSCTL_ROOT}/{key}", "w") as file:
                file.write(value)
        except OSError as error:
            raise HostError(f"sysctl {text} was refused: {error.strerror}") from None


def _run_hosts(texts: list[str]) -> None:
    for text in texts:
        entries = [entry.split() for entry in text.split(";") if entry.strip()]
        hosts_file.publish([(ip_address(address), tuple(labels)) for address, *labels in entries])


def _run_firewall(tool: str, texts: list[str]) -> None:
    for text in texts:
        other_firewalls.run(tool, text)


_RUNNERS = {
    IP: _run_ip,
    NFT: _run_nft,
    NETLINK: _run_netlink,
    CONNTRACK: _run_conntrack,
    SYSCTL: _run_sysctl,
    HOSTS: _run_hosts,
}


def _failed_line(lines: list[str], stderr: bytes) -> str:
    """``ip -batch`` says ``Command failed -:3`` after the reason."""
    text = stderr.decode(errors="replace").strip()
    number = text.rpartition("Command failed -:")[2]
    line = lines[int(number) - 1] if number.isdigit() and 0 < int(number) <= len(lines) else ""
    return f"{text.splitlines()[0] if text else 'no reason given'} (ip {line})"


# --- reading -------------------------------------------------------------------------------------


def _route_localnet(dev: str) -> bool:
    try:
        with open(f"{SYSCTL_ROOT}/net/ipv4/conf/{dev}/route_localnet") as file:
            return file.read().strip() == "1"
    except OSError:
        return False


def _published_names() -> tuple[hosts_file.Entry, ...]:
    """None where they can't be read: who then writes what is missing says so."""
    with suppress(HostError):
        return hosts_file.published()
    return ()


def _empty_or_unknown(chains: str | None) -> str | None:
    """What is known of our tables by the list of all chains: '' when none is there."""
    heads = {f"table {family} {table} {{" for family, table in ALL_TABLES}
    return None if chains is None or heads.intersection(chains.splitlines()) else ""


def _sysfs(dev: str, attribute: str) -> str:
    try:
        with open(f"{SYSFS_NET}/{dev}/{attribute}", errors="replace") as file:
            return file.read().strip()
    except OSError:  # it went away
        return ""


def _listdir(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []
