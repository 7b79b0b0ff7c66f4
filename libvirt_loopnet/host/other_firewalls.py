"""Other firewalls on this machine: iptables-nft, iptables-legacy, firewalld.

Looking comes before every start of a network: where there is none, that is one run of ``nft`` and a
file in /proc. firewalld is asked by ``busctl``, since ``firewall-cmd`` takes a third of a second.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

from .. import process
from ..errors import HostError, PrivilegeError
from ..firewalls.openings import (
    BUILTINS,
    FIREWALLD,
    IP6TABLES,
    IPTABLES,
    NFT_TABLE,
    ZONES,
    Firewalld,
    Firewalls,
    Order,
    orders,
)  # fmt: skip
from ..model import Network
from ..ruleset.tables import ALL_TABLES
from .kernel.nftables import nft

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ..firewalls.opened_tables import Table

LEGACY_TABLES, LEGACY_TABLES6 = "/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"
"""Tables of iptables-legacy that are in use in this network namespace; no such file without it."""
SYSFS_NET = "/sys/class/net"
ROUTES = "/proc/net/route"
BRIDGED, BRIDGED6 = (f"/proc/sys/net/bridge/bridge-nf-call-{name}" for name in ("iptables", "ip6tables"))
"""Docker and Kubernetes have it on; absent without the module br_netfilter."""
PERMANENT_ZONES = "/etc/firewalld/zones"
"""Where firewalld keeps what was changed by ``--permanent`` (firewalld.zone(5))."""

_NAME, _PATH = "org.fedoraproject.FirewallD1", "/org/fedoraproject/FirewallD1"
_OF_FIREWALLD = (":INPUT_ZONES ", ":INPUT_POLICIES ", ":INPUT_dispatch ")
"""Its chains in iptables, by versions 1.3, 2.3 and 2.5."""
_DBUS_TIMEOUT = "10"
_METHODS = {"--change-interface": "changeZoneOfInterface", "--remove-interface": "removeInterface"}


def observe(chains: str | None = None, trusted: Collection[str] = ()) -> Firewalls:
    """What other firewalls there are, and what they hold. What can't be read is told, not raised:
    a network must come down whatever another firewall does.

    ``chains`` is what nft_chains() said, if it was asked already; ``trusted`` are tables that may be opened.
    """
    chains = nft_chains() or "" if chains is None else chains
    problems: list[str] = []
    saved: list[tuple[str, str]] = []
    for tool, used in zip(IPTABLES, (_has_builtin(chains, "ip"), _has_legacy(LEGACY_TABLES))):
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
    used6 = zip(IP6TABLES, (_has_builtin(chains, "ip6"), _has_legacy(LEGACY_TABLES6)))
    ip6tools = tuple(tool for tool, used in used6 if used)
    tables = _tables(chains, trusted, [*(tool for tool, _ in saved), *ip6tools], problems)
    return Firewalls(
        tuple(saved),
        _bridges() if saved else frozenset(),
        firewalld,
        tuple(problems),
        tables,
        uplink_device() if tables else "",
        bool(tables) and is_bridged(),
        ip6tools,
        bridged6=bool(tables) and is_bridged(BRIDGED6),
    )


def run(tool: str, text: str) -> None:
    """Carry out one order. Raises HostError."""
    if tool == FIREWALLD:
        _change_zone(text)
    elif tool == NFT_TABLE:
        _open(text)
    else:
        _restore(tool, text)


def apply(
    networks: Sequence[Network], devices: Collection[str] = (), trusted: Collection[str] = ()
) -> list[Order]:
    """Tell other firewalls what ``networks`` need, and what they need no more; returns what was done.

    ``devices`` are bridges that were ours, ``trusted`` tables of nft that may be opened. Doing it twice does
    nothing. Raises HostError.
    """
    done = orders(observe(trusted=trusted), networks, devices, trusted=trusted)
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


def _has_builtin(chains: str, family: str) -> bool:
    """Did iptables-nft make a base chain in its table? It makes each when it needs it."""
    _, _, table = chains.partition(f"table {family} filter {{\n")
    table = table.partition("\n}")[0]
    return any(f"\tchain {builtin} {{\n\t\ttype filter hook" in table for builtin in BUILTINS)


def _has_legacy(path: str) -> bool:
    try:
        with open(path) as file:
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
        table = "ip6 filter" if tool in IP6TABLES else "ip filter"
        raise HostError(f"{tool}-save can't read table {table}; see: nft list table {table}")
    return text


def _restore(tool: str, script: str) -> None:
    # iptables-legacy waits for its lock, 5 seconds at most; the other needs none.
    wait = ["--wait", "5"] if tool.endswith("-legacy") else []
    result = process.run([f"{tool}-restore", "--noflush", *wait], script.encode())
    if result.status:
        if b"Permission denied" in result.stderr:
            raise PrivilegeError(f"{tool} was not permitted to change rules; run this as root")
        raise HostError(f"{tool}-restore refused our rules: {_line(result.stderr)}; try: loopnet sync")


# --- tables of nft -------------------------------------------------------------------------------


def _open(script: str) -> None:
    try:
        nft(script)
    except HostError as error:
        if _GONE not in str(error):  # the table was made anew meanwhile; then nothing of ours is in it
            raise


_GONE = "No such file or directory"


def _tables(
    chains: str, trusted: Collection[str], tools: Collection[str], problems: list[str]
) -> tuple[Table, ...]:
    """Those that have or may get something of ours; if there are any, or iptables is in use, also those that filter
    what the host sends: guests' traffic gets out no further."""
    opened: list[str] = []
    filters: list[str] = []
    told = {"ip filter": IPTABLES[0], "ip6 filter": IP6TABLES[0]}  # by these themselves
    for table, lines in _by_table(chains):
        if tuple(table.split(" ", 1)) in ALL_TABLES or told.get(table) in tools:
            continue
        if table in trusted or any(line.startswith("\tchain loopnet-") for line in lines):
            opened.append(table)
        elif any(line.startswith(_SENT) for line in lines):
            filters.append(table)
    found = [*opened, *filters] if opened or tools else []
    return tuple(table for each in found for table in _table(each, problems))


