"""What libvirt's dnsmasq reads about our reservations: one file each in its dhcp-hostsdir.

::

    /var/lib/libvirt/dnsmasq/NAME.loopnet/52-54-00-12-34-56    52:54:00:12:34:56,10.127.1.5,vm1

Seen with dnsmasq 2.90, which watches the directory through inotify:

* A new file counts at once.
* A changed address counts at once, as the newest line for a MAC address wins; but a changed name
  alone, or an address that another line had before, is refused as "duplicate dhcp-host IP address".
* A removed file stays in force.
* SIGHUP mends all three: dnsmasq forgets what it read here and reads the directory again.
* A lease outlives all that: an address leased to one NIC isn't given to another, not even after
  SIGHUP, before the lease ends; the other gets no offer at all.
* Names that begin with a dot are not read. The directory must be there when dnsmasq starts and
  must not be replaced while it runs: the watch would stay with the old one.
* As names, "ignore", "infinite" and lease times ("10", "7d") are taken for something else; with
  the domain appended they are names.

libvirt's own entries, ``<host>`` in the network's XML, come in NAME.hostsfile; we keep reservations for
them, and drop_static_hosts() takes them out there: in the guest prefix, each would be a duplicate of ours.

The host's names, which libvirt's dnsmasq takes from /etc/hosts, it gets as a copy without ours,
NAME.loopnet-hosts: to a guest, 127.1.0.5 is itself.

Nothing here is synced to disk: sync_hosts() compares contents, so a crash is mended by the next.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress

from ..errors import HostError
from ..files import state_error
from ..log import warn
from ..model import Network, Reservation
from ..networks.elements import place
from . import hosts_file

ROOT = "/var/lib/libvirt/dnsmasq"
"""Here, as libvirt's AppArmor profile and SELinux labels let dnsmasq read it."""
RUN = "/run/libvirt/network"

_SIGHUP, _SIGKILL, _SIGTERM = 1, 9, 15  # importing signal costs an enum


def hosts_directory(network_name: str, root: str = ROOT) -> str:
    """The dhcp-hostsdir of a network, as its XML says (networks/dnsmasq_options.py())."""
    return os.path.join(root, network_name + ".loopnet")


def sync_hosts(network: Network, reservations: Iterable[Reservation], root: str = ROOT) -> bool:
    """Make the directory hold exactly ``reservations``, and the copy the host's names.

    To be called before libvirt starts dnsmasq, which needs the directory. Returns True when a
    file was changed or removed, so that a running dnsmasq needs reload(); new files alone don't
    need it. Raises StateError.
    """
    directory = hosts_directory(network.name, root)
    wanted = {_file_name(each): _line(network, each) for each in reservations}
    try:
        _make_directory(directory)
        present = os.listdir(directory)
        stale = [entry for entry in present if entry not in wanted]
        for entry in stale:  # before writing: an address may move from one NIC to another
            os.unlink(os.path.join(directory, entry))
        changed = [update(f"{directory}/{entry}", line) for entry, line in wanted.items()]
        changed.append(update(f"{directory}-hosts", hosts_names(network.name, root)))
    except OSError as error:
        raise state_error(error.filename or directory, error) from None
    return any(changed) or any(entry[0] != "." for entry in stale)


def hosts_names(network_name: str, root: str = ROOT) -> bytes:
    """What the copy of the host's names should hold: what it holds, when the host's can't be read. Raises OSError."""
    try:
        return hosts_file.foreign()
    except HostError as error:
        warn(f"network {network_name}: {error}")
        return read(f"{hosts_directory(network_name, root)}-hosts") or b""


def add_host(network: Network, reservation: Reservation, root: str = ROOT) -> bool:
    """Write the file of one reservation; for the same returns and errors see sync_hosts().

    That no other file has this address is for sync_hosts() to see to, when a reservation was
    removed or changed.
    """
    directory = hosts_directory(network.name, root)
    try:
        _make_directory(directory)
        return update(f"{directory}/{_file_name(reservation)}", _line(network, reservation))
    except OSError as error:
        raise state_error(error.filename or directory, error) from None


def static_hosts_file(network_name: str, root: str = ROOT) -> str:
    """The file in which libvirt passes ``<host>`` entries on, anew whenever it likes."""
    return os.path.join(root, network_name + ".hostsfile")


def static_hosts(network: Network, root: str = ROOT) -> list[bytes]:
    """The lines in that file for addresses of ours. Raises StateError."""
    path = static_hosts_file(network.name, root)
    try:
        lines = (read(path) or b"").splitlines(keepends=True)
    except OSError as error:
        raise state_error(path, error) from None
    return [line for line in lines if _has_address_of(network, line)]


def drop_static_hosts(network: Network, root: str = ROOT) -> bool:
    """Take those lines out; for what it returns and raises see sync_hosts()."""
    path = static_hosts_file(network.name, root)
    dropped = static_hosts(network, root)
    if not dropped:
        return False
    try:
        lines = (read(path) or b"").splitlines(keepends=True)
        return update(path, b"".join(line for line in lines if line not in dropped))
    except OSError as error:
        raise state_error(error.filename or path, error) from None


