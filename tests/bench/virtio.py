"""The same with real guests: virtio on an emulated processor, which is the slowest part of it.

Beside a loopnet network and an open network there is passt with its port forwarding, if installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.sandbox import Guest
from tests.sandbox.world import template, wait

from .alternatives import is_installed
from .daemon import Daemon, daemon
from .endpoint import PORT, Route
from .samples import Effort, Result, ratios
from .traffic import LATENCY, RATE, run

GROUP = "host to virtio guest"
KINDS = ("TCP sent", "TCP received", "TCP request")
SLICE = 0.2
"""Seconds: the guest is slow."""
SCRIPT = Path(__file__).with_name("endpoint.pl")
PLAIN = """\
<network>
  <name>plain</name>
  <forward mode='open'/>
  <bridge name='virbr6' stp='off' delay='0'/>
  <ip address='10.127.1.254' prefix='24'>
    <dhcp><range start='10.127.1.2' end='10.127.1.200'/></dhcp>
  </ip>
</network>
"""
PASST_SOCKET = "/run/passt.socket"
PASST_ADDRESS = "127.1.0.2"
PASST_NIC = f"""\
  <qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
    <qemu:arg value='-netdev'/>
    <qemu:arg value='stream,id=passt,server=off,addr.type=unix,addr.path={PASST_SOCKET}'/>
    <qemu:arg value='-device'/>
    <qemu:arg value='virtio-net-pci,netdev=passt,mac=52:54:00:9a:55:71,romfile='/>
  </qemu:commandline>
</domain>"""


def measure(effort: Effort) -> Iterator[Result]:
    with ExitStack() as stack:
        ours, plain = (stack.enter_context(daemon(hooks=hooks)) for hooks in (True, False))
        ours.network(template("loopnet")).create()
        plain.network(PLAIN).create()
        guests = {
            "loopnet": (ours, _start(ours, "loopnet")),
            "plain bridge": (plain, _start(plain, "plain")),
        }
        routes = {}
        for name, (where, guest) in guests.items():
            address = _serve(guest)
            loop = where.host.run(["loopnet", "ip", guest.name], check=False).stdout.strip()
            routes[name] = Route(where.host, loop or address)
        if is_installed("passt"):
            routes["passt"] = stack.enter_context(_passt())
        for kind in KINDS:
            rounds = run(kind, routes, effort.rounds(30, 2), SLICE)
            metrics = ["rate"] if "rate" in rounds[0]["loopnet"] else ["p50", "p99"]
            for other in list(routes)[1:]:
                rate, latency = (1.0, 1.0) if other == "passt" else (RATE, LATENCY)
                for metric in metrics:
                    name = kind if metric == "rate" else f"{kind} {metric}"
                    found = ratios(rounds, "loopnet", other, metric)
                    at_least = metric == "rate"
                    limit = rate if at_least else latency
                    yield Result(GROUP, f"{name}, to {other}", found, limit, at_least)


def _start(where: Daemon, network: str) -> Guest:
    guest = where.sandbox.guest("bench", [network])
    guest.start()
    return guest


def _serve(guest: Guest) -> str:
    """Starts the server; the guest's address."""
    guest.wait_boot()
    address = guest.wait_lease()
    guest.run(f"cat >/run/endpoint.pl <<'END'\n{SCRIPT.read_text()}END")
    guest.run(f"perl /run/endpoint.pl {PORT} >/dev/null 2>&1 &")
    guest.run(f"until netstat -ltn | grep -q :{PORT}; do sleep 0.1; done")
    return address


@contextmanager
def _passt() -> Iterator[Route]:
    with daemon(hooks=False) as where:
        forward = f"{PASST_ADDRESS}/{PORT}"
        argv = ["passt", "-f", "-q", "--runas", "0", "-s", PASST_SOCKET, "-t", forward]
        process = where.host.popen(argv)
        wait(lambda: where.sandbox.path(PASST_SOCKET).exists(), "passt")
        guest = where.sandbox.guest("bench", [])
        where.guest(guest.xml().replace("</domain>", PASST_NIC))
        guest.start()
        _serve(guest)
        yield Route(where.host, PASST_ADDRESS)
        guest.destroy()
        process.kill()
        process.wait()