_SENT = tuple(
    f"\t\ttype {kind} hook {hook} " for kind in ("filter", "route") for hook in ("output", "postrouting")
)


def _by_table(chains: str) -> Iterable[tuple[str, list[str]]]:
    """(family and name, its lines) of the tables for IP in what nft_chains() says."""
    for part in chains.split("\n}\n"):
        head, *lines = part.strip("\n").split("\n")
        words = head.split()
        if words[:1] == ["table"] and words[1] in ("ip", "ip6", "inet") and words[3:] == ["{"]:
            yield f"{words[1]} {words[2]}", lines


def _table(table: str, problems: list[str]) -> Iterable[Table]:
    import json  # 7 ms that hosts without such tables don't pay

    from ..firewalls.opened_tables import Table

    family, name = table.split(" ", 1)
    try:
        result = process.run(["nft", "-j", "list", "table", family, name])
        if result.status:
            if b"No such file" not in result.stderr:  # else it is gone meanwhile
                problems.append(f"nft list table {table} failed: {result.complaint}")
            return
        ruleset = json.loads(result.stdout)["nftables"]
        # nft 1.0.6 says in JSON that there are flags, but not which.
        flagged = any("flags" in entry["table"] for entry in ruleset if "table" in entry)
        yield Table(family, name, tuple(ruleset), flagged and is_owned(table))
    except (HostError, ValueError, LookupError) as error:
        problems.append(f"table {table} can't be read: {error}")


def is_owned(table: str) -> bool:
    """Does the table belong to a running program? The kernel lets nobody else change it then."""
    text = process.run(["nft", "--terse", "list", "table", *table.split(" ", 1)]).stdout.decode(
        errors="replace"
    )
    flags = [line for line in text.split("\n") if line.startswith("\tflags ")]
    return bool(flags) and "owner" in flags[0]


def uplink_device() -> str:
    """The device of the first default route; '' without one. By /proc: kernel/links.py, which knows more of it, takes
    pyroute2."""
    try:
        with open(ROUTES) as file:
            lines = [line.split() for line in file]
    except OSError:
        return ""
    # Iface, Destination, …, Mask (fib_route_seq_show in the kernel's net/ipv4/fib_trie.c)
    return next((line[0] for line in lines[1:] if line[1] == line[7] == "00000000"), "")


def is_bridged(path: str = BRIDGED) -> bool:
    """Does br_netfilter show rules for IP what goes through bridges?"""
    try:
        with open(path) as file:
            return file.read().strip() != "0"
    except OSError:
        return False


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
                f"firewalld does not know zone {zone}, which comes with libvirt; reload it: "
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
