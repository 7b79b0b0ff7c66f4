"""A real guest in a machine, pings to it that are counted, and what its host holds besides."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from tests.machines.machine import CommandError, Machine
from tests.sandbox.guest import Guest
from tests.sandbox.image import guest_image
from tests.sandbox.libvirtd import QEMU_CONF
from tests.sandbox.sandbox import Sandbox
from tests.sandbox.snapshot import COMMANDS, Snapshot
from tests.sandbox.waiting import no_ping_lost

END = "virsh net-destroy loopnet"
PINGS = "/run/sandbox/pings"
PACKAGES = ("libvirt-daemon-driver-qemu", "qemu-system-x86", "iputils-ping")
"""What a guest and its pings take."""

FILES = """\
find /etc /usr /var /opt /run -xdev \\( -path /run/libvirt -o -path /run/sandbox -o -path /run/systemd \\
    -o -path /run/user -o -path /var/cache -o -path /var/log -o -path /var/lib/apt -o -path /var/lib/dpkg \\
    -o -path /var/lib/rpm -o -path /var/lib/libvirt/qemu -o -path /etc/libvirt/qemu \\
    -o -path /etc/libvirt/nwfilter -o -path /var/lib/systemd -o -name __pycache__ -o -name '*.pid' \\
    -o -name virtlogd-sock \\) -prune -o \\
    -path '/var/lib/libvirt/dnsmasq/*' \\( -name '*.addnhosts' -o -name '*.conf' -o -name '*.hostsfile' \\
    -o -name '*.macs' -o -name '*.status' \\) -prune -o -not -type d -printf '%M %u:%g %s %p %l\\n' | sort
"""
"""All but what libvirt, systemd and package managers write for themselves."""


class _Host:
    """What a Guest asks of the sandbox that it is in."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.path = machine.path
        self.host = SimpleNamespace(run=self._run)

    def _run(self, argv: list[str], *, input: str = "", **_: Any) -> str:
        return self._machine.run(shlex.join(argv), input=input)

    def virsh(self, *arguments: str, **_: Any) -> str:
        return self._machine.run(shlex.join(["virsh", "-q", *arguments]))


def prepare(machine: Machine) -> None:
    """Let guests run in the machine, whose libvirt may touch no cgroups, and have nobody but root."""
    image = guest_image()
    for file in image.kernel, image.initramfs:
        machine.copy(file, str(file))
    machine.path("/etc/libvirt/qemu.conf").write_text(QEMU_CONF)
    machine.run("mkdir -p /run/sandbox/guests; systemctl stop libvirtd.service; virsh net-list")
    # libvirt itself turns forwarding on, for good, when it starts its first network
    machine.run("virsh net-start default; virsh net-destroy default")


def boot(machine: Machine, name: str = "vm1") -> Guest:
    """Define, unless it is, and start a guest on network loopnet; returns when it has its address."""
    guest = Guest(cast(Sandbox, _Host(machine)), name, ["loopnet"])
    guest.define()
    guest.start()
    guest.wait_boot()
    guest.wait_lease()
    return guest


@contextmanager
def pinged(machine: Machine, address: str) -> Iterator[None]:
    """The guest at ``address`` is pinged five times a second for as long as this lasts, and no ping is lost."""
    machine.run(f"ping -n -i 0.2 {address} >{PINGS} 2>&1 & echo $! >{PINGS}.pid")
    with no_ping_lost(
        address,
        lambda: machine.run(f"cat {PINGS}"),
        lambda: machine.run(f"kill -INT $(cat {PINGS}.pid) || true"),
    ):
        yield


def snapshot(machine: Machine) -> Snapshot:
    """What the machine holds: lo, addresses, routes, rules, nft tables, sysctls, /etc/hosts, files, processes."""
    commands = {
        **COMMANDS,
        "files": FILES,
        "contents": "cd /etc; find apparmor.d libvirt -type f -not -path 'libvirt/qemu/*' "
        "-not -path 'libvirt/nwfilter/*' -exec sha256sum {} + | sort",
        "units": "systemctl list-unit-files --no-legend --no-pager '*loopnet*' || true; systemctl --failed --no-legend",
        "processes": "ps -e -o comm= | grep -e dnsmasq -e loopnet | sort || true",
        "networks": "virsh net-list --all --name",
    }
    return {name: machine.run(command) for name, command in commands.items()}


def assert_told(said: str) -> None:
    """What stays, and the one command that ends it."""
    assert "still up: loopnet; their guests go on" in said
    assert said.count(END) == 1


def refusal(machine: Machine, command: str) -> str:
    """What is said by a command that must fail."""
    try:
        said = machine.run(command)
    except CommandError as error:
        return str(error)
    raise AssertionError(f"{command} has succeeded: {said}")


def checkout(machine: Machine, top: Path, inside: str) -> None:
    """The checkout's files as they are now, which git knows of or would."""
    listed = [
        "git",
        "-c",
        f"safe.directory={top}",
        "-C",
        str(top),
        "ls-files",
        "-z",
        "-co",
        "--exclude-standard",
    ]
    names = [name for name in subprocess.check_output(listed, timeout=60).split(b"\0") if name]
    for name in names:
        file = top / name.decode()
        if file.is_file():
            machine.copy(file, f"{inside}/{name.decode()}")
