"""Does `loopnet watch` grow? Its memory after a thousand events, to that after the first ones."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

from tests.netns.lab import Lab

from .crowd import add_crowd
from .samples import Effort, Result

GROUP = "loopnet watch"
LIMIT = 1.05
GUESTS = 10
BURST = 20
"""Events at once, of which it takes one look."""
PAUSE = 0.5
"""Seconds; longer than it takes to look."""
EVENTS = "".join(
    f"address {verb} 198.18.0.{number}/32 dev uplink0\n"
    for number in range(1, BURST // 2 + 1)
    for verb in ("add", "delete")
)


def measure(effort: Effort) -> Iterator[Result]:
    with Lab() as lab:
        network = lab.network(1)
        lab.start(network)
        add_crowd(lab, network.model, GUESTS)
        watch = lab.host.popen(["loopnet", "watch"])
        bursts = effort.rounds(50, 12)
        memory = []
        for _ in range(bursts):
            lab.host.run(["ip", "-batch", "-"], input=EVENTS)
            time.sleep(PAUSE)
            memory.append(_memory(watch.pid))
        watch.terminate()
        watch.wait()
    settled = memory[bursts // 5]
    events = bursts * BURST
    yield Result(GROUP, f"memory after {events} events", (memory[-1] / settled,), LIMIT)


def _memory(pid: int) -> int:
    """Kilobytes."""
    found = re.search(r"^VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found, "loopnet watch has ended"
    return int(found.group(1))
