"""libvirt's hooks for networks and domains (docs/hooks.rst).

Called as ``main()`` by the scripts in hooks/, with DRIVER NAME OPERATION SUBOPERATION EXTRA as
arguments and XML on standard input. What is not ours is recognised before anything is imported that
would cost time: every guest of the host waits for this.
"""

from __future__ import annotations

import posix  # what os is made of; os itself takes a millisecond to import
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

NAMESPACE = b"https://libvirt-loopnet.org/xml/network/"
STATE = "/var/lib/libvirt-loopnet"
NOTES = "/run/libvirt-loopnet"
"""Has a file for each active loopnet network (daemon/runstate.py)."""
CONFIGURATION = "/etc/libvirt-loopnet.conf"
LIMIT = 8 << 20
"""Bytes of XML; libvirt's own limit for a domain is 10 MB (VIR_NET_MESSAGE_STRING_MAX is 4 MB)."""

REFUSE, NEVER = True, False
"""What an operation may do when we fail: refuse it, or go on and log. ``reconnect`` must never fail:
libvirt would kill the running guest. After the fact (stopped, deleted) there is nothing to refuse."""

OPERATIONS: dict[tuple[str, str], tuple[str, bool]] = {
    # (driver, operation): (function in events/networks.py or events/guests.py, may it refuse?)
    ("network", "start"): ("network_start", REFUSE),
    ("network", "started"): ("network_started", REFUSE),  # after undoing everything itself
    ("network", "updated"): ("network_updated", REFUSE),  # too late to undo, but the user is told
    ("network", "stopped"): ("network_stopped", NEVER),
    ("network", "port-created"): ("port_created", REFUSE),
    ("network", "plugged"): ("port_created", REFUSE),  # until libvirt 5.5
    ("network", "port-deleted"): ("port_deleted", NEVER),
    ("network", "unplugged"): ("port_deleted", NEVER),
    ("qemu", "start"): ("guest_start", REFUSE),
    ("qemu", "reconnect"): ("guest_start", NEVER),
    ("qemu", "stopped"): ("guest_stopped", NEVER),
    ("qemu", "migrate"): ("guest_arrives", REFUSE),
    ("qemu", "restore"): ("guest_move", REFUSE),
}
"""All others (qemu prepare, started, release, attach) pass unseen; hooks/ lists these too, and lets ``stopped``
through only where there are NICs that no port tells of."""


def main(argv: list[str] | None = None) -> int:
    """Run one hook; returns its exit status: 0, or 1 where the operation is refused."""
    driver, name, operation = _arguments(sys.argv[1:] if argv is None else argv)
    handler, may_refuse = OPERATIONS.get((driver, operation), ("", NEVER))
    if not handler or posix.geteuid() != 0:  # session daemons run the system's hooks too
        return 0
    data = sys.stdin.buffer.read(LIMIT + 1) if sys.stdin else b""
    if not _is_ours(driver, operation, data):
        return 0
    return _run(handler, may_refuse, driver, name, operation, data)


def _arguments(argv: list[str]) -> tuple[str, str, str]:
    if len(argv) < 3:
        print(
            "libvirt-loopnet: hook called with too few arguments; libvirt calls it as NAME OPERATION …",
            file=sys.stderr,
        )
        sys.exit(2)
    return argv[0], argv[1], argv[2]


def _is_ours(driver: str, operation: str, data: bytes) -> bool:
    if driver == "network":
        return NAMESPACE in data
    if operation in ("migrate", "restore") and _configures_moves():
        return True
    if operation == "restore":
        return False
    networks = _stored_networks() + (_active_networks() if operation == "migrate" else [])
    return any(_mentions(data, network) for network in networks) or any(
        b"bridge='" + bridge + b"'" in data for bridge in _active_bridges()
    )


def _configures_moves() -> bool:
    """May the configuration send such guests to another network? What isn't readable is looked at closer."""
    try:
        with open(CONFIGURATION, "rb") as file:
            return any(b"move" in line and not line.lstrip().startswith(b"#") for line in file)
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _stored_networks() -> list[str]:
    return _entries(STATE, ".reservations")


def _active_networks() -> list[str]:
    return _entries(NOTES, ".xml")


def _active_bridges() -> list[bytes]:
    """By what libvirt said of the networks as they were started: <bridge name='virbr1' …/>"""
    found = []
    for network in _active_networks():
        try:
            with open(f"{NOTES}/{network}.xml", "rb") as file:
                name = file.read().partition(b"<bridge name='")[2].partition(b"'")[0]
        except OSError:  # it has just stopped
            continue
        found += [name] if name else []
    return found


def _entries(directory: str, ending: str) -> list[str]:
    try:
        return [entry[: -len(ending)] for entry in posix.listdir(directory) if entry.endswith(ending)]
    except OSError:
        return []


def _mentions(data: bytes, network: str) -> bool:
    """May the domain have a NIC on ``network``? An escaped name, being rare, counts as yes."""
    return "%" in network or b"network='" + network.encode() + b"'" in data


def _function(handler: str) -> Callable[[bytes], None]:
    function: Callable[[bytes], None]
    if handler.startswith("network_"):
        from .events import networks

        function = getattr(networks, handler)
    else:
        from .events import guests

        function = getattr(guests, handler)
    return function


def _run(handler: str, may_refuse: bool, driver: str, name: str, operation: str, data: bytes) -> int:
    import gc

    gc.disable()  # it would search all that is imported, again and again, for a process of some milliseconds
    from .errors import InputError, LoopnetError
    from .log import warn

    try:
        if len(data) > LIMIT:
            raise InputError(f"XML of more than {LIMIT >> 20} MiB; look at: virsh dumpxml {name}")
        _function(handler)(data)
        return 0
    except LoopnetError as error:
        message = str(error)
    except Exception as error:  # a fault of ours must be one line too, and must not kill a guest
        message = f"{type(error).__name__}: {error}; please report this"
    warn(f"{driver} {name} {operation}: {message}")
    if not may_refuse:
        return 0
    print(f"libvirt-loopnet: {message}", file=sys.stderr)
    return 1
