"""libvirt's daemons, by the names they have on this host: libvirtd, or one for each driver.

The latter are started by whoever connects to their sockets and may end when there is nothing to do
(``--timeout``), so those of today are told by their sockets as well. virtproxyd, for old clients, has
libvirtd's, and runs no hook.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

MONOLITHIC = "libvirtd"
MODULAR = ("virtnetworkd", "virtqemud", "virtlxcd")
HOOKED = (MONOLITHIC, "virtnetworkd", "virtqemud")
"""Those that run our hooks: a container's NIC is virtnetworkd's affair alone."""
RUN = "/run/libvirt"
PROGRAMS = "/usr/sbin"


def running() -> list[tuple[str, int]]:
    """(name, process) of the system's that run: not users' own for their sessions, nor those in containers."""
    known = (MONOLITHIC, *MODULAR)
    return [(name, pid) for pid, name in processes() if name in known and _is_ours(f"/proc/{pid}")]


def _is_ours(process: str) -> bool:
    try:
        return os.stat(process).st_uid == 0 and _namespace(process) in ("", _namespace("/proc/self"))
    except OSError:  # it has ended
        return False


def _namespace(process: str) -> str:
    """Its PID namespace; '' for who may not know."""
    with suppress(PermissionError):
        return os.readlink(f"{process}/ns/pid")
    return ""


def hooked() -> list[tuple[str, int]]:
    """Those of them that run our hooks."""
    return [(name, pid) for name, pid in running() if name in HOOKED]


def names(run: str = RUN, programs: str = PROGRAMS) -> tuple[str, ...]:
    """Those to speak of: libvirtd where it runs, else those that run, or would as soon as somebody connects; where
    there are none, those that are installed, libvirtd first."""
    found = {name for name, _ in running()}
    if MONOLITHIC not in found:
        found |= {name for name in MODULAR if os.path.exists(f"{run}/{name}-sock")}
    if not found and not os.path.exists(f"{programs}/{MONOLITHIC}"):
        found = {name for name in MODULAR if os.path.exists(f"{programs}/{name}")}
    return _ordered(found) or (MONOLITHIC,)


def units(option: str = "") -> str:
    """The names as arguments of systemctl, or with ``option`` before each, of journalctl."""
    return " ".join(f"{option} {name}".strip() for name in names())


def reload_command() -> str:
    """What makes them look for hooks, which they do when they start, and on SIGHUP; '' while none runs."""
    found = _ordered({name for name, _ in hooked()})
    return f"systemctl reload {' '.join(found)}" if found else ""


def processes() -> Iterator[tuple[int, str]]:
    """(pid, name) of all processes that are seen from here."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/comm", errors="replace") as file:
                    yield int(entry), file.read().strip()
            except OSError:  # it has ended
                continue


def _ordered(found: set[str]) -> tuple[str, ...]:
    return tuple(name for name in (MONOLITHIC, *MODULAR) if name in found)
