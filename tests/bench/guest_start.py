"""Starting and ending a guest: what our hooks add, for the first guest and for the thousandth."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network
from typing import Any

from libvirt_loopnet.networks.new import new_network
from libvirt_loopnet.networks.parsing import parse_network
from tests.netns.lab import HOOKS, Lab

from .crowd import add_crowd
from .daemon import Daemon, daemon
from .samples import Effort, Metrics, Result, interleave, ratios
from .stopwatch import Program, time_programs

GROUP = "guest start and end"
BUDGET = 0.150
"""Seconds that all hooks of one guest may take together."""
CROWD = 999
NETWORK = new_network("wide", IPv4Network("127.8.0.0/21"), IPv4Network("10.8.0.0/21"), "mapped")
BRIDGE = "virbr8"
EVENTS = (
    ("qemu", "prepare"), ("network", "port-created"), ("qemu", "start"), ("qemu", "started"),
    ("qemu", "stopped"), ("network", "port-deleted"), ("qemu", "release"),
)  # fmt: skip
"""The hooks of one guest's life, in libvirt's order."""
GUEST = """\
<domain type='qemu'>
  <name>bench</name>
  <memory unit='MiB'>8</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <interface type='network'>
      <mac address='52:54:00:be:7c:01'/>
      <source network='wide'/>
      <model type='virtio'/>
      <rom enabled='no'/>
    </interface>
  </devices>
</domain>
"""


def measure(effort: Effort) -> Iterator[Result]:
    yield Result(GROUP, "all hooks' processor time, to 150 ms", _processor_time(effort), 1.0)
    yield from _by_libvirt(effort)


def _processor_time(effort: Effort) -> tuple[float, ...]:
    """What a guest's hooks take of the budget, less waiting; right on a busy machine too."""
    with Lab() as lab:
        network = lab.network(1)
        lab.start(network)
        guest = lab.guest(network)
        lab.path("/run/network").write_text(network.hook_data(guest.port_xml))
        lab.path("/run/qemu").write_text(guest.domain_xml)
        programs = []
        for driver, operation in EVENTS:
            name = guest.name if driver == "qemu" else network.model.name
            argv = [f"{HOOKS}/{driver}.d/50-loopnet", name, operation, "begin", "-"]
            programs.append(Program(argv, f"/run/{driver}"))
        found = []
        for _ in range(effort.rounds(10, 3)):
            seconds = time_programs(lab.host, programs, best_of=1, cpu=True)
            found.append(sum(seconds) / BUDGET)
        return tuple(found)


def _by_libvirt(effort: Effort) -> Iterator[Result]:
    with daemon(hooks=True) as first, daemon(hooks=False) as bare, daemon(hooks=True) as last:
        runs = {"first": _run(first), "bare": _run(bare), "last": _run(last)}
        network = parse_network(last.connection.networkLookupByName("wide").XMLDesc().encode())
        assert network is not None
        add_crowd(last.sandbox, network, 100 if effort.quick else CROWD)
        rounds = interleave(runs, effort.rounds(12, 3))
    added = [each["first"]["seconds"] - each["bare"]["seconds"] for each in rounds]
    budget = tuple(seconds / BUDGET for seconds in added)
    yield Result(GROUP, "what all hooks add, to 150 ms", budget, 1.0)
    with_hooks = ratios(rounds, "first", "bare", "seconds")
    yield Result(GROUP, "to the same network without hooks", with_hooks)
    which = "101st" if effort.quick else "1000th"
    crowded = ratios(rounds, "last", "first", "seconds")
    yield Result(GROUP, f"the {which} guest of a /21 to the first", crowded, 1.2)


def _run(where: Daemon) -> Callable[[], Metrics]:
    xml = NETWORK.decode().replace("<bridge ", f"<bridge name='{BRIDGE}' ")
    where.network(xml).create()
    guest: Any = where.guest(GUEST)

    def run() -> Metrics:
        started = time.perf_counter()
        where.cycle_guest(guest)
        return {"seconds": time.perf_counter() - started}

    return run
