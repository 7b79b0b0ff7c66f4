"""Guests: real virtual machines under the sandbox's libvirtd, driven over a serial line."""

from __future__ import annotations

import base64
import itertools
import re
import socket
import threading
import time
import uuid as uuids
from pathlib import Path
from typing import TYPE_CHECKING, List, Optional, Sequence

from .domain import SMALL_GUEST, derived_mac, domain_xml, interface_xml
from .image import CLOUD, GuestImage, Kernel, guest_image

if TYPE_CHECKING:
    from .sandbox import Sandbox

POLL_SECONDS = 0.05
# One request has to fit the guest's line buffer (4096) in base64.
MAX_COMMAND = 2900


class GuestError(Exception):
    """A guest did not do what was asked; the message says what, and what it printed."""


class Guest:
    """One guest. `name`, `uuid`, `macs` (in NIC order) and `networks` are as defined.

    Made by `Sandbox.guest`. Its console (kernel, leases, a root shell for `virsh console`) is
    logged; commands go over a second serial line, so they work whatever the network does.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        name: str,
        networks: Sequence[str],
        *,
        macs: Optional[Sequence[str]] = None,
        cmdline: str = "",
        uuid: Optional[str] = None,
        memory_mib: int = 128,
        devices: str = "",
        kernel: Kernel = CLOUD,
        image: Optional[GuestImage] = None,
        vcpus: int = 1,
        settings: Sequence[str] = (),
        base: str = "",
    ) -> None:
        self.name = name
        self.uuid = uuid or str(uuids.uuid5(uuids.NAMESPACE_DNS, f"{name}.sandbox"))
        self.networks = list(networks)
        self.macs = list(macs) if macs else [derived_mac(name, nic) for nic in range(len(networks))]
        self._sandbox = sandbox
        self._cmdline = cmdline if image else f"{SMALL_GUEST} {cmdline}".rstrip()
        self._memory_mib = memory_mib
        self._devices = devices
        self._image = image or guest_image(kernel)
        self._vcpus = vcpus
        self._settings = settings
        self._base = base or f"/run/sandbox/guests/{name}"
        self._console_offset = 0
        self._lock = threading.Lock()
        self._ids = itertools.count(1)

    def xml(self) -> str:
        """The domain's XML, as it is defined."""
        return domain_xml(
            self.name, self.uuid, self.macs, self.networks, base=self._base,
            cmdline=self._cmdline, memory_mib=self._memory_mib, devices=self._devices,
            image=self._image, vcpus=self._vcpus, settings=self._settings,
        )  # fmt: skip

    def define(self) -> None:
        """Defines the domain, or defines it anew."""
        self._virsh_with_file("define", xml=self.xml())

    def undefine(self) -> None:
        """Removes the definition."""
        self._sandbox.virsh("undefine", self.name)

    def start(self, *, paused: bool = False) -> None:
        """Starts the domain; returns when its CPU runs, long before the guest is up.

        With `paused` its CPU does not run, yet all of libvirt's part is done.
        """
        self._console_offset = self._console_size()
        self._sandbox.virsh("start", self.name, *(["--paused"] if paused else []))

    def destroy(self) -> None:
        """Ends the domain as if the power failed."""
        self._sandbox.virsh("destroy", self.name)

    def attach_nic(self, network: str, mac: Optional[str] = None) -> str:
        """Plugs one more NIC into the running guest; its MAC."""
        mac = mac or derived_mac(self.name, len(self.macs))
        self._virsh_with_file("attach-device", self.name, xml=interface_xml(mac, network))
        self.macs.append(mac)
        self.networks.append(network)
        return mac

    def detach_nic(self, mac: str) -> None:
        """Unplugs a NIC of the running guest; waits until it is gone."""
        nic = self.macs.index(mac)
        self._virsh_with_file("detach-device", self.name, xml=interface_xml(mac, self.networks[nic]))
        del self.macs[nic], self.networks[nic]

    def console(self) -> str:
        """What the console printed since the last `start`."""
        try:
            with self._console_path().open("rb") as file:
                file.seek(self._console_offset)
                return file.read().decode(errors="replace").replace("\r\n", "\n")
        except FileNotFoundError:
            return ""

    def wait_boot(self, timeout: float = 180.0) -> None:
        """Waits until the guest takes commands. Raises GuestError after `timeout` seconds."""
        self._wait_console(r"guest: \[[\d.]+\] ready", timeout)

    def wait_lease(self, nic: int = 0, timeout: float = 180.0) -> str:
        """Waits until NIC ethN has had a lease since `start`; the address of the latest."""
        found = self._wait_console(rf"guest: \[[\d.]+\] lease eth{nic} ([\d.]+)/", timeout)
        return found[-1]

    def run(self, command: str, *, check: bool = True, timeout: float = 30.0) -> str:
        """Runs a shell command as root in the guest; its output, both streams together.

        Raises GuestError when the guest does not answer, and with `check` when the status is not
        0. A command that takes longer than `timeout` seconds is killed: status 137.
        """
        if len(command.encode()) > MAX_COMMAND:
            raise ValueError(f"longer than {MAX_COMMAND} bytes: {command[:60]}...")
        with self._lock:
            status, output = self._exchange(command, timeout)
        if check and status != 0:
            raise GuestError(f"{self.name}: {command}: exit status {status}\n{output}")
        return output

    def address(self, nic: int = 0) -> str:
        """The IPv4 address the guest itself sees on ethN. Raises GuestError if there is none."""
        output = self.run(f"ip -4 -o address show dev eth{nic}")
        match = re.search(r"inet ([\d.]+)/", output)
        if match is None:
            raise GuestError(f"{self.name}: eth{nic} has no address\n{self.console()}")
        return match.group(1)

    def resolve(self, name: str, server: str = "") -> List[str]:
        """The addresses that a DNS server (its own, if none is given) tells the guest for a name.

        Raises GuestError when there is no answer.
        """
        told = self.run(f"nslookup {name} {server}", check=False)
        if "timed out" in told or "Server:" not in told:
            raise GuestError(f"{self.name}: nslookup {name} {server}: {told}")
        return sorted(set(re.findall(r"^Name:.*\nAddress: (\S+)", told, re.MULTILINE)))

    def _exchange(self, command: str, timeout: float) -> tuple[int, str]:
        number = next(self._ids)
        encoded = base64.b64encode(command.encode()).decode()
        request = f"run {number} {max(1, round(timeout))} {encoded}\n"
        end = time.monotonic() + timeout + 10
        received = b""
        answer = re.compile(rb"begin %d (\d+)\r?\n(.*)end %d\r?\n" % (number, number), re.DOTALL)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            try:
                channel.settimeout(timeout + 10)
                channel.connect(str(self._sandbox.path(f"{self._base}.channel")))
                channel.sendall(request.encode())
                while True:
                    channel.settimeout(max(0.01, end - time.monotonic()))
                    data = channel.recv(65536)
                    if not data:
                        raise GuestError(f"{self.name}: {command}: the guest is gone")
                    received += data
                    match = answer.search(received)
                    if match:
                        output = base64.b64decode(match.group(2)).decode(errors="replace")
                        return int(match.group(1)), output
            except OSError as error:
                raise GuestError(
                    f"{self.name}: {command}: no answer from the guest: {error}\n"
                    f"{received.decode(errors='replace')}\n{self.console()[-2000:]}"
                ) from error

    def _wait_console(self, pattern: str, timeout: float) -> List[str]:
        end = time.monotonic() + timeout
        while True:
            found = re.findall(pattern, self.console())
            if found:
                return found
            if time.monotonic() > end:
                raise GuestError(
                    f"{self.name}: console has no {pattern!r} after {timeout} s\n{self.console()[-4000:]}"
                )
            time.sleep(POLL_SECONDS)

    def _virsh_with_file(self, verb: str, *arguments: str, xml: str) -> None:
        argv = ["virsh", "-q", verb, *arguments, "/dev/stdin"]
        self._sandbox.host.run(argv, input=xml)

    def _console_path(self) -> Path:
        return self._sandbox.path(f"{self._base}.console")

    def _console_size(self) -> int:
        try:
            return self._console_path().stat().st_size
        except FileNotFoundError:
            return 0
