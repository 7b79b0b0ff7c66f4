"""Marks the taps of guests for who looks at them with ``ip link``."""

from __future__ import annotations

import os
from contextlib import suppress

from ...errors import HostError

SYSFS_NET = "/sys/class/net"


def set_alias(tap: str, alias: str) -> None:
    """Set the alias that ``ip link`` shows for ``tap`` (at most 255 bytes, IFALIASZ)."""
    try:
        with open(f"{SYSFS_NET}/{tap}/ifalias", "wb") as file:
            file.write(alias.encode()[-255:] + b"\n")
    except OSError as error:
        raise HostError(f"the alias of tap {tap} can't be set: {error.strerror}") from None


def is_plugged(tap: str, mac: str, bridge: str) -> bool:
    """Is there a tap of that name, plugged into ``bridge``, with what libvirt makes of its guest's ``mac``?"""
    with suppress(OSError), open(f"{SYSFS_NET}/{tap}/address") as file:
        # virnetdevtap.c: the same but for the first byte, 0xfe
        own = os.path.basename(os.readlink(f"{SYSFS_NET}/{tap}/master"))
        return file.read().strip()[2:] == mac[2:] and own == bridge
    return False
