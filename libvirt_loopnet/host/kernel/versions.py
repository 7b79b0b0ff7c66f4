"""The oldest versions that loopnet works with, and those that are here. The packages and README name them, too."""

from __future__ import annotations

import os
import re
from contextlib import suppress

from ... import process
from ...errors import HostError
from ...records import NamedTuple

NFT = (0, 9, 8)
LIBVIRT = (7, 0)
LINUX = (5, 3)
"""Has pidfd_open."""

_DAEMONS = ("libvirtd", "virtnetworkd")


class Old(NamedTuple):
    """A program that is older than it may be."""

    program: str
    version: str
    least: str

    def __str__(self) -> str:
        return f"{self.program} {self.version} is too old: loopnet needs {self.least} or later"


def old_nft() -> Old | None:
    """nft, if it is too old; None also where it doesn't say."""
    return _older("nft", _told_by("nft", "--version"), NFT)


def old() -> tuple[Old, ...]:
    """All that is too old."""
    libvirt = next(filter(None, (_told_by(daemon, "--version") for daemon in _DAEMONS)), "")
    found = (old_nft(), _older("libvirt", libvirt, LIBVIRT), _older("Linux", os.uname().release, LINUX))
    return tuple(each for each in found if each)


def _older(program: str, told: str, least: tuple[int, ...]) -> Old | None:
    match = re.search(r"\d+(?:\.\d+)+", told)
    if match is None or tuple(map(int, match[0].split("."))) >= least:
        return None
    return Old(program, match[0], ".".join(map(str, least)))


def _told_by(program: str, option: str) -> str:
    with suppress(HostError):
        return process.run([program, option]).stdout.decode(errors="replace")
    return ""
