"""``loopnet cleanup``: remove everything of loopnet from the running host. It needs no saved state.

Reservations stay, so that guests get their addresses again; so do hooks and definitions. An error
does not stop the rest; all errors are reported at the end.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from contextlib import ExitStack

from ..addresses.store import Store
from ..converge import apply
from ..converge.drift import brief, settled
from ..daemon import runstate
from ..errors import HostError, LoopnetError
from ..files import network_name
from ..host import dnsmasq, hosts_file, leases, linux
from ..planning.plan import Step
from ..planning.state import HostState
from ..plugging import bridge_ports
from .shared.output import note
from .shared.privileges import require_root


def add_arguments(_parser: ArgumentParser) -> None:
    pass


def run(_arguments: Namespace) -> int:
    require_root("cleanup")
    errors: list[str] = []
    with ExitStack() as stack:
        try:
            stack.enter_context(settled(Store()))
        except LoopnetError as error:  # whoever holds the lock may be why this was called
            note(f"{error}; continuing without the lock")
        removed = [*_clean_host(errors), *_clean_dnsmasq(errors), *_clean_bridges(errors)]
    print("\n".join(removed) if removed else "nothing to do")
    for network in runstate.active_networks():
        note(f"network {network.name} is active, but does not work until you run: loopnet sync")
    if errors:
        raise HostError("; ".join(dict.fromkeys(errors)))
    return 0


def _clean_host(errors: list[str]) -> list[str]:
    host = linux.Linux()
    nothing = HostState(gone=tuple(runstate.active_networks()))
    before = _steps(host, nothing, errors)
    errors += apply.force(host, nothing)
    try:
        hosts_file.publish([])  # also where the rest could not even be observed
    except LoopnetError as error:
        errors.append(str(error))
    left = _steps(host, nothing, errors)
    errors += [f"still to do: {line}" for line in brief(left)]
    return list(brief(step for step in before if step not in left))


def _steps(host: linux.Linux, nothing: HostState, errors: list[str]) -> list[Step]:
    try:
        return apply.planned(host, nothing, thorough=True)
    except LoopnetError as error:
        errors.append(str(error))
        return []


def _clean_dnsmasq(errors: list[str]) -> list[str]:
    removed = []
    for name in _inactive(dnsmasq.ROOT, ".loopnet"):
        try:
            dnsmasq.remove(name)
            removed.append(f"dnsmasq: {dnsmasq.hosts_directory(name)}")
        except LoopnetError as error:
            errors.append(str(error))
    try:
        removed += [f"dnsmasq: {path}" for path in leases.remove_others(runstate.active_networks())]
    except LoopnetError as error:
        errors.append(str(error))
    for name in _inactive(runstate.NOTES, ".xml"):
        runstate.forget(network_name(name))
    return removed


def _clean_bridges(errors: list[str]) -> list[str]:
    removed = []
    for bridge in bridge_ports.spare_bridges():
        try:
            linux.delete_device(bridge)
            removed.append(f"ip link delete {bridge}")
        except LoopnetError as error:
            errors.append(str(error))
    return removed


def _inactive(directory: str, suffix: str) -> list[str]:
    """Networks that a file below ``directory`` is about and that don't run.

    What a running dnsmasq reads is left to it.
    """
    try:
        entries = sorted(os.listdir(directory))
    except OSError:
        return []
    names = [entry[: -len(suffix)] for entry in entries if entry.endswith(suffix)]
    return [name for name in names if not os.path.exists(f"{runstate.RUN}/{name}.xml")]
