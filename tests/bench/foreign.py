"""Hooks run for networks and guests that are none of ours: what everybody pays.

Processor time, as these neither wait nor read anything but their input.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.netns.lab import HOOKS, Lab, domain_xml

from .samples import Effort, Result, worst
from .stopwatch import PYTHON, Program, time_programs

GROUP = "hook for a foreign object"
LIMIT = 1.5
OPERATIONS = {
    "network": ("start", "started", "updated", "stopped", "port-created", "port-deleted"),
    "qemu": (
        "prepare", "start", "started", "stopped", "release",
        "reconnect", "migrate", "restore", "attach",
    ),
}  # fmt: skip
Ratios = dict[tuple[str, str], list[float]]
LARGE = 100_000
DISK = (
    "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
    "<source file='/var/lib/libvirt/images/disk-{0:04}.qcow2' index='{0}'/><backingStore/>"
    "<target dev='sd{0:04}' bus='scsi'/><alias name='scsi0-0-0-{0}'/>"
    "<address type='drive' controller='0' bus='0' target='0' unit='{0}'/></disk>"
)
NETWORK = (
    "<hookData><network><name>default</name><uuid>5e3a1b52-46a6-4b6c-8cde-6e3a7c4c8a01</uuid>"
    "<forward mode='nat'><nat><port start='1024' end='65535'/></nat></forward>"
    "<bridge name='virbr9' stp='on' delay='0'/><mac address='52:54:00:6e:3a:7c'/>"
    "<ip address='192.168.122.1' netmask='255.255.255.0'>"
    "<dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp></ip></network>"
    "<networkport><uuid>6ba7b811-9dad-11d1-80b4-00c04fd430c8</uuid><owner><name>other</name>"
    "<uuid>6ba7b812-9dad-11d1-80b4-00c04fd430c8</uuid></owner><mac address='52:54:00:00:00:99'/>"
    "<plug type='network' bridge='virbr9'/></networkport></hookData>"
)


def measure(effort: Effort) -> Iterator[Result]:
    """Before any loopnet network was there, and while one is active."""
    with Lab() as lab:
        for name, xml in _inputs().items():
            lab.path(f"/run/{name}").write_text(xml)
        yield from _results(_time(lab, effort), "no loopnet network yet")
        network = lab.network(1)
        lab.start(network)
        lab.guest(network)
        yield from _results(_time(lab, effort), "one is active")


def _inputs() -> dict[str, str]:
    small = domain_xml("other", []).replace(
        "<devices>",
        "<devices><interface type='network'><mac address='52:54:00:00:00:99'/>"
        "<source network='default' bridge='virbr9'/><target dev='vnet99'/></interface>",
    )
    disks = "".join(map(DISK.format, range(8)))
    many = "".join(map(DISK.format, range(LARGE // len(DISK))))
    return {
        "network": NETWORK,
        "qemu": small.replace("</devices>", f"{disks}</devices>"),
        "qemu, 100 KB": small.replace("</devices>", f"{many}</devices>"),
    }


def _time(lab: Lab, effort: Effort) -> Ratios:
    """For each (input, operation): pairs with Python doing nothing, one right after the other."""
    python = Program([PYTHON, "-I", "-S", "-c", "pass"])
    hooks = {
        (name, operation): Program(
            [f"{HOOKS}/{driver}.d/50-loopnet", "other", operation, "begin", "-"], f"/run/{name}"
        )
        for name in _inputs()
        for driver in [name.partition(",")[0]]
        for operation in OPERATIONS[driver]
    }
    found: Ratios = {key: [] for key in hooks}
    sequence = [program for hook in hooks.values() for program in (python, hook)]
    for _ in range(effort.rounds(10, 2)):
        seconds = time_programs(lab.host, sequence, best_of=3, cpu=True)
        for key, baseline, took in zip(hooks, seconds[::2], seconds[1::2]):
            found[key].append(took / baseline)
    return found


def _results(found: Ratios, when: str) -> Iterator[Result]:
    for name in _inputs():
        each = [
            Result(GROUP, f"{name} {operation}, {when}", tuple(values), LIMIT, detail=True)
            for (of, operation), values in found.items()
            if of == name
        ]
        yield from each
        yield worst(each)
