"""A sandbox with loopnet networks in it, and a close look at what they did to host and LAN."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import tempfile
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence

from .capture import Capture
from .guest import Guest
from .holder import CommandError
from .sandbox import CHECKOUT, Sandbox
from .snapshot import differences, snapshot
from .waiting import no_ping_lost, wait

FORBIDDEN = ("127.0.0.0/8", "247.0.0.0/8")
"""What must never be seen on a wire of the LAN."""

POWER_CUT = """\
for process in qemu-system-x86_64 dnsmasq; do
    for pid in $(ps -C "$process" -o pid=); do kill -9 "$pid" 2>/dev/null || true; done
done
find /run/libvirt /run/libvirt-* -mindepth 1 -delete 2>/dev/null || true
for bridge in $(ip -o link show type bridge | sed 's/^[0-9]*: \\([^:@]*\\).*/\\1/'); do
    ip link delete "$bridge"
done
nft flush ruleset
ip -4 address flush dev lo
ip address add 127.0.0.1/8 dev lo
ip route flush table local proto 127
"""


class Kind(NamedTuple):
    """A network as the tests use it; the prefixes are /24s without their last number."""

    name: str
    loop: str
    guest: str
    transit: str
    cmdline: str = ""

    @property
    def host(self) -> str:
        """The address under which guests see the host's connections."""
        return f"{self.guest}254"

    @property
    def gateway(self) -> str:
        """The address of the guests' router."""
        return f"{self.guest}1"


MAPPED = Kind("loopnet", "127.1.0.", "10.127.1.", "247.1.0.")
NATIVE = Kind("loopnet-native", "127.2.0.", "127.2.0.", "247.2.0.", "guest.mode=native")
"""The two networks of xml-templates/."""

FLUSH_RULESET = """\
others=$(nft list tables | grep -v loopnet | while read -r _ table; do nft list table $table; done)
nft flush ruleset
echo "$others" | nft -f -
"""
"""libvirt's own rules come back: it does not miss them, and the host is compared at the end."""


