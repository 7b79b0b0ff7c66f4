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
    /run/libvirt-loopnet/NAME/MAC@UUID         the port just made (its XML) or deleted
    /run/libvirt-loopnet/NAME/MAC.tap          the names of its taps, which port-deleted doesn't tell
    /run/libvirt-loopnet/NAME/MAC.nic          a NIC without a port: its device, and whose it is

The last counts while that very device is a port of the bridge: <interface type='bridge'>, and what others than
libvirt put there, end with their device, and nobody tells. A note but the last two counts for GRACE seconds and
only until libvirt's own file is there. A port's stays for as long as there is that file, all the same: by its name
the ports of one MAC address are found without a look at those of all others. It is the port's UUID that tells them
apart: virsh domif-setlink and update-device have libvirt make another port for a NIC that has one, and delete
either of the two.
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
from ..records import NamedTuple

RUN = "/run/libvirt/network"
NOTES = "/run/libvirt-loopnet"
SYSFS_NET = "/sys/class/net"
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
            network = parse_hook(data).network if data else None
            if network:
                found.setdefault(network.name, network)
    return list(found.values())


def is_active(network_name: str, run: str = RUN) -> bool:
    """Is the network up, as far as libvirt's files or our notes say?"""
    note = f"{NOTES}/{file_name(network_name)}.xml"
    return is_saved(network_name, run) or bool(_note(note))


def is_saved(network_name: str, run: str = RUN) -> bool:
    """Is the network up as far as libvirt itself knows, whatever our notes say?"""
    return os.path.exists(f"{run}/{network_name}.xml")


def definition(network_name: str, run: str = RUN) -> bytes:
    """The XML of an active network as it runs, b'' if there is none."""
    note = f"{NOTES}/{file_name(network_name)}.xml"
    return _read(f"{run}/{network_name}.xml") or _note(note)


def live_ports(network_name: str, run: str = RUN) -> list[Port]:
    """The live ports of a network; several may have one MAC address."""
    notes = [_note_of(network_name, entry) for entry in _port_notes(network_name)]
    ports = {note.port.uuid: note.port for note in notes if note.port}
    ports.update((port.uuid, port) for port in _saved_ports(network_name, run))
    for note in notes:
        if note.deleted:
            ports.pop(note.uuid, None)
    return [*ports.values(), *portless(network_name)]


def portless(network_name: str) -> list[Port]:
    """The live NICs of a network that libvirt has no port for."""
    return [nic for nic, bridge, index in _portless_notes(network_name) if _is_here(nic.tap, bridge, index)]


def noted_portless(network_name: str) -> list[Port]:
    """Those, and what has been one and is noted still."""
    return [nic for nic, _, _ in _portless_notes(network_name)]


def is_port(device: str, bridge: str) -> bool:
    """Is a device of that name a port of the bridge?"""
    return os.path.exists(f"{SYSFS_NET}/{bridge}/brif/{device}")


def ports_of(network_name: str, mac: str, run: str = RUN) -> list[Port]:
    """Those of one MAC address; of what is written about all others nothing is read."""
    entries = _port_notes(network_name)
    if mac in entries:  # by an older release, which knew no ports of their own
        return [port for port in live_ports(network_name, run) if port.mac == mac]
    found = []
    for entry in entries:
        if entry.startswith(f"{mac}@"):
            note = _note_of(network_name, entry)
            port = None if note.deleted else _saved_port(network_name, note.uuid, run) or note.port
            found += [port] if port else []
    nic = _noted_nic(network_name, mac)
    return [*found, nic] if nic else found


def is_live(port: Port, run: str = RUN) -> bool:
    """Is this very port, or NIC without one, live?"""
    if port.tap:
        noted = _noted_nic(port.network, port.mac)
        return bool(noted) and noted == port
    note = _note_of(port.network, _entry(port))
    return bool(note.port) or (not note.deleted and os.path.exists(_port_file(port.network, port.uuid, run)))


def _saved_ports(network_name: str, run: str) -> Iterator[Port]:
    """Those that libvirt has a file for."""
    for path in _xml_files(f"{run}/{network_name}/ports"):
        with _unreadable(path):
            yield parse_port(network_name, _read(path))


def _saved_port(network_name: str, uuid: str, run: str) -> Port | None:
    path, port = _port_file(network_name, uuid, run), None
    with _unreadable(path):
        port = parse_port(network_name, _read(path)) if os.path.exists(path) else None
    return port


def _port_file(network_name: str, uuid: str, run: str) -> str:
    return f"{run}/{network_name}/ports/{uuid}.xml"


@contextmanager
def _unreadable(path: str) -> Iterator[None]:
    """A file may be half written, or gone since it was listed; it may be for a later version of ours."""
    try:
        yield
    except InputError as error:
        warn(f"{path}: {error}")


# --- notes ---------------------------------------------------------------------------------------

_DELETED = b"deleted"
_NIC = ".nic"