def _has_address_of(network: Network, line: bytes) -> bool:
    fields = line.decode("ascii", "replace").strip().split(",")
    return any(place(field, (network.loop_prefix, network.guest_prefix)) is not None for field in fields)


def remove(network_name: str, root: str = ROOT) -> None:
    """Take the directory away; only when the network's dnsmasq has ended. Raises StateError."""
    directory = hosts_directory(network_name, root)
    try:
        with suppress(FileNotFoundError):
            os.unlink(f"{directory}-hosts")
        with suppress(FileNotFoundError):
            for entry in os.listdir(directory):
                os.unlink(os.path.join(directory, entry))
            os.rmdir(directory)
    except OSError as error:
        raise state_error(error.filename or directory, error) from None


def reload(network_name: str, run: str = RUN) -> bool:
    """Make the network's dnsmasq read its directory again; False if none is running.

    Raises HostError when the process can't be signalled.
    """
    return _signal(_pid(network_name, run), _SIGHUP)


def is_running(network_name: str, run: str = RUN) -> bool:
    """Is there a dnsmasq of the network's, whether libvirt knows of it or has given it up?

    libvirt leaves pid files behind: one of an ended dnsmasq may name another network's by now. What it was started
    with tells.
    """
    pid = _pid(network_name, run)
    arguments = _read_quietly(f"/proc/{pid}/cmdline") if pid else None
    ending = f"/{network_name}.conf".encode("utf-8", "surrogateescape")
    return any(argument.endswith(ending) for argument in (arguments or b"").split(b"\0"))


def stop(network_name: str, run: str = RUN, patience: float = 2.0) -> None:
    """End the network's dnsmasq, if one is running; by force after ``patience`` seconds.

    For a network that libvirt has given up without stopping it. Raises HostError.
    """
    pid = _pid(network_name, run) if is_running(network_name, run) else 0
    deadline = time.monotonic() + patience
    number = _SIGTERM
    while _signal(pid, number) and _is_dnsmasq(pid):
        time.sleep(0.01)
        number = 0 if time.monotonic() < deadline else _SIGKILL
    with suppress(OSError):
        os.unlink(os.path.join(run, network_name + ".pid"))


def _pid(network_name: str, run: str) -> int:
    """The process of the network's dnsmasq, 0 if there is none."""
    pid = _read_pid(os.path.join(run, network_name + ".pid"))
    # the pid file of a dead one; the pid may be anyone's by now
    return pid if pid is not None and _is_dnsmasq(pid) else 0


def _signal(pid: int, number: int) -> bool:
    """Send a signal; False if the process is gone. Raises HostError when that is not allowed."""
    if not pid:
        return False
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise HostError(
            f"dnsmasq (process {pid}) can't be signalled: {reason}; run as root: kill -{number} {pid}"
        ) from None
    return True


def _file_name(reservation: Reservation) -> str:
    return reservation.mac.replace(":", "-")


def _line(network: Network, reservation: Reservation) -> bytes:
    fields = host_fields(network, reservation)
    name = _host_name(reservation.name, network.domain)
    return ",".join([*fields, name] if name else fields).encode() + b"\n"


def host_fields(network: Network, reservation: Reservation) -> list[str]:
    """MAC address and addresses, as a dhcp-host line begins."""
    address = network.ipv6_address(reservation.number)
    ipv6 = [f"[{address}]"] if address else []
    return [reservation.mac, str(network.guest_address(reservation.number)), *ipv6]


def _host_name(label: str, domain: str) -> str:
    is_time = label.isdigit() or (label[-1:] in tuple("smhdw") and label[:-1].isdigit())
    if is_time or label in ("ignore", "infinite"):
        return f"{label}.{domain}" if domain else ""
    return label


def _make_directory(directory: str) -> None:
    if not os.path.isdir(directory):
        os.makedirs(directory)
        # whatever the umask: dnsmasq has dropped root
        os.chmod(directory, 0o755)  # noqa: S103


def update(path: str, data: bytes) -> bool:
    """Write the file if it differs; True if it was there before, with other contents. Raises OSError."""
    old = read(path)
    if old == data:
        return False
    directory, _, entry = path.rpartition("/")
    temporary = f"{directory}/.{entry}"
    try:
        with open(temporary, "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(data)
        os.rename(temporary, path)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    return old is not None


def read(path: str) -> bytes | None:
    """What the file holds, None if it is not there. Raises OSError."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except FileNotFoundError:
        return None


def _read_pid(path: str) -> int | None:
    try:
        with open(path, "rb") as file:
            pid = int(file.read(20))
    except (OSError, ValueError):
        return None
    return pid if pid > 0 else None  # 0 and -1 would signal whole groups


def _is_dnsmasq(pid: int) -> bool:
    try:
        # "dnsmasq (deleted)" after an upgrade
        return os.path.basename(os.readlink(f"/proc/{pid}/exe")).startswith("dnsmasq")
    except OSError:
        return (_read_quietly(f"/proc/{pid}/comm") or b"").strip() == b"dnsmasq"


def _read_quietly(path: str) -> bytes | None:
    with suppress(OSError):
        return read(path)
    return None
