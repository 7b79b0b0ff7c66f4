"""libvirt's daemons, by the names they have on this host: libvirtd, or one for each driver."""

from __future__ import annotations

import os
from collections.abc import Iterator

ALL = ("libvirtd", "virtnetworkd", "virtqemud", "virtlxcd")
RUN = "/run/libvirt"


def running() -> list[tuple[str, int]]:
    """(name, process) of those that run in this PID namespace."""
    return [(name, pid) for pid, name in processes() if name in ALL]


def names() -> tuple[str, ...]:
    """Those to speak of: those that run, or would as soon as somebody connects; else libvirtd."""
    found = {name for name, _ in running()}
    found = found or {name for name in ALL if os.path.exists(f"{RUN}/{_socket(name)}")}
    return tuple(name for name in ALL if name in found) or ALL[:1]


def units(option: str = "") -> str:
    """The names as arguments of systemctl, or with ``option`` before each, of journalctl."""
    return " ".join(f"{option} {name}".strip() for name in names())


def processes() -> Iterator[tuple[int, str]]:
    """(pid, name) of all processes of this PID namespace."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/comm", errors="replace") as file:
                    yield int(entry), file.read().strip()
            except OSError:  # it has ended
                continue


def _socket(daemon: str) -> str:
    return "libvirt-sock" if daemon == "libvirtd" else f"{daemon}-sock"
