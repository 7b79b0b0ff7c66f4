"""The names of defined guests, as libvirt's drivers write them down: /etc/libvirt/DRIVER/NAME.xml, root's alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from ..errors import InputError
from ..xml.tree import parse

DIRECTORY = "/etc/libvirt"
DRIVERS = ("qemu", "lxc", "ch", "libxl")


def guest_names(directory: str = DIRECTORY) -> dict[str, str]:
    """UUID -> libvirt's name of each; what can't be read is left out."""
    found = {}
    for path in _files(directory):
        with suppress(OSError, InputError), open(path, "rb") as file:
            domain = parse(file.read())
            found[domain.findtext("uuid")] = domain.findtext("name")
    return found


def _files(directory: str) -> Iterator[str]:
    for driver in DRIVERS:
        with suppress(OSError):
            for entry in os.listdir(f"{directory}/{driver}"):
                if entry.endswith(".xml"):
                    yield f"{directory}/{driver}/{entry}"
