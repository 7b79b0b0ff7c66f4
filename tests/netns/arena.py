"""Attackers, victims, and a way to know what reached whom: the ground of test_security.py."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import time
from collections.abc import Iterator
from ipaddress import ip_address

from tests.sandbox import Namespace

from . import frames, frames6
from .lab import DNSMASQ, Lab, LabGuest
from .wire import SETTLE, Capture, LeakWatch, datagram_socket

LOCAL_PORT, ANY_PORT, LOOP_PORT = 9001, 9002, 9003
GUEST_PORT = 9004
PUBLISHED_PORT = 9005
"""Of the host: the victim's GUEST_PORT, for everybody."""
PREFIX6, OTHER_PREFIX6 = "fd12:3456:789a:100::/64", "fd12:3456:789a:200::/64"
LAN6, UPLINK6, INTERNET6 = "2001:db8:7::9", "2001:db8:7::2", "2001:db8:9::1"
STRANGE_MAC = "52:54:00:66:66:66"
"""A MAC address that nobody was given."""

# As unfriendly as a host can be made by others: kube-proxy sets route_localnet on all interfaces.
HOSTILE = """
cd /proc/sys/net/ipv4
for key in route_localnet accept_local accept_source_route accept_redirects arp_accept; do
    for conf in all default uplink0; do echo 1 >conf/$conf/$key; done
done
for conf in all default uplink0; do echo 0 >conf/$conf/rp_filter; done
cd /proc/sys/net/ipv6
for conf in all default uplink0; do echo 1 >conf/$conf/accept_redirects; done
echo 1 >conf/all/forwarding
"""
# Neighbour entries may be replaced at once, so that a test need not wait for a second.
GULLIBLE = """
for file in /proc/sys/net/ipv4/neigh/*/locktime; do echo 0 >$file; done
for file in /proc/sys/net/ipv4/conf/*/arp_accept; do echo 1 >$file; done
for file in /proc/sys/net/ipv6/conf/*/accept_untracked_na; do [ ! -e $file ] || echo 1 >$file; done
"""


