"""What the kernel says of its own accord: that links, addresses, routes or rules changed.

pyroute2 is at home here: a resident program pays its import once.
"""

from __future__ import annotations

import select
import socket
import time
from contextlib import suppress
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink import rtnl

_NETFILTER, _NFNLGRP_NFTABLES, _ADD_MEMBERSHIP = 12, 7, 1
_SOL_NETLINK = 270
_TABLE_LOCAL = 255
_GROUPS = (
    rtnl.RTMGRP_LINK
    | rtnl.RTMGRP_IPV4_IFADDR
    | rtnl.RTMGRP_IPV4_ROUTE
    | rtnl.RTMGRP_IPV6_IFADDR
    | rtnl.RTMGRP_IPV6_ROUTE
)


class Changes:
    """Waits for changes that may concern us; a context manager.

    Only *that* something changed is told: what it means is found out by looking at the host, so
    messages lost in a burst (ENOBUFS) lose nothing.
    """

    def __enter__(self) -> Changes:
        self._route = IPRoute()
        self._route.bind(groups=_GROUPS)
        self._rules = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER)
        self._rules.bind((0, 0))
        self._rules.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _NFNLGRP_NFTABLES)
        self._rules.setblocking(False)
        return self

    def __exit__(self, *_: object) -> None:
        self._route.close()
        self._rules.close()

    def wait(self, timeout: float, settle: float = 0.03, patience: float = 0.3) -> bool:
        """Wait up to ``timeout`` seconds for a change; False if there was none.

        After the first, waits until there was none for ``settle`` seconds, but ``patience`` at most.
        """
        if not self._next(timeout):
            return False
        end = time.monotonic() + patience
        while time.monotonic() < end and self._next(settle):
            pass
        return True

    def _next(self, timeout: float) -> bool:
        """Is there a change that may concern us within ``timeout`` seconds?"""
        end = time.monotonic() + timeout
        while True:
            left = max(0.0, end - time.monotonic())
            ready, _, _ = select.select([self._route.fileno(), self._rules], [], [], left)
            if not ready:
                return False
            concerned = [self._drain(source) for source in ready]
            if any(concerned):
                return True

    def _drain(self, source: object) -> bool:
        if source is self._rules:
            return self._drain_rules()
        try:
            return any(_concerns(message) for message in self._route.get())
        except OSError:  # ENOBUFS: messages were lost
            return True

    def _drain_rules(self) -> bool:
        """Any change of rules: who flushes all does not say whose they were."""
        with suppress(OSError):
            while self._rules.recv(1 << 16):
                pass
        return True


def _concerns(message: Any) -> bool:
    """Routes beyond table local never do, routing daemons change them by the thousand; but for default routes in
    IPv6, with which guests get and lose their own."""
    if message["event"] not in ("RTM_NEWROUTE", "RTM_DELROUTE"):
        return True
    if message["family"] == socket.AF_INET6 and message["dst_len"] == 0:
        return True
    return bool((message.get_attr("RTA_TABLE") or message["table"]) == _TABLE_LOCAL)
