"""Facts about this host, for doctor.py. Reads only."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from .. import process
from ..daemon.running import hooked, processes
from ..errors import HostError
from ..model import MAPPED, Network
from ..prefixes import parse_prefix
from ..reports.findings import Daemon, Listener
from ..ruleset.tables import make_tables
from . import confinement, linux, sockets

LO_MANAGERS = ("NetworkManager", "nmstatectl")
NETWORKD_LINKS = "/run/systemd/netif/links"
"""What systemd-networkd says of each link, by its index (sd-network.c reads the same)."""
SELINUX = "/sys/fs/selinux"


DATA_PLANE = ("nft", "ip")
"""Programs without which nothing can be looked at or changed."""
BY_LIBVIRT = ("dnsmasq",)
"""Programs that libvirt runs for a network."""


def missing(programs: Iterable[str]) -> tuple[str, ...]:
    """Those that aren't there."""
    return tuple(program for program in programs if not _is_there(program))


def _is_there(program: str) -> bool:
    with suppress(HostError):
        return bool(process.find(program))
    return False


def nft_refusal() -> str:
    """Why rules like ours can't be loaded here, '' if they can; tried in a namespace of its own."""
    prefix = parse_prefix("127.1.0.0/24", "prefix")
    guest = parse_prefix("10.127.1.0/24", "prefix")
    sample = Network("x", "", "x", "52:54:00:00:00:01", MAPPED, prefix, guest, 1, 254, "x")
    try:
        linux.Linux().canonical([sample], make_tables([sample], [], []))
    except HostError as error:
        return str(error)
    return ""


def daemons(hooks: Iterable[str]) -> tuple[Daemon, ...]:
    """libvirt's running daemons that run hooks; those at these paths are known to who was started later only."""
    changed = max((status.st_ctime for path in hooks for status in _stat(path)), default=0.0)
    return tuple(
        Daemon(name, pid, any(s.st_ctime < changed for s in _stat(f"/proc/{pid}"))) for name, pid in hooked()
    )


def lo_managers() -> tuple[str, ...]:
    """Running programs that may bring lo's /8 back."""
    present = {name for _, name in processes()}
    found = [name for name in LO_MANAGERS if name[:15] in present]
    return (*found, "systemd-networkd") if networkd_file("lo") else tuple(found)


def networkd_file(dev: str) -> str:
    """The .network file by which systemd-networkd configures ``dev``; '' if it leaves it alone."""
    index = _text(f"{linux.SYSFS_NET}/{dev}/ifindex")
    lines = _text(f"{NETWORKD_LINKS}/{index}").splitlines() if index else []
    known = dict(line.split("=", 1) for line in lines if "=" in line)
    managed = known.get("ADMIN_STATE") in ("configuring", "configured", "failed")
    return known.get("NETWORK_FILE", "") if managed else ""


def ip_forward() -> bool:
    return _text("/proc/sys/net/ipv4/ip_forward") == "1"


def selinux_hooks(hooks: Iterable[str]) -> bool:
    """Does SELinux let ``hooks`` run programs? True where it isn't enforced.

    By our module's labels, or by the boolean, which lets virtnetworkd and an unmodular libvirtd, not virtqemud.
    """
    if not confinement.selinux_enforces():
        return True
    # "1 1": the value now and the one pending
    boolean = _text(f"{SELINUX}/booleans/virt_hooks_unconfined").startswith("1")
    return boolean or all(confinement.selinux_type(hook) == confinement.HOOK_TYPE for hook in hooks)


def listeners() -> tuple[Listener, ...]:
    """TCP and UDP sockets that wait."""
    return tuple({Listener(*each[:3]): None for each in sockets.waiting()})


def _stat(path: str) -> list[os.stat_result]:
    with suppress(OSError):
        return [os.stat(path)]
    return []


def _text(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
