"""The NICs of running guests, as libvirt's drivers write them down.

A driver saves a guest that runs, on every change, and finds it again by that file when it is restarted::

    /run/libvirt/qemu/NAME.xml      <domstatus>, with the <domain> as it runs

(src/conf/domain_conf.c, virDomainObjSave; root's alone). Unlike ports, which net-destroy takes away,
these say to which network a guest belongs that has lost it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from ..errors import InputError
from ..guests.interfaces import Interface, interfaces
from ..log import warn
from ..xml.tree import Element, parse

RUN = "/run/libvirt"
DRIVERS = ("qemu", "lxc", "ch", "libxl")
_TARGET = re.compile(rb"<target dev='([^']+)'")
_LINK_DOWN = b"<link state='down'"


class LiveNic(NamedTuple):
    """A NIC of a running guest."""

    driver: str
    """Of DRIVERS."""
    guest: str
    """The domain's name."""
    uuid: str
    """The domain's."""
    interface: Interface


def live_nics(taps: Iterable[str], run: str = RUN) -> list[LiveNic]:
    """Those NICs whose devices on the host are called so; guests that have none of them cost little."""
    wanted = frozenset(taps)
    if not wanted:
        return []

    def has_one(data: bytes) -> bool:
        return not wanted.isdisjoint(target.decode(errors="replace") for target in _TARGET.findall(data))

    found = (nic for driver in DRIVERS for nic in _nics(driver, has_one, f"{run}/{driver}"))
    return [nic for nic in found if nic.interface.tap in wanted]


def nics_with_link_down(run: str = RUN) -> list[LiveNic]:
    """Those NICs of running guests whose link libvirt has down; guests that have none cost little."""
    found = (nic for driver in DRIVERS for nic in _nics(driver, _has_link_down, f"{run}/{driver}"))
    return [nic for nic in found if nic.interface.link_down]


def _has_link_down(data: bytes) -> bool:
    return _LINK_DOWN in data


def _nics(driver: str, may_have: Callable[[bytes], bool], directory: str) -> Iterator[LiveNic]:
    """All NICs of the guests that ``may_have`` takes a closer look at, by what is saved of them."""
    for path in _status_files(directory):
        data = _read(path)
        if not may_have(data):
            continue
        try:
            domain = _domain(data)
            for interface in interfaces(data):
                yield LiveNic(driver, domain.findtext("name"), domain.findtext("uuid"), interface)
        except InputError as error:  # half written, perhaps
            warn(f"{path}: {error}")


def _domain(data: bytes) -> Element:
    domain = parse(data).find("domain")
    if domain is None:
        raise InputError("this is no status file of a domain")
    return domain


def _status_files(directory: str) -> list[str]:
    with suppress(OSError):
        return [f"{directory}/{entry}" for entry in sorted(os.listdir(directory)) if entry.endswith(".xml")]
    return []


def _read(path: str) -> bytes:
    with suppress(OSError), open(path, "rb") as file:
        return file.read()
    return b""
