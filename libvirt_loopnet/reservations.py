"""The crash-safe store of reservations: one text file a network.

::

    /var/lib/libvirt-loopnet/          0755
        lock                           0600  flock: held while reservations are read and changed
        NAME.reservations              0644  NAME percent-encoded, see file_name()
        .new                           what is being written; a stale one is removed

    # libvirt-loopnet reservations, version 2
    5 52:54:00:12:34:56 4dea22b3-1d52-d8f3-2516-782e98ab3fa0 vm1 8080:80/tcp,192.0.2.7:53:53/udp
    7 52:54:00:00:00:07 - - -
    # end 2

A line is NUMBER MAC UUID NAME PUBLISHED, '-' for none. Version 1 has no PUBLISHED, and is written
where nothing is, so that those who publish nothing can go back to an older release. The last line
counts them, so that a file cut short is seen. Readers need no lock, since a file is replaced as a
whole; a file that isn't what was written is never repaired or overwritten, since guests would change
their addresses.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from .checks import shown
from .errors import InputError, LoopnetError, PrivilegeError, StateError
from .model import Publication, Reservation

DIRECTORY = "/var/lib/libvirt-loopnet"

_SUFFIX = ".reservations"
_FORMAT = "# libvirt-loopnet reservations, version "
_VERSIONS = {"1": 4, "2": 5}
"""Versions of the format, and how many fields a line has."""
_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_HEX = frozenset("0123456789abcdef")
_LABEL = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_LONGEST = 255 - len(_SUFFIX)
_POLL = 0.01
_MEND = "mend it by hand (guests keep their addresses) or move the file away (all get new ones)"


class Store:
    """Reservations in ``directory``. Not to be shared between threads: one store each."""

    def __init__(self, directory: str = DIRECTORY) -> None:
        self.directory = directory
        self._locked = False

    def load(self, network_name: str) -> tuple[Reservation, ...]:
        """The network's reservations as last saved, () if there are none yet. Needs no lock.

        Raises StateError when the file can't be read or isn't what save() wrote.
        """
        path = self._path(network_name)
        text = _read(path)
        return () if text is None else parse(text, path)

    @contextmanager
    def locked(self, timeout: float = 10.0) -> Iterator[Store]:
        """Hold the lock of the whole store: load, change and save within.

        Waits up to ``timeout`` seconds, then raises StateError naming the holder. The lock goes
        with the process, however it ends. A second locked() inside the first does nothing.
        """
        if self._locked:
            yield self
            return
        make_directory(self.directory)
        with lock_file(os.path.join(self.directory, "lock"), timeout):
            with suppress(OSError):
                os.unlink(self._temporary)
            self._locked = True
            try:
                yield self
            finally:
                self._locked = False

    def save(self, network_name: str, reservations: Sequence[Reservation]) -> None:
        """Make ``reservations`` the network's, all or none; does nothing if they are already.

        Only inside locked(). Raises StateError when the disk refuses (the old file is intact
        then), when the file there is damaged, or when ``reservations`` can't be written as such.
        """
        if not self._locked:
            raise StateError("reservations were to be saved without the lock; please report this")
        path = self._path(network_name)
        text = render(reservations)
        parse(text, path)
        if self.load(network_name) != tuple(sorted(reservations)):
            self._replace(path, text)

    def networks(self) -> list[str]:
        """Names of the networks that have a file here, sorted. Raises StateError."""
        try:
            entries = os.listdir(self.directory)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise state_error(self.directory, error) from None
        files = (entry for entry in entries if entry.endswith(_SUFFIX) and entry[0] != ".")
        return sorted(network_name(entry[: -len(_SUFFIX)]) for entry in files)

    @property
    def _temporary(self) -> str:
        # One name for all: the lock admits one writer, and a stale one can't pile up.
        return os.path.join(self.directory, ".new")

    def _path(self, network_name: str) -> str:
        return os.path.join(self.directory, file_name(network_name) + _SUFFIX)

    def _replace(self, path: str, text: str) -> None:
        try:
            _write(self._temporary, text.encode())
            os.rename(self._temporary, path)
            sync_directory(self.directory)
        except OSError as error:
            with suppress(OSError):
                os.unlink(self._temporary)
            raise state_error(path, error) from None


def file_name(network_name: str) -> str:
    """A safe file name for a network: whatever isn't [A-Za-z0-9._-] is percent-encoded.

    So is a leading dot: never '.', '..' or hidden. libvirt allows anything but '/' in a name.
    Raises InputError for an empty name, or one too long for a file name.
    """
    if not network_name:
        raise InputError("a network has an empty name; give it one with: virsh net-edit UUID")
    data = network_name.encode("utf-8", "surrogateescape")
    encoded = "".join(chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in data)
    if encoded[0] == ".":
        encoded = "%2E" + encoded[1:]
    if len(encoded) > _LONGEST:
        raise InputError(
            f"network name {shown(network_name)} is too long for a file name; give it a shorter one"
        )
    return encoded


def network_name(file_name: str) -> str:
    """The network's name that file_name() encoded."""
    first, *rest = file_name.encode("utf-8", "surrogateescape").split(b"%")
    with suppress(ValueError):
        decoded = [bytes.fromhex(part[:2].decode("ascii")) + part[2:] for part in rest]
        return b"".join([first, *decoded]).decode("utf-8", "surrogateescape")
    return file_name


