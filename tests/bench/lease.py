"""From a guest's link-up to its address: libvirt's dnsmasq as we and as libvirt configure it.

The tap is there long before the guest is, as in real life: spanning tree has let the port through.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

from libvirt_loopnet.model import Network
from libvirt_loopnet.networks.parsing import parse_network
from tests.netns import frames
from tests.netns.lab import HOOKS
from tests.sandbox import Namespace
from tests.sandbox.world import template

from .crowd import PORT
from .daemon import Daemon, daemon
from .samples import Effort, Metrics, Result, interleave, ratios
from .wires import plug, wait_forwarding

GROUP = "link-up to lease"
LIMIT = 0.5
UUID = "6ba7b81{0}-9dad-11d1-80b4-00c04fd430c8"
RETRY = 3.0
"""Seconds after which a client asks again, as busybox's does."""
ETH_P_IP = 0x0800


def measure(effort: Effort) -> Iterator[Result]:
    with daemon(hooks=True) as ours, daemon(hooks=False) as plain:
        runs = {"loopnet": _loopnet(ours), "default": _default(plain)}
        # dnsmasq pings six new addresses within half a minute; further ones it gives away unseen
        rounds = interleave(runs, effort.rounds(5, 1))
    new = ratios(rounds, "loopnet", "default", "new")
    yield Result(GROUP, "a new guest, to libvirt's default network", new, LIMIT)
    again = ratios(rounds, "loopnet", "default", "again")
    yield Result(GROUP, "the same guest again, to libvirt's default network", again)


def _loopnet(where: Daemon) -> Callable[[], Metrics]:
    found = where.network(template("loopnet"))
    found.create()
    xml = found.XMLDesc()
    network = parse_network(xml.encode())
    assert network is not None
    return _run(where, network.bridge, lambda mac: _admit(where, network, xml, mac))


def _default(where: Daemon) -> Callable[[], Metrics]:
    where.connection.networkLookupByName("default").create()
    return _run(where, "virbr0", lambda _mac: None)


def _admit(where: Daemon, network: Network, xml: str, mac: str) -> None:
    name = "bench" + mac.replace(":", "")
    port = PORT.format(uuid=UUID.format(1), name=name, mac=mac, bridge=network.bridge)
    argv = [f"{HOOKS}/network.d/50-loopnet", network.name, "port-created", "begin", "-"]
    where.host.run(argv, input=f"<hookData>{xml}{port}</hookData>")


def _run(where: Daemon, bridge: str, admit: Callable[[str], None]) -> Callable[[], Metrics]:
    guest = plug(where.sandbox, bridge, 1)
    guest.sh("ip link set eth0 up")
    wait_forwarding(where.sandbox, 1)
    count = 0

    def run() -> Metrics:
        nonlocal count
        count += 1
        mac = f"52:54:00:1e:a5:{count:02x}"
        admit(mac)
        new = _lease(guest, mac)
        time.sleep(0.1)  # the server's script is at work
        return {"new": new, "again": min(_lease(guest, mac) for _ in range(5))}

    return run


def _lease(guest: Namespace, mac: str) -> float:
    """Seconds from the first DISCOVER to the ACK."""
    number = socket.htons(ETH_P_IP)
    wire = guest.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, number))
    with wire:
        wire.bind(("eth0", ETH_P_IP))
        started = time.perf_counter()
        address, options = _ask(wire, mac, frames.DHCP_DISCOVER, b"")
        server = frames.dhcp_option(frames.DHCP_SERVER, options[frames.DHCP_SERVER])
        wanted = frames.dhcp_option(frames.DHCP_WANTED, frames.address(address))
        _ask(wire, mac, frames.DHCP_REQUEST, server + wanted)
        return time.perf_counter() - started


def _ask(wire: socket.socket, mac: str, kind: int, options: bytes) -> tuple[str, dict[int, bytes]]:
    options = frames.dhcp_option(frames.DHCP_TYPE, bytes((kind,))) + options
    message = frames.dhcp(frames.REQUEST, mac, options)
    packet = frames.udp_packet(("0.0.0.0", 68), ("255.255.255.255", 67), message)
    frame = frames.ethernet(mac, frames.BROADCAST, frames.IP, packet)
    for _ in range(5):
        wire.send(frame)
        end = time.monotonic() + RETRY
        while time.monotonic() < end:
            wire.settimeout(max(0.001, end - time.monotonic()))
            try:
                answer = frames.udp_data(wire.recv(65535), 68)
            except socket.timeout:
                break
            if answer and answer[28:34] == frames.mac(mac):
                return frames.dhcp_answer(answer)
    raise TimeoutError(f"no DHCP server answers {mac}")
