"""`make demo`: loopnet at work on a laptop in a box, every claim checked on the way.

The laptop, the LAN it has joined, the internet and the guest are namespaces and a virtual machine
of tests.sandbox; nothing of the real machine is changed. With LOOPNET_DEMO_SHELL=1 in the
environment the demo ends in a shell on that laptop. Status 1 when anything is not as claimed.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Iterator, Optional

from tests.sandbox import (
    CHECKOUT,
    INTERNET,
    BuildError,
    CommandError,
    Guest,
    GuestError,
    Sandbox,
    guest_image,
)
from tests.sandbox.snapshot import Snapshot, differences, snapshot

GUEST = "vm1"
LOOP = "127.1.0.2"
INSIDE = "10.127.1.2"
ROUTER = "10.127.1.1"
CLOSED_PORT = 9
SOON = 3.0
"""Seconds within which a closed port must be refused."""
QUICK, DOT = 0.3, 0.5
"""Seconds after which something takes its time, and that each dot stands for."""

BASH = ["bash", "--noprofile", "--norc", "-i"]


class DemoError(Exception):
    """Something is not as the demo claims."""


class Screen:
    """Writes the story: what is said, what is typed, what comes out."""

    def __init__(self) -> None:
        terminal = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._colour = terminal and not os.environ.get("NO_COLOR")

    def heading(self, text: str) -> None:
        """Begins a part of the story."""
        print(f"\n{self._in('1;36', text)}", flush=True)

    def typed(self, prompt: str, command: str) -> None:
        """Shows a command as if somebody typed it."""
        print(f"{prompt} {self._in('1', command)}", flush=True)

    def output(self, text: str) -> None:
        """Shows what a command printed, without the blank lines around it."""
        if text.strip():
            print("\n".join(text.strip("\n").rstrip().splitlines()), flush=True)

    def fine(self, text: str) -> None:
        """Tells that a claim was checked."""
        print(f"  {self._in('32', 'ok')}  {text}", flush=True)

    @contextmanager
    def progress(self, text: str) -> Iterator[None]:
        """Shows dots and at the end the seconds while something takes its time, if it does."""
        done = threading.Event()
        begin = time.monotonic()

        def dots() -> None:
            if not done.wait(QUICK):
                print(f"{text} ", end="", flush=True)
                while not done.wait(DOT):
                    print(".", end="", flush=True)
                print(f" {time.monotonic() - begin:.1f} s", flush=True)

        thread = threading.Thread(target=dots, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _in(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text


class Demo:
    """The story, told in one sandbox."""

    def __init__(self, sandbox: Sandbox, screen: Screen) -> None:
        self._sandbox = sandbox
        self._screen = screen
        self._lo_before = ""

    def run(self) -> None:
        """Tells all of it. Raises DemoError where something is not as claimed."""
        self._laptop()
        before = snapshot(self._sandbox)
        self._network()
        guest = self._guest()
        self._from_the_host(guest)
        self._from_the_guest(guest)
        self._no_conflict(guest)
        self._end(guest)
        self._compare(before)

    def shell(self) -> int:
        """A shell on the laptop, network and guest up again; its exit status."""
        self._screen.heading("A shell on the laptop")
        self._host("virsh net-start loopnet")
        self._host(f"virsh start {GUEST}")
        print(f"{GUEST} boots and will be at {LOOP}. Its console: virsh console {GUEST}")
        print("Leave with exit; all this goes then.", flush=True)
        # Ctrl-C is for what runs in the shell.
        old = signal.signal(signal.SIGINT, lambda number, frame: None)
        try:
            return self._sandbox.host.interactive(["env", "PS1=laptop# ", *BASH])
        finally:
            signal.signal(signal.SIGINT, old)

    # --- the parts

    def _laptop(self) -> None:
        self._screen.heading("A laptop has joined a LAN that happens to use 10.127.1.0/24:")
        addresses = self._host("ip -4 -brief address")
        self._claim("10.127.1.77/24" in addresses, "the LAN's prefix is 10.127.1.0/24")
        route = self._host("ip route")
        self._claim(f"default via {ROUTER} dev uplink0" in route, f"the LAN's router is {ROUTER}")
        self._lo_before = self._host("ip -4 address show lo")
        self._claim("inet 127.0.0.1/8 " in self._lo_before, "lo has all of 127.0.0.0/8")

    def _network(self) -> None:
        self._screen.heading("A loopnet network, whose guests have the same prefix and router:")
        template = self._host("grep -e mode= -e '<ip ' xml-templates/loopnet.xml")
        self._claim('guest-prefix="10.127.1.0/24" gateway="1"' in template, "they are the same")
        self._host("virsh net-define xml-templates/loopnet.xml")
        self._host("virsh net-start loopnet")
        lo = self._host("ip -4 address show lo")
        self._claim("inet 127.0.0.1/16 " in lo, "lo makes room: it keeps 127.0.0.0/16")
        routes = self._host("ip route show table local | grep -e 127 -e 247")
        self._claim(
            re.search(r"^127\.1\.0\.0/24 dev virbr\d+ ", routes, re.MULTILINE) is not None,
            "127.1.0.0/24 is the network's",
        )
        self._claim(
            re.search(r"^local 127\.0\.0\.0/8 dev lo ", routes, re.MULTILINE) is not None,
            "what no network claims stays with the host",
        )

    def _guest(self) -> Guest:
        self._screen.heading("An ordinary guest, which knows nothing of all this:")
        guest = self._sandbox.guest(GUEST, ["loopnet"])
        self._host(f"virsh start {GUEST}")
        with self._screen.progress(f"{GUEST} boots"):
            guest.wait_boot()
            guest.wait_lease()
        inside = self._in_guest(guest, "ip -4 address show eth0")
        self._claim(f"inet {INSIDE}/24 " in inside, f"it has got {INSIDE} by DHCP")
        listed = self._host("loopnet list")
        self._claim(GUEST in listed and LOOP in listed, f"to the host it is {LOOP}")
        taps = self._host("ip link show type tun")
        self._claim(f"alias {GUEST} {LOOP}" in taps, "the tap tells whose it is")
        return guest

    def _from_the_host(self, guest: Guest) -> None:
        self._screen.heading("From the host:")
        page = self._host(f"curl -sS --max-time 10 http://{LOOP}/")
        self._claim(page.strip() == f"hello from {GUEST}", f"{GUEST} answers at {LOOP}")
        page = self._host(f"curl -sS --max-time 10 http://{GUEST}.loopnet/")
        self._claim(page.strip() == f"hello from {GUEST}", "and by name")
        ping = self._host(f"ping -c 1 -W 5 {GUEST}.loopnet")
        self._claim(" 0% packet loss" in ping, "it answers pings")
        begin = time.monotonic()
        code = f"exec 3<>/dev/udp/{LOOP}/{CLOSED_PORT}; echo hello >&3; cat <&3"
        refused = self._host(f"timeout 5 bash -c {shlex.quote(code)}", fails=True)
        took = time.monotonic() - begin
        self._claim("Connection refused" in refused, "a closed UDP port is refused")
        self._claim(took < SOON, f"at once ({took * 1000:.0f} ms)")

    def _from_the_guest(self, guest: Guest) -> None:
        self._screen.heading("From the guest:")
        page = self._in_guest(guest, f"wget -qO- http://{INTERNET}/")
        expected = f"hello from the internet; you are {self._sandbox.host_address}"
        self._claim(page.strip() == expected, "the internet sees the laptop's address")
        self._in_guest(guest, "wget -qO- http://internet.example/")
        name = self._in_guest(guest, f"nslookup {GUEST}.loopnet")
        found = re.findall(r"^Address: (\S+)", name, re.MULTILINE)
        self._claim(found == [INSIDE], "a guest's name leads guests to its address in there")

    def _no_conflict(self, guest: Guest) -> None:
        self._screen.heading(f"{ROUTER} is one machine to the host, another to the guest:")
        self._host(f"ping -q -c 1 -W 5 {ROUTER}")
        lan = _mac(self._host(f"ip neighbour show {ROUTER}"))
        real = _mac(self._sandbox.lan.sh("ip link show lan0"))
        self._claim(lan == real, "the host reaches the LAN's router")
        self._in_guest(guest, f"ping -q -c 1 -W 5 {ROUTER}")
        gateway = _mac(self._in_guest(guest, f"ip neigh show {ROUTER}"))
        bridge = _mac(self._host("ip link show type bridge"))
        self._claim(gateway == bridge, "the guest reaches the host")
        self._claim(lan != gateway, "neither notices the other")

    def _end(self, guest: Guest) -> None:
        self._screen.heading("The end:")
        self._host(f"virsh destroy {GUEST}")
        self._host("virsh net-destroy loopnet")
        lo = self._host("ip -4 address show lo")
        self._claim(lo == self._lo_before, "lo is as it was")

    def _compare(self, before: Snapshot) -> None:
        self._screen.heading("The host, compared with before:")
        after = snapshot(self._sandbox)
        for what, old in before.items():
            changed = differences({what: old}, after)
            if changed:
                self._screen.output(changed)
            self._claim(not changed, f"{what}: identical")

    # --- how it is told

    def _host(self, command: str, *, fails: bool = False) -> str:
        """Runs a command on the laptop and shows it; what it printed."""
        self._screen.typed("$", command)
        script = f"cd {shlex.quote(str(CHECKOUT))}; {{ {command}; }} 2>&1"
        done = self._sandbox.host.run(["sh", "-c", script], check=False)
        self._screen.output(done.stdout)
        if (done.returncode != 0) != fails:
            raise DemoError(f"{command}: exit status {done.returncode}")
        return done.stdout

    def _in_guest(self, guest: Guest, command: str) -> str:
        """Runs a command in the guest and shows it; what it printed."""
        self._screen.typed(f"{guest.name}#", command)
        printed = guest.run(command)
        self._screen.output(printed)
        return printed

    def _claim(self, true: bool, claim: str) -> None:
        if not true:
            raise DemoError(f"not so: {claim}")
        self._screen.fine(claim)


def _mac(text: str) -> str:
    """The first unicast MAC address in what ip prints."""
    found = re.search(r"(?:link/ether|lladdr) (\S+)", text)
    return found.group(1) if found else ""


def _stop(number: int, frame: Optional[FrameType]) -> None:
    """SIGTERM as Ctrl-C: everything is torn down on the way out."""
    raise KeyboardInterrupt


def tell() -> int:
    """Sets the stage, tells the story, and takes all away; the exit status."""
    screen = Screen()
    begin = time.monotonic()
    with screen.progress("The guest's image, built once and kept"):
        guest_image()
    # Forwarding is on, as wherever libvirt has run a network since boot: it never turns it off.
    with ExitStack() as stack:
        with screen.progress("A laptop with libvirt, a LAN, an internet, all in namespaces"):
            sandbox = stack.enter_context(Sandbox(ip_forward=True))
        demo = Demo(sandbox, screen)
        demo.run()
        print(f"\nAll as claimed, in {time.monotonic() - begin:.0f} s.", flush=True)
        if os.environ.get("LOOPNET_DEMO_SHELL"):
            return demo.shell()
    return 0


def main() -> int:
    """The demo as a command; its exit status."""
    if os.geteuid() != 0:
        print("demo: needs root, for namespaces and libvirtd; try: sudo make demo", file=sys.stderr)
        return 5
    signal.signal(signal.SIGTERM, _stop)
    try:
        return tell()
    except KeyboardInterrupt:
        print("\ndemo: interrupted; nothing of it is left", file=sys.stderr)
        return 130
    except (DemoError, CommandError, GuestError, BuildError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
