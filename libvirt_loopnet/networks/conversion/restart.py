"""Restart a network under its running guests."""

from __future__ import annotations

from ...daemon.connection import NetworkInfo
from ...errors import HostError, LoopnetError
from ...guests.interfaces import spare_name
from ...plugging.bridge_ports import Place
from ...plugging.replug import cure, replug
from .change import Tools, bridge_name


def restart_network(tools: Tools, info: NetworkInfo) -> None:
    """Stop it, start it as it is defined now, and plug its guests in again.

    ``info`` is the network before its definition was changed: should libvirt or the hook refuse to
    start the new one, that one is put back. Killed on the way, a second run finishes the first.
    Raises HostError.
    """
    tools.originals.begin_restart(info.name)
    try:
        _stop_and_start(tools, info.name)
    except LoopnetError as error:
        raise _put_back(tools, info, error) from None
    plug_in(tools, info.name)


def plug_in(tools: Tools, name: str) -> None:
    """Plug running guests in that aren't. Raises HostError naming those that are not seen to be."""
    info = tools.connection.network(name)
    place = Place(name, bridge_name(info.live_xml), spare_name(info.uuid))
    left = replug(tools.connection, tools.plugs, place).left
    tools.settle()
    tools.originals.end_restart(name)
    if left:
        reasons = "; ".join(map(str, left))
        raise HostError(f"network {name} runs, but not with {reasons}; restart: {cure(e.nic for e in left)}")


def _stop_and_start(tools: Tools, name: str) -> None:
    if tools.connection.network(name).active:
        tools.connection.stop(name)
    tools.connection.start(name)


def _put_back(tools: Tools, info: NetworkInfo, error: LoopnetError) -> HostError:
    if not info.xml:
        return HostError(str(error))
    try:
        tools.connection.define(info.xml, validate=False)
        _stop_and_start(tools, info.name)
        plug_in(tools, info.name)
    except LoopnetError as second:
        return HostError(f"{error}; putting network {info.name} back failed too: {second}")
    return HostError(f"{error}; network {info.name} is as it was")