class Arena:
    """A host with two networks, good and bad guests, and a LAN with a bad neighbour.

    * ``bound``, ``victim``, ``friend``: started by libvirt, taps bound
    * ``loose``: hot-plugged, known by its MAC address alone
    * ``early``: on the bridge, but no event has told of it
    * ``stranger``: on another loopnet
    * ``asleep``: does not run, and has its reservation; at ``free`` there is nobody, and no reservation
    * ``also`` is ``friend``'s, beside its first address; ``shared`` may be held by ``friend`` and ``victim``, in turn
    """

    def __init__(self, lab: Lab, stack: contextlib.ExitStack, kind: str) -> None:
        self.lab, self.kind = lab, kind
        lab.host.sh(HOSTILE)
        lab.host.sh(
            f"ip address add {UPLINK6}/64 dev uplink0 nodad; ip -n lan address add {LAN6}/64 dev lan0 nodad\n"
            f"ip -6 route add default via {LAN6}"
        )
        self.net, self.other_net = lab.network(1, ipv6=PREFIX6), lab.network(2, ipv6=OTHER_PREFIX6)
        lab.start(self.net)
        lab.start(self.other_net)
        self.bound, self.victim, self.friend = (lab.guest(self.net) for _ in range(3))
        self.loose = lab.guest(self.net, bind=False)
        self.early = lab.guest(self.net, admit=False)
        self.stranger = lab.guest(self.other_net)
        self.asleep = lab.guest(self.net)
        lab.destroy(self.asleep)
        self.free = self.asleep._replace(number=200)
        self.also, self.shared = (self.friend._replace(number=number) for number in (150, 160))
        lab.host.run(["loopnet", "reserve", self.friend.name, "--also", self.also.loop])
        holders = (self.friend.name, self.victim.name)
        lab.host.run(["loopnet", "reserve", "--shared", self.shared.loop, *holders])
        # As libvirt's helper has it: the victim has leased its address in IPv6, so its port is published there too.
        listed = [{"ip-address": self.victim.ipv6, "mac-address": self.victim.mac}]
        lab.path(f"{DNSMASQ}/virbr1.status").write_text(json.dumps(listed, indent=2))
        lab.host.run(["loopnet", "publish", self.victim.name, f"{PUBLISHED_PORT}:{GUEST_PORT}/udp"])
        for guest in self.guests:
            guest.namespace.sh(f"ip address add {guest.ipv6}/64 dev eth0 nodad")
        self.leaks = stack.enter_context(LeakWatch(lab.lan, "lan0"))
        self._wires = {
            guest.name: stack.enter_context(Capture(guest.namespace, "eth0")) for guest in self.guests
        }
        self.lan = stack.enter_context(Capture(lab.lan, "lan0"))
        self._services = {
            "local": ("127.0.0.1", LOCAL_PORT), "any": ("0.0.0.0", ANY_PORT),
            "loop": (self.host_loop, LOOP_PORT),
        }  # fmt: skip
        self._listeners: dict[str, socket.socket] = {}
        for name, where in self._services.items():
            self._listeners[name] = stack.enter_context(datagram_socket(lab.host, where))
        self._listeners["any6"] = stack.enter_context(datagram6_socket(lab.host, ANY_PORT))
        for protocol in (frames.ICMP, frames.TCP, frames.GRE):
            self._listeners[f"protocol {protocol}"] = stack.enter_context(raw_socket(lab.host, protocol))
        self._attacks = itertools.count(1)
        self.token = b""
        """Eight bytes that no frame has in it but those of the attack at hand."""
        for namespace in (lab.host, *(guest.namespace for guest in self.guests)):
            namespace.sh(GULLIBLE)
        self.uplink_mac = lab.path("/sys/class/net/uplink0/address").read_text().strip()
        self.lan_mac = lab.lan.sh("cat /proc/self/net/dev >/dev/null; ip -br link show lan0").split()[2]

    @property
    def guests(self) -> tuple[LabGuest, ...]:
        return (self.bound, self.victim, self.friend, self.loose, self.early, self.stranger)

    # --- addresses --------------------------------------------------------------------------------

    @property
    def native(self) -> bool:
        return self.lab.mode == "native"

    def at(self, number: int) -> str:
        """The address with this number, as guests see it."""
        return str(self.net.model.guest_address(number))

    @property
    def bridge_mac(self) -> str:
        return self.net.model.bridge_mac

    @property
    def gateway(self) -> str:
        return self.victim.gateway

    @property
    def gateway_transit(self) -> str:
        return str(self.net.model.transit_address(self.net.model.gateway))

    @property
    def host_number(self) -> str:
        """The host as guests see it when it calls them."""
        return str(self.net.model.guest_address(self.net.model.host))

    @property
    def host_loop(self) -> str:
        return str(self.net.model.loop_address(self.net.model.host))

    @property
    def other_gateway_transit(self) -> str:
        return str(self.other_net.model.transit_address(self.other_net.model.gateway))

    @property
    def other_host_loop(self) -> str:
        return str(self.other_net.model.loop_address(self.other_net.model.host))

    # --- sending ----------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Before an attack: a new token, and let the bridge learn where the good guests are, whatever
        the last attack told it."""
        self.token = b"@%06d@" % next(self._attacks)
        for guest in (self.victim, self.friend, self.stranger):
            self.send(guest, frames.ethernet(guest.mac, frames.BROADCAST, frames.EXPERIMENT, b""))

    def send(self, attacker: LabGuest, *out: bytes) -> None:
        for frame in out:
            self._wires[attacker.name].send(frame)

    def send_from_lan(self, *out: bytes) -> None:
        for frame in out:
            self.lan.send(frame)

    def datagram(
        self,
        attacker: LabGuest,
        source: str,
        destination: str,
        port: int,
        *,
        to_mac: str = "",
        from_mac: str = "",
        tags: tuple[int, ...] = (),
        options: bytes = b"",
    ) -> None:
        """Send one; ``to_mac`` and ``from_mac`` are the bridge's and its own if not given."""
        packet = frames.udp_packet((source, 4000), (destination, port), self.token, options)
        self.send(
            attacker,
            frames.ethernet(from_mac or attacker.mac, to_mac or self.bridge_mac, frames.IP, packet, tags),
        )

    def lan_datagram(self, source: str, destination: str, port: int, *, from_mac: str = "") -> None:
        packet = frames.udp_packet((source, 4000), (destination, port), self.token)
        self.send_from_lan(frames.ethernet(from_mac or self.lan_mac, self.uplink_mac, frames.IP, packet))

    # --- looking ----------------------------------------------------------------------------------

    def reached(self) -> set[str]:
        """Where the token arrived: a guest's name; ``lan``; ``SERVICE from ADDRESS`` for a service of the
        host (``local``, ``any``, ``loop``, or a protocol)."""
        time.sleep(SETTLE)
        token = self.token
        found = {name for name, wire in self._wires.items() if _has(wire, token)}
        found |= {"lan"} if _has(self.lan, token) else set()
        for name, listener in self._listeners.items():
            found |= {f"{name} from {peer}" for data, peer in _datagrams(listener) if token in data}
        return found

    def datagram6(
        self, attacker: LabGuest, source: str, destination: str, port: int, *, to_mac: str = ""
    ) -> None:
        """Send one; ``to_mac`` is the bridge's if not given."""
        packet = frames6.udp((source, 4000), (destination, port), self.token)
        self.send(attacker, frames.ethernet(attacker.mac, to_mac or self.bridge_mac, frames.IP6, packet))

    def lan_datagram6(self, source: str, destination: str, port: int) -> None:
        packet = frames6.udp((source, 4000), (destination, port), self.token)
        self.send_from_lan(frames.ethernet(self.lan_mac, self.uplink_mac, frames.IP6, packet))

    @property
    def gateway6(self) -> str:
        return str(self.net.model.ipv6_own[0])

    @property
    def bridge_link_local(self) -> str:
        return str(frames.link_local(self.bridge_mac))

    def prime6(self) -> None:
        """Fill the neighbour tables of host, victim and friend with the truth."""
        for namespace, target in (
            (self.lab.host, self.victim.ipv6), (self.lab.host, self.friend.ipv6),
            (self.victim.namespace, self.gateway6), (self.victim.namespace, self.friend.ipv6),
            (self.victim.namespace, f"{self.bridge_link_local}%eth0"),
        ):  # fmt: skip
            namespace.run(["ping", "-6", "-n", "-c1", "-W1", target], check=False)

    def poisoned6(self, attacker: LabGuest) -> set[str]:
        """As poisoned(), in IPv6."""
        time.sleep(SETTLE)
        own = {attacker.ipv6, str(frames.link_local(attacker.mac))}
        found = set()
        for name, namespace in (("host", self.lab.host), ("victim", self.victim.namespace)):
            for address, mac in neighbours6(namespace):
                if mac == STRANGE_MAC or (mac == attacker.mac and address not in own):
                    found.add(f"{name}: {address}")
        if found:
            for namespace in (self.lab.host, self.victim.namespace):
                namespace.run(["ip", "-6", "neighbour", "flush", "all"])
        return found

    def prime(self) -> None:
        """Fill the neighbour tables of host and victim with the truth."""
        for namespace, target in (
            (self.lab.host, self.victim.loop), (self.lab.host, self.friend.loop),
            (self.victim.namespace, self.gateway), (self.victim.namespace, self.friend.address),
        ):  # fmt: skip
            with datagram_socket(namespace) as client:
                client.sendto(b"prime", (target, 9))
        time.sleep(0.02)

    def poisoned(self, attacker: LabGuest) -> set[str]:
        """Entries in neighbour tables that lead to the attacker and should not; they are removed."""
        time.sleep(SETTLE)
        own = {attacker.address, attacker.loop, attacker.transit}
        liars = {attacker.mac, STRANGE_MAC}
        found = set()
        for name, namespace in (("host", self.lab.host), ("victim", self.victim.namespace)):
            for address, mac in neighbours(namespace):
                if mac in liars and (address not in own or mac == STRANGE_MAC):
                    found.add(f"{name}: {address}")
        if found:
            for namespace in (self.lab.host, self.victim.namespace):
                namespace.run(["ip", "neighbour", "flush", "all"])
        return found

    def counter(self, name: str) -> int:
        """One of the host's counters in /proc/net/snmp, as ``Icmp.InRedirects``."""
        group, _, field = name.partition(".")
        lines = self.lab.host.sh("cat /proc/self/net/snmp").splitlines()
        names, values = (line.split() for line in lines if line.startswith(f"{group}:"))
        return int(values[names.index(field)])


