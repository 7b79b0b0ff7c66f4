"""Writes the archive format the kernel unpacks as its first root file system (cpio "newc")."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO, Set


class CpioWriter:
    """A cpio archive, written to a binary file; complete when the context manager is left.

    Paths are relative to the root, without a leading slash; parent directories are made.
    Everything belongs to root.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inode = 0
        self._directories: Set[str] = {""}

    def __enter__(self) -> CpioWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._entry("TRAILER!!!", 0, b"")

    def directory(self, path: str) -> None:
        """Adds a directory, mode 0755, once."""
        if path not in self._directories:
            self._parent(path)
            self._directories.add(path)
            self._entry(path, stat.S_IFDIR | 0o755, b"")

    def file(self, path: str, content: bytes, mode: int) -> None:
        """Adds a regular file with permission bits `mode`."""
        self._parent(path)
        self._entry(path, stat.S_IFREG | mode, content)

    def symlink(self, path: str, target: str) -> None:
        """Adds a symbolic link to `target`."""
        self._parent(path)
        self._entry(path, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, path: str, major: int, minor: int) -> None:
        """Adds a character device node, mode 0600."""
        self._parent(path)
        self._entry(path, stat.S_IFCHR | 0o600, b"", major, minor)

    def _parent(self, path: str) -> None:
        self.directory(os.path.dirname(path))

    def _entry(self, path: str, mode: int, content: bytes, major: int = 0, minor: int = 0) -> None:
        self._inode += 1
        name = path.encode() + b"\0"
        fields = (
            self._inode, mode, 0, 0, 1, 0, len(content), 0, 0, major, minor, len(name), 0,
        )  # fmt: skip
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        for part in (header + name, content):
            self._file.write(part + b"\0" * (-len(part) % 4))
