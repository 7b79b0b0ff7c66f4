"""A converted network becomes what it was, to the byte; its guests keep running."""

from __future__ import annotations

from ...daemon.connection import NetworkInfo
from ...errors import ConflictError, NotFoundError
from ...guests.interfaces import spare_name
from .change import Change, Tools, find, ours, running, strangers
from .claims import nics_on
from .originals import Original
from .restart import plug_in, restart_network


def revert_network(tools: Tools, name: str, *, restart: bool = False, dry_run: bool = False) -> Change:
    """Put network ``name`` back to what it was before convert_network.

    Autostart comes back too, and so does the active state: at once where nobody loses anything,
    else with ``restart``. Reservations stay, for the next conversion.

    Raises NotFoundError when it was not converted, ConflictError when it was defined anew since,
    HostError when libvirt refuses.
    """
    if dry_run:
        return _planned(tools, name)[0]
    with tools.originals.locked():
        return _carry_out(tools, *_planned(tools, name), restart)


def _planned(tools: Tools, name: str) -> tuple[Change, NetworkInfo, Original]:
    original = tools.originals.load(name)
    if original is None:
        raise NotFoundError(f"network {name} was not converted; there is nothing to revert")
    info = find(tools.connection, name) or NetworkInfo(name, "", b"", b"", False, True)
    if info.xml not in (b"", original.xml) and ours(info.xml) is None:
        path = tools.originals.path(name)
        raise ConflictError(
            f"network {name} was redefined after its conversion; to keep it: rm {path}; "
            f"to go back: virsh net-define {path}"
        )
    return _change(tools, info, original), info, original


def _change(tools: Tools, info: NetworkInfo, original: Original) -> Change:
    known = nics_on(tools.connection.domains(), info.name, spare_name(info.uuid))
    guests = running(tools.connection, info, known)
    return Change(
        name=info.name,
        before=info.xml,
        after=original.xml,
        network=None,
        reserved=(),
        warnings=strangers(guests, known),
        plugged=guests,
        restarted=False,
        pending=ours(info.live_xml) is not None or tools.originals.restarting(info.name),
    )


def _carry_out(tools: Tools, change: Change, info: NetworkInfo, original: Original, restart: bool) -> Change:
    connection, name = tools.connection, info.name
    if change.after != change.before:
        connection.define(change.after, validate=False)  # libvirt wrote it, libvirt takes it
    if connection.network(name).autostart != original.autostart:
        connection.set_autostart(name, original.autostart)
    if change.pending and restart:
        change = _restart(tools, info, original, change)
    elif restart and info.active:
        plug_in(tools, name)
    elif original.active and not change.pending and not info.active:
        connection.start(name)
    if not change.pending:
        tools.originals.remove(name)
    return change._replace(warnings=(*change.warnings, *_warnings(tools, original, name)))


def _restart(tools: Tools, info: NetworkInfo, original: Original, change: Change) -> Change:
    if original.active or change.plugged:
        restart_network(tools, info)
    else:  # it was not active when it was converted, and nobody is on it
        tools.connection.stop(info.name)
        tools.originals.end_restart(info.name)
    return change._replace(restarted=True, pending=False)


def _warnings(tools: Tools, original: Original, name: str) -> tuple[str, ...]:
    if tools.connection.network(name).xml == original.xml:
        return ()
    return (f"network {name}: libvirt now writes the definition differently; see: virsh net-dumpxml",)
