"""virsh net-start and net-destroy: ours with hooks, libvirt's own without any."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.sandbox.world import template

from .daemon import Daemon, daemon
from .samples import Effort, Metrics, Result, interleave, ratios

GROUP = "network start and stop"
LIMIT = 0.6
OPEN = """\
<network>
  <name>open</name>
  <forward mode='open'/>
  <bridge name='virbr5' stp='off' delay='0'/>
  <ip address='10.127.5.254' prefix='24'>
    <dhcp><range start='10.127.5.2' end='10.127.5.200'/></dhcp>
  </ip>
</network>
"""


def measure(effort: Effort) -> Iterator[Result]:
    with daemon(hooks=True) as ours, daemon(hooks=False) as plain:
        default = plain.connection.networkLookupByName("default")
        runs = {
            "loopnet": _run(ours, ours.network(template("loopnet"))),
            "NAT": _run(plain, default),
            "open": _run(plain, plain.network(OPEN)),
            "bare": _run(plain, plain.network(template("loopnet"))),
        }
        rounds = interleave(runs, effort.rounds(15, 4))

    def found(other: str, metric: str = "seconds") -> tuple[float, ...]:
        return ratios(rounds, "loopnet", other, metric)

    yield Result(GROUP, "to libvirt's NAT network without hooks", found("NAT"), LIMIT)
    name = "to libvirt's NAT network without hooks, processor time"
    yield Result(GROUP, name, found("NAT", "processor"))
    yield Result(GROUP, "to an open network without hooks", found("open"))
    yield Result(GROUP, "to the same definition without hooks", found("bare"))


def _run(where: Daemon, network: Any) -> Callable[[], Metrics]:
    def run() -> Metrics:
        used, started = where.processor_seconds, time.perf_counter()
        where.cycle_network(network)
        took = time.perf_counter() - started
        return {"seconds": took, "processor": where.processor_seconds - used}

    return run
