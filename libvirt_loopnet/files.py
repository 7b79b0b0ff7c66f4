"""Files that outlast a power cut, locks, and how long to wait for one: what everything that we keep on disk shares."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .errors import InputError, LoopnetError, PrivilegeError, StateError
from .log import warn
from .validation import shown

_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_LONGEST = 255 - len(".reservations")
"""Bytes of a file name (NAME_MAX, limits.h) but for the longest ending of ours."""
_POLL = 0.01
NOTICE = 3.0
"""Seconds of waiting for a lock until it is said for whom: virsh shows nothing of what its hooks wait for."""
LOCK_SECONDS = 60.0
"""Seconds to wait for a lock. Whoever holds one runs programs, each of which may take half a minute (process.TIMEOUT)
where the machine is busy or slow; a guest's start is not refused for that."""


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


def read_ascii(path: str, mend: str) -> str | None:
    """The text of ``path``, None where there is no such file; ``mend`` says what to do about a damaged one.

    Raises StateError.
    """
    try:
        with open(path, encoding="ascii", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise StateError(f"{path} has bytes that are not ASCII; {mend}") from None
    except OSError as error:
        raise state_error(path, error) from None


def write(path: str, data: bytes) -> None:
    """Write ``path``, mode 0644, onto the disk itself. Raises OSError."""
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
    Waits up to ``timeout`` seconds; after NOTICE the log, and a terminal, tell which process holds it. Raises
    StateError naming it.
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
    began = time.monotonic()
    noticed = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            waited = time.monotonic() - began
            if waited >= timeout:
                raise StateError(_held(descriptor, path, timeout)) from None
            if waited >= NOTICE and not noticed:
                noticed = True
                who, how = _holder(descriptor, path)
                _tell(f"waiting for {path}, which {who} has locked; {how}")
        except OSError as error:
            raise state_error(path, error) from None
        time.sleep(_POLL)


def _sign(descriptor: int) -> None:
    # For the error message of others only, so a full disk is no reason to fail.
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)


def _tell(line: str) -> None:
    warn(line)
    if sys.stderr and sys.stderr.isatty():  # libvirt would take a hook's for an error
        print(f"loopnet: {line}", file=sys.stderr)


def _held(descriptor: int, path: str, timeout: float) -> str:
    who, how = _holder(descriptor, path)
    return f"{path} has been locked by {who} for {timeout:g} seconds; {how}"


def _holder(descriptor: int, path: str) -> tuple[str, str]:
    """(who, the command that shows more)"""
    holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
    if holder.isdigit() and os.path.exists(f"/proc/{holder}"):
        return f"process {holder}", f"see what it does with: ps -fp {holder}"
    return "another process", f"see which: fuser -v {path}"


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
