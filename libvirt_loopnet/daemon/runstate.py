"""What libvirt itself records about running networks: its status files.

A hook must not call libvirt (deadlock, libvirt's docs/hooks.rst), and a record of our own could go
stale. These files are libvirt's truth across restarts of its daemon, and go with the host's run state::

    /run/libvirt/network/NAME.xml              <networkstatus>: an active network
    /run/libvirt/network/NAME/ports/UUID.xml   <networkport>: a live NIC
    /run/libvirt/network/NAME.pid              its dnsmasq

(src/conf/virnetworkobj.c: virNetworkObjSaveStatus, virNetworkObjGetPortStatusDir.) A network's file
appears after its ``started`` hook, and is gone at ``stopped``; a port's appears after ``port-created``,
and is still there at ``port-deleted``. Another event, of another network, may come in between, and must
not take away what was just set up. So the hooks leave a note of what these files don't say yet::

    /run/libvirt-loopnet/NAME.xml              the network just started
    /run/libvirt-loopnet/NAME/MAC              the port just made (its XML) or deleted
    /run/libvirt-loopnet/NAME/MAC.tap          the tap's name, which port-deleted doesn't tell

A note but the last counts for GRACE seconds and only until libvirt's own file is there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from ..errors import HostError, InputError
from ..files import file_name
from ..log import warn
from ..model import Network, Port
from ..networks.parsing import NAMESPACE, parse_hook, parse_network, parse_port

RUN = "/run/libvirt/network"
NOTES = "/run/libvirt-loopnet"
GRACE = 60.0
"""Seconds within which libvirt has surely gone on after a hook, or given up."""


def active_networks(run: str = RUN) -> list[Network]:
    """Our networks among the active ones, whether or not their bridge is still there.

    One that can't be understood is left out; the log says so.
    """
    found: dict[str, Network] = {}
    for path in _xml_files(run):
        data = _read(path)
        with _unreadable(path):
            network = parse_network(data) if NAMESPACE.encode() in data else None
            if network:
                found[network.name] = network
    for path in _xml_files(NOTES):
        data = _note(path)
        with _unreadable(path):
            network = parse_hook(data)[0] if data else None
            if network:
                found.setdefault(network.name, network)
    return list(found.values())


def is_active(network_name: str, run: str = RUN) -> bool:
    """Is the network up, as far as libvirt's files or our notes say?"""
    note = f"{NOTES}/{file_name(network_name)}.xml"
    return os.path.exists(f"{run}/{network_name}.xml") or bool(_note(note))


def live_ports(network_name: str, run: str = RUN) -> list[Port]:
    """The live NICs of a network."""
    ports = {port.mac: port for port in _saved_ports(network_name, run)}
    notes = f"{NOTES}/{file_name(network_name)}"
    for mac in [entry for entry in _listdir(notes) if not entry.endswith(".tap")]:
        data = _note(f"{notes}/{mac}")
        if data == _DELETED:
            ports.pop(mac, None)
        elif data:
            with _unreadable(f"{notes}/{mac}"):
                noted = parse_hook(data)[1]
                if noted:
                    ports.setdefault(mac, noted)
    return list(ports.values())


def _saved_ports(network_name: str, run: str) -> Iterator[Port]:
    """Those that libvirt has a file for."""
    for path in _xml_files(f"{run}/{network_name}/ports"):
        with _unreadable(path):
            yield parse_port(network_name, _read(path))


def was_live(port: Port, note: bytes, run: str = RUN) -> bool:
    """Was the port live when its note was ``note``? Reads the files of all its network's ports."""
    if note:
        return note != _DELETED
    return any(saved.mac == port.mac for saved in _saved_ports(port.network, run))


@contextmanager
def _unreadable(path: str) -> Iterator[None]:
    """A file may be half written, or gone since it was listed; it may be for a later version of ours."""
    try:
        yield
    except InputError as error:
        warn(f"{path}: {error}")


# --- notes ---------------------------------------------------------------------------------------

_DELETED = b"deleted"


def note_network(network: Network, hook_xml: bytes) -> None:
    """``network`` is up, although libvirt's files don't say so yet. Raises HostError."""
    _write_note(f"{NOTES}/{file_name(network.name)}.xml", hook_xml)


def note_port(port: Port, hook_xml: bytes) -> None:
    """``port`` is live, although libvirt's files don't say so yet. Raises HostError."""
    _write_note(f"{NOTES}/{file_name(port.network)}/{port.mac}", hook_xml)


def port_note(port: Port) -> bytes:
    """What the note about ``port`` says, b'' if there is none."""
    return _note(f"{NOTES}/{file_name(port.network)}/{port.mac}")


def note_deleted(port: Port) -> None:
    """``port`` is not live any more, although libvirt's files still say so. Raises HostError."""
    _write_note(f"{NOTES}/{file_name(port.network)}/{port.mac}", _DELETED)


def note_tap(network_name: str, mac: str, tap: str) -> None:
    """The NIC ``mac`` is attached to ``tap``. Raises HostError."""
    _write_note(f"{NOTES}/{file_name(network_name)}/{mac}.tap", tap.encode())


def noted_tap(network_name: str, mac: str) -> str:
    """The tap that the NIC was attached to, '' if none was noted."""
    data = _read(f"{NOTES}/{file_name(network_name)}/{mac}.tap")
    return data.partition(b"\n")[2].decode()


def forget_tap(network_name: str, mac: str) -> None:
    """Remove that note."""
    with suppress(OSError):
        os.unlink(f"{NOTES}/{file_name(network_name)}/{mac}.tap")


def forget(network_name: str) -> None:
    """Remove all notes about a network."""
    notes = f"{NOTES}/{file_name(network_name)}"
    with suppress(OSError):
        os.unlink(f"{notes}.xml")
    with suppress(OSError):
        for entry in os.listdir(notes):
            os.unlink(f"{notes}/{entry}")
    for directory in (notes, NOTES):  # the last one goes when no other network has notes
        with suppress(OSError):
            os.rmdir(directory)


def _write_note(path: str, data: bytes) -> None:
    # Time since boot: no clock that is set can make a note old, or young again.
    stamp = b"%.3f\n" % time.clock_gettime(time.CLOCK_BOOTTIME)
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        directory, _, name = path.rpartition("/")
        with open(f"{directory}/.{name}", "wb") as file:
            file.write(stamp + data)
        os.rename(f"{directory}/.{name}", path)
    except OSError as error:
        raise HostError(f"{path} can't be written: {error.strerror}; make room in /run") from None


def _note(path: str) -> bytes:
    """What a note says, b'' when it is too old."""
    stamp, _, data = _read(path).partition(b"\n")
    with suppress(ValueError):
        if time.clock_gettime(time.CLOCK_BOOTTIME) - float(stamp) < GRACE:
            return data
    return b""


def _xml_files(directory: str) -> Iterable[str]:
    return [f"{directory}/{entry}" for entry in sorted(_listdir(directory)) if entry.endswith(".xml")]


def _listdir(directory: str) -> list[str]:
    try:
        return [entry for entry in os.listdir(directory) if not entry.startswith(".")]
    except OSError:
        return []


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
