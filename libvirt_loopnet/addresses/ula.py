"""This host's global ID, of which its networks' unique local IPv6 prefixes are made (RFC 4193, 3.2).

::

    /var/lib/libvirt-loopnet/ipv6-global-id     0644  ten hexadecimal digits, random, made once and kept

Definitions hold whole prefixes, so that no event needs it, and a definition means the same on another host.
"""

from __future__ import annotations

import os

from ..errors import StateError
from ..files import read_ascii, state_error, sync_directory, write
from ..ipv6 import GLOBAL_ID_BYTES
from .store import DIRECTORY, Store

_NAME = "ipv6-global-id"
_MEND = "put ten hexadecimal digits there, or delete it for new ones; networks that have a prefix keep it"


def global_id(directory: str = DIRECTORY) -> bytes:
    """The host's, made now if it has none. Raises StateError, PrivilegeError."""
    known = _read(directory)
    if known:
        return known
    with Store(directory).locked():
        return _read(directory) or _make(directory)


def _read(directory: str) -> bytes:
    path = os.path.join(directory, _NAME)
    text = read_ascii(path, _MEND)
    if text is None:
        return b""
    try:
        known = bytes.fromhex(text.strip())
    except ValueError:
        known = b""
    if len(known) != GLOBAL_ID_BYTES:
        raise StateError(f"{path} is damaged; {_MEND}")
    return known


def _make(directory: str) -> bytes:
    path, temporary = os.path.join(directory, _NAME), os.path.join(directory, ".new")
    made = os.urandom(GLOBAL_ID_BYTES)
    try:
        write(temporary, made.hex().encode() + b"\n")
        os.rename(temporary, path)
        sync_directory(directory)
    except OSError as error:
        raise state_error(path, error) from None
    return made