def render(reservations: Iterable[Reservation]) -> str:
    """The text of a file, by host number."""
    ordered = sorted(reservations)
    version = "2" if any(each.published for each in ordered) else "1"
    lines = [" ".join(_fields(each)[: _VERSIONS[version]]) for each in ordered]
    return "\n".join([_FORMAT + version, *lines, f"# end {len(lines)}", ""])


def _fields(reservation: Reservation) -> list[str]:
    number, mac, uuid, name, published = reservation
    return [str(number), mac, uuid or "-", name or "-", ",".join(map(str, sorted(published))) or "-"]


def parse(text: str, path: str) -> tuple[Reservation, ...]:
    """Read the text of a file; ``path`` names it in errors.

    Raises StateError unless it is, line by line, what render() writes.
    """
    lines = text.split("\n")
    fields = _check_frame(lines, path)
    reservations = tuple(
        _parse_line(line, path, index, fields) for index, line in enumerate(lines[1:-2], start=2)
    )
    _check_distinct(reservations, path)
    return reservations


def _check_frame(lines: list[str], path: str) -> int:
    """How many fields its lines have."""
    version = lines[0].removeprefix(_FORMAT)
    if version not in _VERSIONS or version == lines[0]:
        if version.isdigit():
            raise StateError(
                f"{path} has format version {version[:20]}, this libvirt-loopnet knows 1 and 2 only; "
                "upgrade libvirt-loopnet"
            )
        raise StateError(f"{path}: line 1 is not {_FORMAT + '1'!r}; {_MEND}")
    if len(lines) < 3 or lines[-1] or not lines[-2].startswith("# end "):
        raise StateError(f"{path} is cut short: its last line is not '# end COUNT'; {_MEND}")
    count = len(lines) - 3
    if lines[-2] != f"# end {count}":
        raise StateError(f"{path} has {count} reservations, its last line is {lines[-2][:40]!r}; {_MEND}")
    return _VERSIONS[version]


def _parse_line(line: str, path: str, index: int, count: int) -> Reservation:
    fields = line.split(" ")
    if len(fields) == count:
        number, mac, uuid, name = fields[:4]
        published = _published(fields[4]) if count > 4 else ()
        if (
            published is not None
            and _is_number(number)
            and _is_mac(mac)
            and _is_uuid(uuid)
            and _is_label(name)
        ):
            owner = "" if uuid == "-" else uuid
            return Reservation(int(number), mac, owner, "" if name == "-" else name, published)
    words = " ".join(("NUMBER", "MAC", "UUID", "NAME", "PUBLISHED")[:count])
    raise StateError(f"{path}: line {index} is not {words}: {line[:80]!r}; {_MEND}")


def _published(text: str) -> tuple[Publication, ...] | None:
    """None unless it is what _fields() writes."""
    if text == "-":
        return ()
    from .publications import parse_publication

    try:
        found = tuple(parse_publication(word) for word in text.split(","))
    except InputError:
        return None
    return found if text == ",".join(map(str, sorted(found))) else None


