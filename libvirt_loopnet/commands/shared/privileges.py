"""Which commands need root, said before anything is tried."""

from __future__ import annotations

import os

from ...errors import PrivilegeError


def require_root(verb: str) -> None:
    """Raise PrivilegeError unless this runs as root."""
    if os.geteuid() != 0:
        raise PrivilegeError(f"{verb} needs root; run: sudo loopnet {verb}")
