"""``loopnet watch``: keep the host as it should be; repair what others undo as they do it.

It runs in the foreground until stopped, and prints a line for each repair. It waits for the
kernel to report a change, and also looks every half minute, since sysctls and /etc/hosts change
unannounced. Under systemd it says when it is ready and feeds the watchdog.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Optional

from .. import config, log
from ..addresses.store import Store
from ..converge import adopt, apply
from ..converge.mend import mend
from ..converge.reopen import reopen
from ..daemon.domains import LiveNic
from ..errors import LoopnetError
from ..host import linux
from ..planning.state import HostState
from .shared import plugging
from .shared.privileges import require_root

PERIOD = 30.0
"""Seconds after which it looks unasked."""
REST = 0.25
"""Seconds between two looks: a host where much changes must not be busy with us. Between a change and the look that
repairs it is notify.SETTLE."""


def add_arguments(_parser: ArgumentParser) -> None:
    pass


def run(arguments: Namespace) -> int:
    require_root("watch")
    from ..host.kernel.notify import Changes

    signal.signal(signal.SIGTERM, _end)
    guests, known = Guests(arguments.connect), Known()
    with suppress(KeyboardInterrupt), Changes(known.is_news) as changes:
        _notify("READY=1")
        while True:
            for part in (_reopen, lambda: _look(known), guests.plug_in):  # each may wait for a lock
                part()
                _notify("WATCHDOG=1")
            time.sleep(REST)
            changes.wait(PERIOD)
    _notify("STOPPING=1")
    return 0


def _end(_signal: int, _frame: Optional[FrameType]) -> None:
    raise KeyboardInterrupt


def _look(known: Known) -> None:
    if _differs(known):
        _mend()


def _differs(known: Known) -> bool:
    """A look without the lock, so that hooks need not wait for one that finds nothing."""
    try:
        host, store = linux.Linux(), Store()
        desired = apply.survey(host, store, config.load())
        known.learn(desired)
        return bool(
            apply.planned(host, desired, thorough=True)
            or apply.unnamed_taps(host, desired)
            or (adopt.is_anybody(desired) and any(verdict.welcome for _, verdict in adopt.look(store)))
        )
    except LoopnetError as error:
        _say(f"{error}")
        return False


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Who stops it meanwhile, as an upgrade does, waits: of our rules some are made by nft, and others after it."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def _mend() -> None:
    try:
        with _undisturbed():
            for line in mend():
                _say(f"repaired: {line}")
    except LoopnetError as error:  # a later look may do better
        _say(f"not repaired: {error}")


class Known:
    """The NICs of our bridges as they were when it last looked: that a bridge has heard one of these is no news."""

    def __init__(self) -> None:
        self._bridges: set[str] = set()
        self._macs: set[str] = set()

    def learn(self, desired: HostState) -> None:
        self._bridges = {network.bridge for network in desired.networks}
        self._macs = {guest.mac for guest in desired.guests}

    def is_news(self, bridge: str, mac: str) -> bool:
        return bridge in self._bridges and mac not in self._macs


def _reopen() -> None:
    """First, since whoever connects a VPN waits for it."""
    try:
        for line in reopen():
            _say(f"repaired: {line}")
    except LoopnetError as error:
        _say(f"not repaired: {error}")


class Guests:
    """Plugs in running guests that a restart of their network left behind.

    To try makes the kernel tell of changes, so what failed is not tried again before PERIOD is over.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._tried: set[tuple[str, str]] = set()
        self._next = 0.0
        self._said = ""

    def plug_in(self) -> None:
        try:
            out = {_key(nic) for _, nic in plugging.out_of_place()}
            if out - self._tried or (out and time.monotonic() > self._next):
                self._tried, self._next = out, time.monotonic() + PERIOD
                back, left = plugging.plug_in(self._uri)
                self._tried = {_key(each.nic) for each in left}  # who is back may be lost at once again
                for nic in back:
                    _say(f"repaired: {plugging.plugged(nic)}")
                if back:
                    _mend()  # their taps are bound where rules are next made
                self._complain(f"not repaired: {plugging.unplugged(left)}" if left else "")
            self._tried &= out
        except LoopnetError as error:
            self._complain(f"not repaired: {error}")

    def _complain(self, message: str) -> None:
        """Once is enough."""
        if message and message != self._said:
            _say(message)
        self._said = message


def _key(nic: LiveNic) -> tuple[str, str]:
    return nic.uuid, nic.interface.mac


def _say(message: str) -> None:
    print(message, flush=True)
    log.info(message)


def _notify(state: str) -> None:
    """sd_notify(3), without libsystemd."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