def _is_number(text: str) -> bool:
    return len(text) < 9 and text.isascii() and text.isdigit() and text[0] != "0"


def _is_mac(text: str) -> bool:
    return len(text) == 17 and text[2::3] == ":::::" and _HEX.issuperset(text.replace(":", ""))


def _is_uuid(text: str) -> bool:
    if text == "-":
        return True
    bare = text.replace("-", "")
    return len(bare) == 32 and len(text) == 36 and _HEX.issuperset(bare)


def _is_label(text: str) -> bool:
    return text == "-" or (0 < len(text) < 64 and text[0] != "-" and _LABEL.issuperset(text))


def _check_distinct(reservations: Sequence[Reservation], path: str) -> None:
    numbers = [each.number for each in reservations]
    macs = [each.mac for each in reservations]
    for what, values in (("host number", numbers), ("MAC address", macs)):
        if len(set(values)) < len(values):
            ordered = sorted(map(str, values))
            twice = next(a for a, b in zip(ordered, ordered[1:]) if a == b)
            raise StateError(f"{path}: {what} {twice} stands there twice; {_MEND}")
    ports = [port for each in reservations for port in each.published]
    if len(ports) > 1:
        from .publications import clash

        twice_published = clash(ports)
        if twice_published:
            raise StateError(f"{path}: {twice_published} claims a port that stands there already; {_MEND}")


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="ascii", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise StateError(f"{path} has bytes that are not ASCII; {_MEND}") from None
    except OSError as error:
        raise state_error(path, error) from None


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        os.fchmod(file.fileno(), 0o644)  # whatever the umask: `loopnet list` needs no root
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(directory: str) -> None:
    """Make a rename in ``directory`` outlast a power cut. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(directory: str) -> None:
    """Make ``directory`` and its parents if missing, 0755 whatever the umask. Raises StateError."""
    if os.path.isdir(directory):
        return
    try:
        os.makedirs(directory, exist_ok=True)
        os.chmod(directory, 0o755)  # noqa: S103
        sync_directory(os.path.dirname(os.path.abspath(directory)))
    except OSError as error:
        raise state_error(directory, error) from None


@contextmanager
def lock_file(path: str, timeout: float) -> Iterator[None]:
    """Hold an exclusive flock on ``path``, a file for nothing else, mode 0600.

    The mode matters: whoever can open a file can lock it, and make every guest's start fail.
    Waits up to ``timeout`` seconds. Raises StateError naming the process that holds it.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise state_error(path, error) from None
    try:
        _wait_for_lock(descriptor, path, timeout)
        _sign(descriptor)
        yield
    finally:
        os.close(descriptor)


def _wait_for_lock(descriptor: int, path: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise StateError(_held(descriptor, path, timeout)) from None
        except OSError as error:
            raise state_error(path, error) from None
        time.sleep(_POLL)


def _sign(descriptor: int) -> None:
    # For the error message of others only, so a full disk is no reason to fail.
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)


def _held(descriptor: int, path: str, timeout: float) -> str:
    holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
    who, mend = "another process", "try again"
    if holder.isdigit():
        who, mend = f"process {holder}", f"see what it does with: ps -fp {holder}"
    return f"{path} has been locked by {who} for {timeout:g} seconds; {mend}"


def state_error(path: str, error: OSError) -> LoopnetError:
    """The one-line StateError for ``error`` at ``path``; PrivilegeError when root is missing."""
    reason = (os.strerror(error.errno) if error.errno else str(error)).lower()
    if error.errno in (errno.EACCES, errno.EPERM) and os.geteuid() != 0:
        return PrivilegeError(f"{path}: {reason}; run this as root")
    hints = {
        errno.ENOSPC: "free some space on that disk",
        errno.EDQUOT: "free some space on that disk",
        errno.EROFS: "make that file system writable",
    }
    hint = hints.get(error.errno or 0, "see what is there with: ls -ld " + path)
    return StateError(f"{path}: {reason}; {hint}")