def neighbours(namespace: Namespace) -> list[tuple[str, str]]:
    """(address, MAC), of complete IPv4 entries."""

    def read() -> list[str]:
        with open("/proc/thread-self/net/arp", encoding="ascii") as file:
            return file.readlines()[1:]

    rows = [line.split() for line in namespace.call(read)]
    return [(row[0], row[3]) for row in rows if int(row[2], 16) & 2]


def _has(wire: Capture, token: bytes) -> bool:
    found = False
    while (frame := wire.next(0)) is not None:
        found = found or token in frame
    return found


def _datagrams(listener: socket.socket) -> Iterator[tuple[bytes, str]]:
    listener.setblocking(False)
    while True:
        try:
            data, peer = listener.recvfrom(2048)
        except BlockingIOError:
            return
        yield data, str(ip_address(peer[0].partition("%")[0]))


def datagram6_socket(namespace: Namespace, port: int) -> socket.socket:
    """At all of its IPv6 addresses."""

    def make() -> socket.socket:
        listener = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(("::", port))
        return listener

    return namespace.call(make)


def neighbours6(namespace: Namespace) -> list[tuple[str, str]]:
    """(address, MAC), of complete IPv6 entries."""
    lines = (line.split() for line in namespace.run(["ip", "-6", "neighbour"]).stdout.splitlines())
    return [(words[0], words[words.index("lladdr") + 1]) for words in lines if "lladdr" in words]


def raw_socket(namespace: Namespace, protocol: int) -> socket.socket:
    """Gets a copy of each packet that the host takes for its own."""
    return namespace.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol))
