"""The definitions of converted networks, as they were before.

::

    /var/lib/libvirt-loopnet/originals/    0700
        NAME.xml       what libvirt dumped, and a last line:
                       <!-- libvirt-loopnet: autostart=yes active=no -->
        NAME.restart   the network is being restarted; empty
        lock           held by who converts or reverts

One file, so that it is there as a whole or not at all; and plain XML, so that without us
``virsh net-define`` takes it as it stands.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from ...addresses.store import DIRECTORY
from ...errors import StateError
from ...files import LOCK_SECONDS, file_name, lock_file, make_directory, state_error, sync_directory

_LINE = "<!-- libvirt-loopnet: autostart={} active={} -->\n"
_STATES = {
    _LINE.format("yes" if autostart else "no", "yes" if active else "no").encode(): (autostart, active)
    for autostart in (False, True)
    for active in (False, True)
}


class Original(NamedTuple):
    """A network before its conversion."""

    xml: bytes
    autostart: bool
    active: bool


class Originals:
    """The originals below ``directory``. Methods raise StateError or PrivilegeError."""

    def __init__(self, directory: str = f"{DIRECTORY}/originals") -> None:
        self.directory = directory

    def path(self, name: str) -> str:
        """The file of network ``name``."""
        return os.path.join(self.directory, file_name(name) + ".xml")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One conversion at a time. Not the store's lock: hooks take that while we wait for them."""
        self._make_directory()
        with lock_file(os.path.join(self.directory, "lock"), LOCK_SECONDS):
            yield

    def load(self, name: str) -> Original | None:
        """What save() kept, None if nothing."""
        path = self.path(name)
        try:
            with open(path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise state_error(path, error) from None
        for line, (autostart, active) in _STATES.items():
            if data.endswith(line):
                return Original(data[: -len(line)], autostart, active)
        raise StateError(
            f"{path} does not end as it was written; check that it is still the old definition, "
            f"then: virsh net-define {path}"
        )

    def save(self, name: str, original: Original) -> None:
        """Keep it, so that a power cut a moment later finds all of it."""
        path = self.path(name)
        state = (original.autostart, original.active)
        line = next(line for line, meant in _STATES.items() if meant == state)
        self._make_directory()
        try:
            _write(path + ".new", original.xml + line)
            os.rename(path + ".new", path)
            sync_directory(self.directory)
        except OSError as error:
            with suppress(OSError):
                os.unlink(path + ".new")
            raise state_error(path, error) from None

    def remove(self, name: str) -> None:
        """Forget it; nothing to do if there is none."""
        self._unlink(self.path(name))

    def begin_restart(self, name: str) -> None:
        """From now on the network may be found stopped by us."""
        path = self._marker(name)
        self._make_directory()
        try:
            _write(path, b"")
            sync_directory(self.directory)
        except OSError as error:
            raise state_error(path, error) from None

    def restarting(self, name: str) -> bool:
        """Whether a restart was begun and not ended: we were killed."""
        return os.path.exists(self._marker(name))

    def end_restart(self, name: str) -> None:
        """The network runs, its guests are plugged in again."""
        self._unlink(self._marker(name))

    def _marker(self, name: str) -> str:
        return self.path(name)[: -len(".xml")] + ".restart"

    def _make_directory(self) -> None:
        make_directory(os.path.dirname(self.directory))
        try:
            os.mkdir(self.directory, 0o700)
        except FileExistsError:
            pass
        except OSError as error:
            raise state_error(self.directory, error) from None

    def _unlink(self, path: str) -> None:
        try:
            with suppress(FileNotFoundError):
                os.unlink(path)
                sync_directory(self.directory)
        except OSError as error:
            raise state_error(path, error) from None


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
