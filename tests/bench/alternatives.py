"""What else could give a guest an address in 127/8, beside what we do.

* conntrack: nft translates 127.1.0.2 to the guest's address, with route_localnet on the bridge
* proxy: socat listens on 127.1.0.2 and connects to the guest, as kubefwd does
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from tests.sandbox.world import wait

from . import worlds
from .endpoint import KINDS, PORT, SHARED, Route
from .samples import Effort, Result, ratios
from .traffic import run

GROUP = "host to guest"
LOOPNET = "loopnet"
ADDRESS = "127.1.0.2"
PROXY_PORT = PORT + 1
DNAT = """\
table ip bench {
	chain output {
		type nat hook output priority -100; policy accept;
		ip daddr %s dnat to %s
	}
	chain postrouting {
		type nat hook postrouting priority 100; policy accept;
		oifname "br0" masquerade
	}
}
"""


def measure(effort: Effort) -> Iterator[Result]:
    with ExitStack() as stack:
        ours = stack.enter_context(worlds.loopnet()).routes[worlds.HOST_TO_GUEST]
        plain = stack.enter_context(worlds.bridge()).routes[worlds.HOST_TO_GUEST]
        conntrack = stack.enter_context(_conntrack())
        for kind in (kind for kind in KINDS if kind != SHARED):
            yield from _rows(kind, {LOOPNET: ours, "no loopnet": plain, "conntrack": conntrack}, effort)
        if is_installed("socat"):
            # The proxy's share of the work is done in a process of its own: only the clock knows.
            proxy = stack.enter_context(_proxy())
            routes = {LOOPNET: ours._replace(pinned=False), "proxy": proxy}
            for kind in (kind for kind in KINDS if kind.startswith("TCP") and kind != SHARED):
                yield from _rows(kind, routes, effort)


def _rows(kind: str, routes: Mapping[str, Route], effort: Effort) -> Iterator[Result]:
    rounds = run(kind, routes, effort.rounds(40, 5))
    rate = "rate by processor" if routes[LOOPNET].pinned else "rate"
    metrics = [rate] if rate in rounds[0][LOOPNET] else ["p50", "p99"]
    for other in routes:
        for metric in metrics if other != LOOPNET else []:
            name = kind if metric == rate else f"{kind} {metric}"
            limit = 1.0 if other != "no loopnet" else None
            found = ratios(rounds, LOOPNET, other, metric)
            yield Result(GROUP, f"{name}, to {other}", found, limit, at_least=metric == rate)


def is_installed(program: str) -> bool:
    """Says so if it isn't."""
    if shutil.which(program):
        return True
    print(f"left out: {program} is not installed", file=sys.stderr)
    return False


@contextmanager
def _conntrack() -> Iterator[Route]:
    with worlds.bridge() as world:
        route = world.routes[worlds.HOST_TO_GUEST]
        host = world.sandbox.host
        host.run(["nft", "-f", "-"], input=DNAT % (ADDRESS, route.address))
        host.sh("echo 1 >/proc/sys/net/ipv4/conf/br0/route_localnet")
        yield route._replace(address=ADDRESS)


@contextmanager
def _proxy() -> Iterator[Route]:
    with worlds.bridge() as world:
        route = world.routes[worlds.HOST_TO_GUEST]._replace(pinned=False)
        listen = f"TCP-LISTEN:{PROXY_PORT},bind={ADDRESS},fork,reuseaddr,nodelay"
        argv = ["socat", "-b", "131072", "-t", "5", listen, f"TCP:{route.address}:{PORT},nodelay"]
        process = world.sandbox.host.popen(argv)
        wait(lambda: f"{ADDRESS}:{PROXY_PORT}" in world.sandbox.host.sh("ss -Hltn"), "socat")
        yield route._replace(address=ADDRESS, port=PROXY_PORT)
        process.kill()
        process.wait()