def note_network(network: Network, hook_xml: bytes) -> None:
    """``network`` is up, although libvirt's files don't say so yet. Raises HostError."""
    _write_note(f"{NOTES}/{file_name(network.name)}.xml", hook_xml)


def note_port(port: Port, hook_xml: bytes) -> None:
    """``port`` is live, although libvirt's files don't say so yet. Raises HostError."""
    _forget_spent(port)
    _write_note(f"{_notes(port.network)}/{_entry(port)}", hook_xml)


def note_portless(nic: Port, bridge: str) -> None:
    """A NIC without a port is live, as long as its device is a port of ``bridge``. Raises HostError."""
    lines = (nic.tap, bridge, _ifindex(nic.tap), nic.owner_uuid, nic.owner)
    _write_note(f"{_notes(nic.network)}/{nic.mac}{_NIC}", "\n".join(lines).encode())


def note_deleted(port: Port) -> None:
    """``port`` is not live any more, although libvirt's files still say so. Raises HostError."""
    _forget_spent(port)
    _write_note(f"{_notes(port.network)}/{_entry(port)}", _DELETED)


def forget_port(port: Port) -> None:
    """Remove the note about a port that there will not be, or a NIC without one that is gone."""
    _unlink(f"{_notes(port.network)}/{_entry(port)}")


def note_taps(network_name: str, mac: str, taps: Iterable[str]) -> None:
    """The NIC ``mac`` is attached to ``taps``, two of them while it is plugged out and in. Raises HostError."""
    path, names = f"{_notes(network_name)}/{mac}.tap", "\n".join(taps).encode()
    if names:
        _write_note(path, names)
    else:
        _unlink(path)


def noted_taps(network_name: str, mac: str) -> list[str]:
    """The taps that the NIC was attached to, as far as they were noted."""
    data = _read(f"{_notes(network_name)}/{mac}.tap")
    return data.partition(b"\n")[2].decode().split("\n") if data else []


def forget(network_name: str) -> None:
    """Remove all notes about a network."""
    notes = _notes(network_name)
    _unlink(f"{notes}.xml")
    with suppress(OSError):
        for entry in os.listdir(notes):
            os.unlink(f"{notes}/{entry}")
    for directory in (notes, NOTES):  # the last one goes when no other network has notes
        with suppress(OSError):
            os.rmdir(directory)


class _PortNote(NamedTuple):
    """What a note says of a port; neither of the two when it is too old."""

    uuid: str
    port: Port | None
    deleted: bool


def _note_of(network_name: str, entry: str) -> _PortNote:
    """The note with the file name ``entry``; of an older release's, which is a MAC address, the UUID is ''."""
    path = f"{_notes(network_name)}/{entry}"
    data, port = _note(path), None
    if data and data != _DELETED:
        with _unreadable(path):
            port = parse_hook(data).port
    return _PortNote(entry.partition("@")[2], port, data == _DELETED)


def _forget_spent(port: Port) -> None:
    """Remove notes of the NIC's former ports: those that neither count any more nor have libvirt's file."""
    for entry in _port_notes(port.network):
        if entry.startswith(f"{port.mac}@"):
            note = _note_of(port.network, entry)
            if not note.port and not os.path.exists(_port_file(port.network, note.uuid, RUN)):
                _unlink(f"{_notes(port.network)}/{entry}")


def _portless_notes(network_name: str) -> list[tuple[Port, str, str]]:
    """(NIC, its bridge, its device's number)"""
    entries = (entry for entry in _listdir(_notes(network_name)) if entry.endswith(_NIC))
    notes = (_portless_note(network_name, entry[: -len(_NIC)]) for entry in sorted(entries))
    return [note for note in notes if note]


def _portless_note(network_name: str, mac: str) -> tuple[Port, str, str] | None:
    _, *lines = _read(f"{_notes(network_name)}/{mac}{_NIC}").decode(errors="replace").split("\n", 5)
    if len(lines) != 5:
        return None
    tap, bridge, index, uuid, name = lines
    return Port(network_name, mac, name, uuid, tap=tap), bridge, index


def _noted_nic(network_name: str, mac: str) -> Port | None:
    """The live NIC without a port that has this MAC address."""
    note = _portless_note(network_name, mac)
    return note[0] if note and _is_here(note[0].tap, note[1], note[2]) else None


def _is_here(device: str, bridge: str, index: str) -> bool:
    """Is that very device a port of the bridge?"""
    return _ifindex(device) == index and is_port(device, bridge)


def _ifindex(device: str) -> str:
    """The kernel's number of a device, which no other gets once it is gone; '' for none."""
    return _read(f"{SYSFS_NET}/{device}/ifindex").decode().strip()


def _entry(port: Port) -> str:
    return f"{port.mac}{_NIC}" if port.tap else f"{port.mac}@{port.uuid}"


def _port_notes(network_name: str) -> list[str]:
    return [entry for entry in _listdir(_notes(network_name)) if not entry.endswith((".tap", _NIC))]


def _notes(network_name: str) -> str:
    return f"{NOTES}/{file_name(network_name)}"


def _unlink(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


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
