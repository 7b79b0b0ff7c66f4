"""Names of running guests in /etc/hosts: one marked block at its end, there only while needed.

::

    (every line of others, byte for byte)
    # libvirt-loopnet: begin (do not edit; names of running guests)
    127.1.0.5 vm1.loopnet # libvirt-loopnet: guest
    # libvirt-loopnet: end

In /etc/hosts, as every program looks there whatever its resolver. Lines are ours by their text
alone, never by standing between two markers, so that a block someone has damaged loses nothing
of theirs. A file without a newline at its end has the marker ``…; no newline before)``, and loses
the newline again with the block.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address

from ..addresses.store import DIRECTORY
from ..errors import HostError, InputError, LoopnetError, PrivilegeError
from ..files import lock_file, make_directory
from ..records import NamedTuple

PATH = "/etc/hosts"
LOCK = DIRECTORY + "/hosts.lock"

_OURS = b"# libvirt-loopnet: "
_BEGIN = _OURS + b"begin (do not edit; names of running guests)"
_BEGIN_NO_NEWLINE = _OURS + b"begin (do not edit; names of running guests; no newline before)"
_END = _OURS + b"end"
_GUEST = b" " + _OURS + b"guest"
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_")
_ATTEMPTS = 20
_LOCK_SECONDS = 10.0
_IN_PLACE = (errno.EBUSY, errno.EXDEV, errno.EROFS, errno.EACCES, errno.EPERM)
"""Why a file can't be replaced while it may be writable: mounted, in a read-only directory, or
with a security label that we may not give to another."""

# No union with "|": this is evaluated, by Python 3.9 too.
Entry = tuple["IPv4Address | IPv6Address", tuple[str, ...]]
"""A guest's address and the names that lead to it."""
Entries = Sequence[Entry]


def render_hosts(old: bytes, entries: Entries) -> bytes:
    """``old`` with our block holding ``entries``, (address, names); without one if there are none.

    Raises InputError for a name that isn't one.
    """
    foreign = _foreign(old)
    ordered = sorted(entries, key=lambda entry: (entry[0].version, int(entry[0]), entry[1]))
    lines = [_entry(address, names) for address, names in ordered if names]
    if not lines:
        return foreign
    complete = not foreign or foreign.endswith(b"\n")
    begin = _BEGIN if complete else b"\n" + _BEGIN_NO_NEWLINE
    return foreign + b"\n".join([begin, *lines, _END, b""])


def publish(entries: Entries, path: str = PATH, lock: str = LOCK) -> bool:
    """Make our block in ``path`` hold ``entries``; True if that changed the file.

    To be called with what is desired now, so under the lock under which that was found out.
    The file is replaced by a rename that keeps mode, owner and extended attributes, or, where
    it can't be (a bind mount in a container, a read-only /etc), changed in place from the first
    byte that differs. A change by another program meanwhile is never overwritten. Raises
    HostError; StateError when another process holds ``lock``; PrivilegeError.
    """
    path = os.path.realpath(path)
    try:
        if _change(path, entries) is None:
            return False
        make_directory(os.path.dirname(lock))
        with lock_file(lock, _LOCK_SECONDS):
            return _publish(path, entries)
    except OSError as error:
        raise _error(path, error, "written") from None


def published(path: str = PATH) -> tuple[Entry, ...]:
    """The (address, names) that our lines in ``path`` hold now. Raises HostError."""
    try:
        old = _read(path)
    except OSError as error:
        raise _error(path, error, "read") from None
    lines = (line.rstrip(b"\r") for line in _tail(old).split(b"\n"))
    ours = (line.removesuffix(_GUEST) for line in lines if line.endswith(_GUEST))
    return tuple(entry for entry in map(_parse_entry, ours) if entry)


def foreign(path: str = PATH) -> bytes:
    """``path`` without our lines; b'' if there is none. Raises HostError."""
    try:
        return _foreign(_read(path))
    except OSError as error:
        raise _error(path, error, "read") from None


def _error(path: str, error: OSError, done: str) -> LoopnetError:
    reason = (error.strerror or str(error)).lower()
    what = f"{path}, for guests' names, can't be {done}: {reason}"
    if error.errno in (errno.EACCES, errno.EPERM) and os.geteuid() != 0:
        return PrivilegeError(f"{what}; run this as root")
    return HostError(f'{what}; fix that, or set names = "off" in /etc/libvirt-loopnet.conf')


class _Change(NamedTuple):
    """What to write, and what it was made from."""

    status: os.stat_result | None
    old: bytes
    new: bytes


class _Changed(Exception):
    """Another program has changed the file."""


def _publish(path: str, entries: Entries) -> bool:
    for _ in range(_ATTEMPTS):
        change = _change(path, entries)
        if change is None:
            return False
        with suppress(_Changed):
            _write(path, change)
            return True
    raise HostError(f"{path} keeps being changed by another program; find it: fuser -v {path}")


