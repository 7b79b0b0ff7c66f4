"""Marks the taps of guests for who looks at them with ``ip link``."""

from __future__ import annotations

from ...errors import HostError

SYSFS_NET = "/sys/class/net"


def set_alias(tap: str, alias: str) -> None:
    """Set the alias that ``ip link`` shows for ``tap`` (at most 255 bytes, IFALIASZ)."""
    try:
        with open(f"{SYSFS_NET}/{tap}/ifalias", "wb") as file:
            file.write(alias.encode()[-255:] + b"\n")
    except OSError as error:
        raise HostError(f"the alias of tap {tap} can't be set: {error.strerror}") from None
