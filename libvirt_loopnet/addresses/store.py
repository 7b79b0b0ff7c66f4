"""The crash-safe store of reservations: one text file a network (reservations.py has the format).

::

    /var/lib/libvirt-loopnet/          0755
        lock                           0600  flock: held while reservations are read and changed; others wait
                                             up to files.LOCK_SECONDS
        NAME.reservations              0644  NAME percent-encoded, see file_name()
        .new                           what is being written; a stale one is removed

Readers need no lock, since a file is replaced as a whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from ..errors import StateError
from ..files import (
    LOCK_SECONDS,
    file_name,
    lock_file,
    make_directory,
    network_name,
    read_ascii,
    state_error,
    sync_directory,
    write,
)
from ..model import Reservation
from .reservations import MEND, parse, render

DIRECTORY = "/var/lib/libvirt-loopnet"

_SUFFIX = ".reservations"


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
        text = read_ascii(path, MEND)
        return () if text is None else parse(text, path)

    @contextmanager
    def locked(self, timeout: float = LOCK_SECONDS) -> Iterator[Store]:
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
            raise StateError("reservations would be saved without the lock; please report this")
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
            write(self._temporary, text.encode())
            os.rename(self._temporary, path)
            sync_directory(self.directory)
        except OSError as error:
            with suppress(OSError):
                os.unlink(self._temporary)
            raise state_error(path, error) from None
