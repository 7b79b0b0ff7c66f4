"""A whole small world for tests: a host with libvirtd, a LAN, an internet, guests."""

from __future__ import annotations

import ipaddress
import shlex
import sys
from pathlib import Path
from typing import Dict, List, Optional, Sequence, TypeVar

from .guest import Guest
from .holder import Holder
from .image import CLOUD, Kernel
from .libvirtd import log, make
from .namespaces import PYTHON, Namespace

INTERNET = "198.51.100.1"
CHECKOUT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
LOG_LINES = 60

S = TypeVar("S", bound="Sandbox")


class Sandbox:
    """A host and a LAN in namespaces of their own, gone without a trace at the end.

    As a context manager: made on entry, in about a second; on exit, also after an exception, every
    process, mount and namespace of it goes. When this process is killed, all goes as well.
    Several can be there at once. Needs root.

    * `host`: where libvirtd runs; interface uplink0 has address .77 of `lan_prefix`, default
      route through .1
    * `lan`: the router .1 (interface lan0) and the internet behind it: `INTERNET` answers HTTP on
      80, UDP echo on 7, DNS on 53. It has a route to the host's LAN address and to nothing else.

    Options:
    * `lan_prefix`: the LAN; deliberately the guest prefix of loopnet's default
    * `hooks`: install the checkout's libvirt hooks
    * `libvirtd`: start libvirtd
    * `bridge_nf`: let iptables and nftables see bridged frames (as Docker has it)
    * `ip_rule`: add routing rules as wg-quick does
    * `rp_filter`: strict reverse path filter on all interfaces
    * `ip_forward`: forwarding on from the beginning
    * `daemons`: which kind of libvirt's, see libvirtd.py
    * `firewall_backend`: what libvirt's own networks use, iptables or nftables; its choice by default
    * `checkout`: the directory that contains libvirt_loopnet/ and hooks/
    """

    def __init__(
        self,
        *,
        lan_prefix: str = "10.127.1.0/24",
        hooks: bool = True,
        libvirtd: bool = True,
        bridge_nf: bool = False,
        ip_rule: bool = False,
        rp_filter: bool = False,
        ip_forward: bool = False,
        daemons: str = "",
        firewall_backend: str = "",
        checkout: Path = CHECKOUT,
    ) -> None:
        lan = ipaddress.IPv4Network(lan_prefix)
        self.lan_prefix = lan
        self.router_address = str(lan[1])
        self.host_address = str(lan[77])
        self.internet_address = INTERNET
        self._hooks = hooks
        self._with_libvirtd = libvirtd
        self._checkout = checkout
        open_to_all = all(place.stat().st_mode & 0o001 for place in (checkout, *checkout.parents))
        self._package = checkout if open_to_all else Path("/run/checkout")
        """Where the checkout is inside, for users other than root as well, who can't see into /root."""
        self._guests: Dict[str, Guest] = {}
        flags = {
            "BRIDGE_NF": bridge_nf, "IP_RULE": ip_rule, "RP_FILTER": rp_filter,
            "IP_FORWARD": ip_forward,
        }  # fmt: skip
        self._holder = Holder(
            HERE / "setup.sh",
            {
                "HERE": str(HERE), "ROUTER": self.router_address, "HOST": self.host_address,
                "LENGTH": str(lan.prefixlen), "INTERNET": INTERNET,
                "CHECKOUT": "" if open_to_all else str(checkout),
                **{name: str(int(flag)) for name, flag in flags.items()},
            },
        )  # fmt: skip
        environment = {"LIBVIRT_DEFAULT_URI": "qemu:///system"}
        self.host = Namespace(self._holder, environment)
        self.lan = Namespace(self._holder, environment, network="/run/netns/lan")
        self.daemons = make(daemons, self.host, self.path, firewall_backend)
        """libvirt's, of the kind that is asked for."""

    def __enter__(self: S) -> S:
        try:
            self._holder.start()
            self._install_command()
            if self._hooks:
                self.install_hooks()
            if self._with_libvirtd:
                self.daemons.configure()
                self.start_libvirtd()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(self, _: object, error: object, *__: object) -> None:
        try:
            if self._holder.pid and isinstance(error, Exception):
                print(self.logs(), file=sys.stderr)
        finally:
            self._holder.stop()

    @property
    def pid(self) -> int:
        """The sandbox's first process, as numbered outside."""
        return self._holder.pid

    def path(self, inside: str) -> Path:
        """An absolute path inside the sandbox, as a path for this process.

        Not for absolute symbolic links on the way: those lead to the real machine's files.
        """
        return Path(f"/proc/{self._holder.pid}/root{inside}")

    def start_libvirtd(self, *, settled: bool = True) -> None:
        """Starts libvirtd, or the modular daemons, and waits until it takes connections; `settled`, until it
        has found its running guests, too."""
        self.daemons.start(settled=settled)

    def stop_libvirtd(self) -> None:
        """Stops libvirtd, or the modular daemons, in good order; guests and networks go on."""
        self.daemons.stop()

    def kill_libvirtd(self) -> None:
        """Kills them with SIGKILL; guests and networks go on."""
        self.daemons.kill()

    def virsh(self, *arguments: str, check: bool = True, timeout: float = 60.0) -> str:
        """Runs virsh; its standard output. Raises CommandError if it fails and `check`."""
        return self.daemons.virsh(*arguments, check=check, timeout=timeout)

    def guest(
        self,
        name: str,
        networks: Sequence[str] = ("loopnet",),
        *,
        macs: Optional[Sequence[str]] = None,
        cmdline: str = "",
        uuid: Optional[str] = None,
        memory_mib: int = 128,
        devices: str = "",
        kernel: Kernel = CLOUD,
        settings: Sequence[str] = (),
    ) -> Guest:
        """Defines a guest, not started, with one NIC in each of `networks`.

        `macs` (one for each NIC) and `uuid` default to ones derived from the name. `cmdline` is
        added to the kernel's (see rootfs/init), `devices` to the domain's XML. `settings` are XML
        elements for each NIC, <model type='virtio'/> by default.
        """
        guest = Guest(
            self, name, networks, macs=macs, cmdline=cmdline, uuid=uuid, memory_mib=memory_mib,
            devices=devices, kernel=kernel, settings=settings,
        )  # fmt: skip
        guest.define()
        self._guests[name] = guest
        return guest

    def install_hooks(self) -> None:
        """Copies the checkout's hooks to where libvirt runs them, as an installation does.

        libvirtd looks for hooks when it starts (and on SIGHUP) only.
        """
        package = shlex.quote(str(self._package))
        for driver in ("network", "qemu"):
            hook = self._checkout / "hooks" / driver
            if not hook.exists():
                continue
            text = hook.read_text().replace("\npackage=@PACKAGE@\n", f"\npackage={package}\n")
            installed = self.path(f"/etc/libvirt/hooks/{driver}.d/50-loopnet")
            installed.parent.mkdir(parents=True, exist_ok=True)
            installed.write_text(text)
            installed.chmod(0o755)

    def logs(self) -> str:
        """The last lines of libvirt's log, the system log (dnsmasq, hooks) and the guests'."""
        files = [*map(self.path, map(log, self.daemons.names)), self.path("/var/log/syslog")]
        files += sorted(self.path("/var/log/libvirt/qemu").glob("*.log"))
        files += sorted(self.path("/run/sandbox/guests").glob("*.console"))
        parts: List[str] = []
        for file in files:
            try:
                lines = file.read_text(errors="replace").splitlines()[-LOG_LINES:]
            except OSError as error:
                lines = [str(error)]
            parts += [f"--- {file.name}", *lines]
        return "\n".join(parts)

    def _install_command(self) -> None:
        code = (
            f"import sys; sys.path.insert(0, {str(self._package)!r}); "
            "from libvirt_loopnet.cli import program; program()"
        )
        command = self.path("/run/bin/loopnet")
        command.write_text(f'#!/bin/sh\nexec {PYTHON} -I -c {shlex.quote(code)} "$@"\n')
        command.chmod(0o755)
