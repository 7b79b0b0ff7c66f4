"""What the kernel says of its own accord: links, addresses, routes or rules changed, or a bridge heard somebody.

pyroute2 is at home here: a resident program pays its import once.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
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
    | rtnl.RTMGRP_NEIGH
)
"""The last tells of neighbours, which may be many, and of what bridges learn, as family AF_BRIDGE."""
SETTLE, LONGEST = 0.03, 0.3
"""Seconds without a change, after one, until it is told; it is told after the second at the latest."""


class Changes:
    """Waits for changes that may concern us; a context manager.

    Only *that* something changed is told: what it means is found out by looking at the host, so
    messages lost in a burst (ENOBUFS) lose nothing. ``is_news`` says of a bridge and a MAC address that it
    has learned whether that concerns us.
    """

    def __init__(self, is_news: Callable[[str, str], bool]) -> None:
        self._is_news = is_news

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

    def wait(self, timeout: float, settle: float = SETTLE, patience: float = LONGEST) -> bool:
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
            return any(self._concerns(message) for message in self._route.get())
        except OSError:  # ENOBUFS: messages were lost
            return True

    def _drain_rules(self) -> bool:
        """Any change of rules: who flushes all does not say whose they were."""
        with suppress(OSError):
            while self._rules.recv(1 << 16):
                pass
        return True

    def _concerns(self, message: Any) -> bool:
        """Routes beyond table local never do, routing daemons change them by the thousand; but for default routes in
        IPv6, with which guests get and lose their own."""
        event = message["event"]
        if event in ("RTM_NEWNEIGH", "RTM_DELNEIGH"):
            return (
                event == "RTM_NEWNEIGH" and message["family"] == socket.AF_BRIDGE and self._is_heard(message)
            )
        if event not in ("RTM_NEWROUTE", "RTM_DELROUTE"):
            return True
        if message["family"] == socket.AF_INET6 and message["dst_len"] == 0:
            return True
        return bool((message.get_attr("RTA_TABLE") or message["table"]) == _TABLE_LOCAL)

    def _is_heard(self, message: Any) -> bool:
        """A bridge has learned a MAC address, and it is news to us."""
        try:
            bridge = socket.if_indextoname(message.get_attr("NDA_MASTER") or 0)
        except OSError:  # it is gone
            return False
        return self._is_news(bridge, message.get_attr("NDA_LLADDR") or "")