def _change(path: str, entries: Entries) -> _Change | None:
    """What is to be done, None if nothing."""
    status = _status(path)
    old = _read(path) if status else b""
    new = render_hosts(old, entries)
    return None if new == old else _Change(status, old, new)


def _read(path: str) -> bytes:
    with suppress(FileNotFoundError), open(path, "rb", buffering=0) as file:
        return file.read()
    return b""


def _write(path: str, change: _Change) -> None:
    temporary = os.path.join(os.path.dirname(path), ".hosts.libvirt-loopnet")
    with suppress(OSError):
        os.unlink(temporary)  # left behind by one that was killed; the lock is ours
    try:
        _write_temporary(temporary, path, change)
        _check_unchanged(path, change)
        os.rename(temporary, path)
    except OSError as error:
        with suppress(OSError):
            os.unlink(temporary)
        if change.status is None or error.errno not in _IN_PLACE:
            raise
        _write_in_place(path, change)
    except _Changed:
        os.unlink(temporary)
        raise


def _write_temporary(temporary: str, path: str, change: _Change) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(temporary, flags, 0o600), "wb") as file:
        descriptor = file.fileno()
        if change.status:
            os.fchown(descriptor, change.status.st_uid, change.status.st_gid)
            os.fchmod(descriptor, change.status.st_mode & 0o7777)  # after chown, which clears bits
            _copy_attributes(path, descriptor)
        else:
            os.fchmod(descriptor, 0o644)
        file.write(change.new)
        file.flush()
        # The directory isn't synced: after a crash the old file is as good, no guest runs.
        os.fsync(descriptor)


def _copy_attributes(path: str, descriptor: int) -> None:
    """Extended attributes: SELinux's label, access lists."""
    for name in _attributes(path):
        try:
            os.setxattr(descriptor, name, os.getxattr(path, name))
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.ENODATA):
                raise


def _attributes(path: str) -> list[str]:
    try:
        return os.listxattr(path)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return []


def _write_in_place(path: str, change: _Change) -> None:
    start = _common_length(change.old, change.new)
    with open(path, "r+b", buffering=0) as file:
        _check_unchanged(path, change)
        try:
            _overwrite(file.fileno(), change.new, start)
        except OSError:  # disk full
            with suppress(OSError):
                _overwrite(file.fileno(), change.old, start)
            raise


def _common_length(a: bytes, b: bytes) -> int:
    """How many bytes at the beginning of both are the same; by halves, the files may be huge."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _overwrite(descriptor: int, data: bytes, start: int) -> None:
    while start < len(data):
        start += os.pwrite(descriptor, data[start:], start)
    os.ftruncate(descriptor, len(data))
    os.fsync(descriptor)


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _check_unchanged(path: str, change: _Change) -> None:
    if _identity(_status(path)) != _identity(change.status):
        raise _Changed


def _identity(status: os.stat_result | None) -> tuple[int, ...] | None:
    # ctime too: it tells of a changed mode or owner, which we are about to put back
    if status is None:
        return None
    return (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)


def _foreign(old: bytes) -> bytes:
    """``old`` without our lines, and without the newline that had to be put before them."""
    tail = _tail(old)
    if not tail:
        return old
    kept, newline = _sift(tail)
    foreign = old[: len(old) - len(tail)] + b"".join(kept)
    return foreign.removesuffix(newline)


def _tail(old: bytes) -> bytes:
    """From our first line on: the file may be huge, and our block is at its end."""
    first = old.find(_OURS)
    return old[old.rfind(b"\n", 0, first) + 1 :] if first >= 0 else b""


def _sift(data: bytes) -> tuple[list[bytes], bytes]:
    """The lines of others, and the newline to be taken off their end (b'' if none)."""
    kept: list[bytes] = []
    added, before = b"", 0
    for line in _lines(data):
        text = line.removesuffix(b"\n").removesuffix(b"\r")  # an editor may have made it CRLF
        if text == _BEGIN_NO_NEWLINE:
            added, before = line[len(text) :] or b"\n", len(kept)
        elif text not in (_BEGIN, _END) and not text.endswith(_GUEST):
            kept.append(line)
    # lines that came after the block stand on it: the newline is theirs now
    return kept, added if before == len(kept) else b""


def _lines(data: bytes) -> list[bytes]:
    # not splitlines(): to that a lone CR ends a line too
    *complete, rest = data.split(b"\n")
    return [line + b"\n" for line in complete] + ([rest] if rest else [])


def _entry(address: IPv4Address | IPv6Address, names: tuple[str, ...]) -> bytes:
    for name in names:
        if not name or not _NAME.issuperset(name):
            raise InputError(f"{name!r} is not a host name; use letters, digits, '-' and '.'")
    return " ".join([str(address), *names]).encode() + _GUEST


def _parse_entry(line: bytes) -> Entry | None:
    try:
        address, *names = line.decode("ascii").split()
        return ip_address(address), tuple(names)
    except ValueError:  # someone has changed it; publish() puts it right
        return None
