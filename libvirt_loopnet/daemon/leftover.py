"""What stays when loopnet is removed under running guests: a copy of it in /run, until their networks stop.

libvirt goes on with such networks, and what ends one must not need what is gone: the copy's hooks, which have a
name of their own, see to its guests, and take lo, routes and rules back when the last network stops, then
themselves away. After a reboot nothing of it is there but the hooks' files, which go when libvirt next runs them.
"""

from __future__ import annotations

import os
from contextlib import suppress

from ..errors import HostError, LoopnetError
from ..log import warn
from . import runstate

PLACE = "/run/libvirt-loopnet-removed"
"""Has libvirt_loopnet/ in it."""
SUFFIX = "-removed"

STATE = "/var/lib/libvirt-loopnet"
PURGE = f"{STATE}/purge"
"""Its presence says that what guests have reserved goes as well; hooks/network sees to that after a reboot."""

_HERE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def is_here() -> bool:
    """Is it the copy that runs?"""
    return _HERE == PLACE


def leave() -> list[str]:
    """Leave the copy and its hooks; the names of the networks that need them. With none up, nothing is left."""
    import shutil

    from . import hookfiles

    names = [network.name for network in runstate.active_networks()]
    if names and not is_here():
        try:
            with suppress(FileNotFoundError):
                os.unlink(PURGE)  # an earlier removal's
            shutil.rmtree(PLACE, ignore_errors=True)
            os.makedirs(PLACE, mode=0o700)
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(f"{_HERE}/libvirt_loopnet", f"{PLACE}/libvirt_loopnet", ignore=ignore)
        except (OSError, shutil.Error) as error:
            shutil.rmtree(PLACE, ignore_errors=True)
            raise HostError(
                f"can't leave in /run what guests need: {error}; stop their networks first"
            ) from None
        source = hookfiles.sources()
        for driver in hookfiles.DRIVERS:
            hookfiles.install(driver, hookfiles.text(source, driver, PLACE), suffix=SUFFIX)
    return names


def told(names: list[str]) -> str:
    """What to tell who removes loopnet."""
    ends = "; ".join(f"virsh net-destroy {name}" for name in names)
    return (
        f"still up: {', '.join(names)}; their guests go on, and lo, routes and rules stay, until they are stopped, "
        f"which needs loopnet no more: {ends}"
    )


def forget() -> None:
    """Take copy and hooks away: loopnet is there again, or its last network has stopped."""
    import shutil

    from . import hookfiles  # it imports too much for other hooks

    for driver in hookfiles.DRIVERS:
        try:
            hookfiles.uninstall(driver, suffix=SUFFIX)
        except LoopnetError as error:
            warn(str(error))
    with suppress(OSError):
        os.unlink(PURGE)
    shutil.rmtree(PLACE, ignore_errors=True)


def end() -> None:
    """The last network has stopped, as far as the copy is concerned."""
    if not is_here() or runstate.active_networks():
        return
    if os.path.exists(PURGE):
        _purge()
    forget()


def _purge() -> None:
    """As the package does it: all but definitions of converted networks as they were."""
    import shutil

    for entry in os.listdir(STATE):
        if entry != "originals":
            path = f"{STATE}/{entry}"
            if os.path.isdir(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)
    with suppress(OSError):
        os.rmdir(f"{STATE}/originals")
    with suppress(OSError):
        os.rmdir(STATE)
