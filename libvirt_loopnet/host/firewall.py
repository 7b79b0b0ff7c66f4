"""Other firewalls on this machine: iptables-nft, iptables-legacy, firewalld.

Looking comes before every start of a network: where there is none, that is one run of ``nft`` and a
file in /proc. firewalld is asked by ``busctl``, since ``firewall-cmd`` takes a third of a second.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

from .. import process
from ..errors import HostError, PrivilegeError
from ..firewalls.openings import BUILTINS, FIREWALLD, IPTABLES, ZONES, Firewalld, Firewalls, Order, orders
from ..model import Network

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LEGACY_TABLES = "/proc/net/ip_tables_names"
"""Tables of iptables-legacy that are in use in this network namespace; no such file without it."""
SYSFS_NET = "/sys/class/net"
PERMANENT_ZONES = "/etc/firewalld/zones"
"""Where firewalld keeps what was changed by ``--permanent`` (firewalld.zone(5))."""

_NAME, _PATH = "org.fedoraproject.FirewallD1", "/org/fedoraproject/FirewallD1"
_OF_FIREWALLD = (":INPUT_ZONES ", ":INPUT_POLICIES ")
"""Its chains in iptables, by version 1.3 and by 2.3."""
_DBUS_TIMEOUT = "10"
_METHODS = {"--change-interface": "changeZoneOfInterface", "--remove-interface": "removeInterface"}


def observe(chains: str | None = None) -> Firewalls:
    """What other firewalls there are, and what they hold. What can't be read is told, not raised:
    a network must come down whatever another firewall does.

    ``chains`` is what nft_chains() said, if it was asked already.
    """
    chains = nft_chains() or "" if chains is None else chains
    problems: list[str] = []
    saved: list[tuple[str, str]] = []
    for tool, used in zip(IPTABLES, (_has_builtin(chains), _has_legacy())):
        try:
            saved += [(tool, _save(tool))] if used else []
        except HostError as error:
            problems.append(str(error))
    firewalld = None
    if "table inet firewalld {" in chains or any(mark in text for _, text in saved for mark in _OF_FIREWALLD):
        try:
            firewalld = _firewalld()
        except HostError as error:
            problems.append(str(error))
    return Firewalls(tuple(saved), _bridges() if saved else frozenset(), firewalld, tuple(problems))


def run(tool: str, text: str) -> None:
    """Carry out one order. Raises HostError."""
    if tool == FIREWALLD:
        _change_zone(text)
    else:
        _restore(tool, text)


def apply(networks: Sequence[Network], devices: Collection[str] = ()) -> list[Order]:
    """Tell other firewalls what ``networks`` need, and what they need no more; returns what was done.

    ``devices`` are bridges that were ours. Doing it twice does nothing. Raises HostError.
    """
    done = orders(observe(), networks, devices)
    for order in done:
        run(*order)
    return done


def remove(devices: Collection[str] = ()) -> list[Order]:
    """Take all that is ours out of other firewalls; ``devices`` are our bridges. Raises HostError."""
    return apply((), devices)


# --- iptables ------------------------------------------------------------------------------------


def nft_chains() -> str | None:
    """All of nft's chains, without rules; None where it can't be asked, which others will complain of."""
    try:
        result = process.run(["nft", "list", "chains"])
    except HostError:
        return None
    return None if result.status else result.stdout.decode(errors="replace")


def _has_builtin(chains: str) -> bool:
    """Did iptables-nft make a base chain in its table? It makes each when it needs it."""
    _, _, table = chains.partition("table ip filter {\n")
    table = table.partition("\n}")[0]
    return any(f"\tchain {builtin} {{\n\t\ttype filter hook" in table for builtin in BUILTINS)


def _has_legacy() -> bool:
    try:
        with open(LEGACY_TABLES) as file:
            return "filter\n" in file.readlines()
    except OSError:
        return False


def _bridges() -> frozenset[str]:
    devices = os.listdir(SYSFS_NET)
    return frozenset(device for device in devices if os.path.isdir(f"{SYSFS_NET}/{device}/bridge"))


def save(tool: str) -> str:
    """What ``tool``-save says of table filter. Raises HostError."""
    return _save(tool)


def bridges() -> frozenset[str]:
    """All bridge devices."""
    return _bridges()


def _save(tool: str) -> str:
    result = process.run([f"{tool}-save", "-t", "filter"])
    text = result.stdout.decode(errors="replace")
    if result.status:
        raise HostError(f"{tool}-save failed: {_line(result.stderr)}")
    if "\n*filter\n" not in f"\n{text}":  # rules that nft put there, and iptables can't read
        raise HostError(f"{tool}-save can't read table ip filter; see: nft list table ip filter")
    return text


def _restore(tool: str, script: str) -> None:
    # iptables-legacy waits for its lock, 5 seconds at most; the other needs none.
    wait = ["--wait", "5"] if tool.endswith("-legacy") else []
    result = process.run([f"{tool}-restore", "--noflush", *wait], script.encode())
    if result.status:
        if b"Permission denied" in result.stderr:
            raise PrivilegeError(f"{tool} was not permitted to change rules; run this as root")
        raise HostError(f"{tool}-restore refused our rules: {_line(result.stderr)}; try: loopnet sync")


# --- firewalld -----------------------------------------------------------------------------------


def _firewalld() -> Firewalld:
    """firewalld's zones. Raises HostError when it doesn't answer, though its rules are there."""
    active = _ask("getActiveZones")
    known = _ask("getZones")
    zone = next((zone for zone in ZONES if zone in known), ZONES[0])
    bound = {(device, name) for name, it in active.items() for device in it.get("interfaces", ())}
    return Firewalld(zone, frozenset(bound), _permanent(zone, [device for device, _ in bound]))


def _permanent(zone: str, devices: Sequence[str]) -> frozenset[str]:
    try:
        with open(f"{PERMANENT_ZONES}/{zone}.xml", errors="replace") as file:
            text = file.read().replace("'", '"')
    except OSError:
        return frozenset()
    return frozenset(device for device in devices if f'<interface name="{device}"' in text)


def _change_zone(text: str) -> None:
    (_, zone), (option, device) = (word.split("=", 1) for word in text.split(" ", 1))
    try:
        _ask(_METHODS[option], zone, device)
    except HostError as error:
        if "INVALID_ZONE" in str(error):
            raise HostError(
                f"firewalld knows no zone {zone}, which comes with libvirt; make it look again: "
                "firewall-cmd --reload"
            ) from None
        if "UNKNOWN_INTERFACE" not in str(error):  # it was taken out meanwhile
            raise


def _ask(method: str, *arguments: str) -> Any:
    """Call a method of firewalld's zone interface (firewalld.dbus(5)); never starts firewalld."""
    import json  # 7 ms that hosts without firewalld don't pay

    options = ["--system", "--json=short", "--auto-start=no", f"--timeout={_DBUS_TIMEOUT}"]
    signature = ["s" * len(arguments), *arguments] if arguments else []
    call = ["call", _NAME, _PATH, f"{_NAME}.zone", method, *signature]
    result = process.run(["busctl", *options, *call])
    if result.status:
        raise HostError(f"firewalld refused {method}: {_line(result.stderr)}")
    try:
        return json.loads(result.stdout)["data"][0]
    except (ValueError, LookupError):
        raise HostError(f"firewalld's answer to {method} makes no sense; see: firewall-cmd --state") from None


def _line(text: bytes) -> str:
    return (text.decode(errors="replace").strip().splitlines() or ["no reason given"])[0]