class World:
    """As a context manager: a Sandbox; at its end host and LAN are looked at.

    When all networks are gone the host must be as it was before the first, and nothing may have
    been on the LAN but the host's own address.
    """

    def __init__(
        self,
        *,
        bridge_nf: bool = False,
        ip_rule: bool = False,
        rp_filter: bool = False,
        daemons: str = "",
        firewall_backend: str = "",
    ) -> None:
        self.sandbox = Sandbox(
            bridge_nf=bridge_nf, ip_rule=ip_rule, rp_filter=rp_filter,
            daemons=daemons, firewall_backend=firewall_backend,
        )  # fmt: skip
        self.host = self.sandbox.host
        self.capture = Capture(self.sandbox.lan, "lan0", incoming=True)
        self._stack = contextlib.ExitStack()
        self.kept: Optional[Guest] = None
        """A guest that tests hand on to each other, until clean() ends it."""

    def __enter__(self) -> World:
        with self._stack:
            self._stack.enter_context(self.sandbox)
            self._let_libvirt_begin()
            self._stack.enter_context(self.capture)
            self.before = snapshot(self.sandbox)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._stack:
            if kind is None:
                self.clean()
                self.check_unchanged()
                self.check_lan()

    # --- networks and guests

    def define(self, xml: str) -> None:
        """Defines a network by its XML."""
        self.host.run(["virsh", "-q", "net-define", "/dev/stdin"], input=xml)

    def start(self, kind: Kind = MAPPED) -> None:
        """Defines a network of xml-templates/ and starts it, unless it is active."""
        if not self.path(f"/run/libvirt/network/{kind.name}.xml").exists():
            self._virsh_all("net-define /dev/stdin", f"net-start {kind.name}", input=template(kind.name))

    def active_networks(self) -> List[str]:
        """The names of libvirt's active networks."""
        return self._names("net-list")

    def running_guests(self) -> List[str]:
        """The names of libvirt's active domains."""
        return self._names("list")

    def _names(self, *arguments: str) -> List[str]:
        listed = self.sandbox.virsh(*arguments, "--name").splitlines()
        return [line.strip() for line in listed if line.strip()]

    def boot(self, *names: str, kind: Kind = MAPPED, memory_mib: int = 128) -> List[Guest]:
        """Defines and starts guests on a network, all at once; waits for their leases."""
        guests = [
            self.sandbox.guest(name, [kind.name], cmdline=kind.cmdline, memory_mib=memory_mib)
            for name in names
        ]
        for guest in guests:
            guest.start()
        for guest in guests:
            guest.wait_boot()
            guest.wait_lease()
        return guests

    def keep(self) -> Guest:
        """The guest that is kept, vm1 on `loopnet`: it runs and has its lease. Who takes it leaves it so."""
        if self.kept is None:
            self.start()
            (self.kept,) = self.boot("vm1")
        return self.kept

    def still(self, name: str, networks: Sequence[str] = ("loopnet",)) -> Guest:
        """Defines a small guest and starts it with its CPU stopped: it has a NIC, a tap, a name."""
        guest = self.sandbox.guest(name, networks, memory_mib=32)
        guest.start(paused=True)
        return guest

    def clean(self) -> None:
        """Ends and undefines all guests, then all networks but libvirt's default one."""
        self.kept = None
        lists = (
            "list --uuid", "list --all --persistent --uuid", "net-list --uuid", "net-list --all --persistent --name",
        )  # fmt: skip
        told = self.sandbox.virsh("; echo '|'; ".join(lists))
        running, guests, active, networks = (part.splitlines() for part in told.split("|"))
        commands = [f"destroy {uuid}" for uuid in running if uuid]
        commands += [f"undefine {uuid} --managed-save --snapshots-metadata" for uuid in guests if uuid]
        commands += [f"net-destroy {uuid}" for uuid in active if uuid]
        commands += [
            f"net-undefine '{name}'" for name in map(str.strip, networks) if name not in ("default", "")
        ]
        if commands:
            self._virsh_all(*commands)
        self.path("/etc/libvirt-loopnet.conf").unlink(missing_ok=True)

    def _virsh_all(self, *commands: str, input: Optional[str] = None) -> None:
        """Several commands by one virsh, whose start takes longer than most of them, and whose status is the last's."""
        text = "; ".join(commands)
        done = self.host.run(["virsh", "-q", text], input=input, check=False)
        assert not done.stderr.strip(), f"{text}:\n{done.stderr}"

    def power_cut(self) -> None:
        """What is left after one: files, but none in /run, and a kernel that knows nothing."""
        self.sandbox.kill_libvirtd()
        self.host.sh(POWER_CUT)
        self.sandbox.start_libvirtd()
        self._let_libvirt_begin()

    def _let_libvirt_begin(self) -> None:
        """Lets libvirt do what it does once: turn forwarding on, lay out its chains."""
        self._virsh_all("net-start default", "net-destroy default")

    # --- what is seen

    def check_unchanged(self) -> None:
        """Fails if the host is not as it was at the beginning."""
        changed = differences(self.before, snapshot(self.sandbox))
        assert not changed, f"the host is not as it was before:\n{changed}"

    def check_lan(self) -> None:
        """Fails if the LAN has seen anything but the host's own address, or nothing at all."""
        self.host.sh(f"ping -q -c 1 {self.sandbox.router_address}")
        wait(lambda: self.capture.frames, "a frame on the LAN")
        assert not self.capture.within(*FORBIDDEN)
        own = {self.sandbox.host_address, self.sandbox.router_address}
        own |= {self.sandbox.internet_address, "0.0.0.0"}
        assert {seen for seen in self.capture.seen if seen.source not in own} == set()

    def path(self, inside: str) -> Path:
        """An absolute path inside the sandbox, as a path for this process."""
        return self.sandbox.path(inside)

    def resolve(self, name: str) -> List[str]:
        """The IPv4 addresses that programs on the host get for a name, each once."""
        found = self.host.run(["getent", "ahostsv4", name], check=False).stdout
        return list(dict.fromkeys(re.findall(r"^\S+", found, re.MULTILINE)))

    def published(self) -> Dict[str, str]:
        """Name -> address in loopnet's lines of /etc/hosts."""
        lines = self.path("/etc/hosts").read_text(errors="replace").splitlines()
        ours = [line.split() for line in lines if line.endswith("# libvirt-loopnet: guest")]
        return {words[1]: words[0] for words in ours}

    def page(self, address: str, path: str = "") -> str:
        """A page of a guest's web server, got by the host."""
        return self.host.sh(f"curl -sS --max-time 30 http://{address}/{path}")

    def syslog(self) -> str:
        """The system log: dnsmasq and the hooks."""
        return self.path("/var/log/syslog").read_text(errors="replace")

    def refusal(self, *arguments: str) -> str:
        """What virsh complains about; fails if it succeeds."""
        done = self.host.run(["virsh", "-q", *arguments], check=False)
        assert done.returncode != 0, f"virsh {' '.join(arguments)} went through"
        return done.stderr

    def udp(self, address: str, port: int, payload: str, timeout: float = 20.0) -> str:
        """Sends a datagram from the host; the answer. Raises OSError: refused, timed out."""

        def exchange() -> str:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(timeout)
                client.connect((address, port))
                client.send(payload.encode())
                return client.recv(65535).decode()

        return self.host.call(exchange)

    @contextlib.contextmanager
    def pinged(self, address: str) -> Iterator[None]:
        """The host pings `address` twenty times a second for as long as this lasts, and no ping is lost."""
        with tempfile.TemporaryFile("a+") as log:

            def read() -> str:
                log.seek(0)
                return str(log.read())

            def stop() -> None:
                ping.send_signal(signal.SIGINT)
                ping.wait(10)

            # "a+": reading moves the place that ping shares
            argv = ["ping", "-n", "-i", "0.05", address]
            with self.host.popen(argv, stdout=log) as ping, no_ping_lost(address, read, stop):
                yield

    def listen(self, address: str) -> socket.socket:
        """A TCP server of the host, on a port the kernel picks."""
        server = self.host.call(lambda: socket.create_server((address, 0)))
        server.settimeout(5)
        return server


def template(name: str) -> str:
    """The text of xml-templates/NAME.xml, in the quotes that libvirt writes."""
    return (CHECKOUT / "xml-templates" / f"{name}.xml").read_text().replace('"', "'")


def network_xml(name: str, loop_prefix: str, guest_prefix: str) -> str:
    """A mapped /24 network made from the template; the prefixes are without their last number."""
    text = template("loopnet")
    text = text.replace(">loopnet<", f">{name}<").replace("'loopnet'", f"'{name}'")
    text = text.replace("/loopnet.loopnet", f"/{name}.loopnet")
    text = text.replace("127.1.0.254", f"{loop_prefix}254")
    return text.replace("10.127.1.", guest_prefix)


__all__ = ["MAPPED", "NATIVE", "CommandError", "Kind", "World", "network_xml", "template", "wait"]
