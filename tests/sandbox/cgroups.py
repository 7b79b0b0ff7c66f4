"""Control groups for a sandbox: libvirt's LXC driver does nothing without."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import List, NamedTuple, Sequence

from .sandbox import Sandbox

REMOVAL_SECONDS = 10.0

# $1 is the groups' name; on standard input, for each hierarchy: type, options, where it is mounted.
# Below /run/sandbox/cgroups are the machine's hierarchies, for as long as it takes to make a group in each;
# then /sys/fs/cgroup shows these groups as if they were all there is.
ENTER = r"""
cat >/run/sandbox/hierarchies
mount -t tmpfs tmpfs /sys/fs/cgroup
while read -r type options place; do
    real=/run/sandbox/cgroups$place
    mkdir -p "$real"
    mount -t "$type" -o "$options" cgroup "$real"
    mkdir -p "$real/$1"
    for file in cpuset.cpus cpuset.mems; do
        if [ "$type" = cgroup ] && [ -e "$real/$file" ]; then cat "$real/$file" >"$real/$1/$file"; fi
    done
    echo $$ >"$real/$1/cgroup.procs"
done </run/sandbox/hierarchies
exec unshare --cgroup sh -euc '
    while read -r type options place; do
        umount "/run/sandbox/cgroups$place"
        mkdir -p "$place"
        mount -t "$type" -o "$options" cgroup "$place"
        # A group of the second version has either processes or groups.
        mkdir -p "$place/daemon"
        if [ "$type" = cgroup2 ]; then echo $$ >"$place/daemon/cgroup.procs"; fi
    done </run/sandbox/hierarchies
    /usr/sbin/libvirtd --daemon --pid-file /run/libvirtd.pid
    for _ in $(seq 200); do
        if [ -S /run/libvirt/libvirt-sock ]; then exit 0; fi
        sleep 0.05
    done
    exit 1'
"""


class Hierarchy(NamedTuple):
    """What is mounted, how and where."""

    kind: str
    options: str
    place: str


class ControlGroups:
    """As a context manager around that of a sandbox: its control groups, removed when it is gone."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._hierarchies = hierarchies()

    def __enter__(self) -> ControlGroups:
        return self

    def __exit__(self, *_: object) -> None:
        for hierarchy in self._hierarchies:
            remove(Path(hierarchy.place) / self._name)

    def start_libvirtd(self, sandbox: Sandbox) -> None:
        """Starts libvirtd, which must not run, in them."""
        sandbox.host.run(["sh", "-euc", ENTER, "enter", self._name], input=as_lines(self._hierarchies))


def as_lines(hierarchies: Sequence[Hierarchy]) -> str:
    """For a shell that reads them."""
    return "".join(" ".join(hierarchy) + "\n" for hierarchy in hierarchies)


def hierarchies() -> List[Hierarchy]:
    """Those of this machine, of both versions."""
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options = line.split()[:4]
        if kind in ("cgroup", "cgroup2"):
            wanted = [
                name
                for name in options.split(",")
                if name not in ("rw", "relatime", "nosuid", "nodev", "noexec")
            ]
            if kind == "cgroup2":
                wanted = []
            elif any(name.startswith("name=") for name in wanted):
                wanted.append("none")
            found.append(Hierarchy(kind, ",".join(wanted) or "rw", place))
    return found


def remove(group: Path) -> None:
    """With the groups in it; the kernel lets go of the last processes a little after they are gone."""
    end = time.monotonic() + REMOVAL_SECONDS
    for directory, _, _ in os.walk(group, topdown=False):
        while True:
            try:
                os.rmdir(directory)
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
