"""A host that only keeps books: it runs the ``ip`` and ``sysctl`` lines of plans as the kernel would.

For plans, never for claims about packets. ``str(host)`` prints what it holds, as ip would.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Optional

from libvirt_loopnet.firewalls.openings import Firewalls
from libvirt_loopnet.model import Network
from libvirt_loopnet.planning.plan import HOSTS, IP, NETLINK, NFT, SYSCTL, Step
from libvirt_loopnet.planning.state import Address, LoAddress, Neighbour, Observed, Route, Tap

LOCALHOST = IPv4Address("127.0.0.1")


class Refused(Exception):
    """The kernel would have said no."""


class FakeHost:
    """Addresses, table local, route_localnet, one ruleset text. ``history`` has every ip line run."""

    def __init__(self) -> None:
        self.lo = [LoAddress(LOCALHOST, 8)]
        self.addresses: set[Address] = set()
        self.routes: set[Route] = set()
        self.localnet: set[str] = set()
        self.ruleset = ""
        self.hosts: tuple[tuple[IPv4Address, tuple[str, ...]], ...] = ()
        self.macs: set[tuple[str, str]] = set()
        self.neighbours: set[Neighbour] = set()
        self.history: list[str] = []

    # --- Host

    def observe(
        self, devices: Iterable[str], *, ruleset: bool = False, firewalls: Optional[Firewalls] = None
    ) -> Observed:
        return Observed(
            tuple(self.lo),
            frozenset(self.addresses),
            frozenset(self.routes),
            frozenset(self.localnet),
            self.ruleset if ruleset else None,
            self.hosts,
            macs=frozenset(self.macs),
            neighbours=frozenset(self.neighbours),
        )

    def canonical(self, networks: Sequence[Network], script: str) -> str:
        return script

    def taps(self, bridges: Iterable[str]) -> list[Tap]:
        return []

    def run(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self._run(step)
            assert any(entry.address == LOCALHOST for entry in self.lo), f"no 127.0.0.1 after {step}"

    # --- what the kernel does

    def _run(self, step: Step) -> None:
        if step.tool == IP:
            self.history.append(step.text)
            self._ip(step.text.split())
        elif step.tool == SYSCTL:
            self._sysctl(step.text)
        elif step.tool == NFT:
            self.ruleset = step.text.rpartition("delete table ip loopnet\n")[2]
            if not self.ruleset:
                assert not self.localnet, "the guards went before route_localnet"
        elif step.tool == HOSTS:
            entries = [entry.split() for entry in step.text.split(";") if entry.strip()]
            self.hosts = tuple((IPv4Address(a), tuple(names)) for a, *names in entries)
        else:
            assert step.tool == NETLINK

    def _sysctl(self, text: str) -> None:
        key, _, value = text.partition("=")
        dev = key.split("/")[3]
        if value == "1":
            assert self.ruleset, "route_localnet came before the guards"
            self.localnet.add(dev)
        else:
            self.localnet.discard(dev)

    def _ip(self, words: list[str]) -> None:
        what, verb, *rest = words
        if what == "link":
            assert (verb, rest[0], rest[2]) == ("set", "dev", "address")
            self.macs = {kept for kept in self.macs if kept[0] != rest[1]} | {(rest[1], rest[3])}
        elif what == "neighbour":
            self._neighbour(verb, IPv4Address(rest[0]), dict(zip(rest[1::2], rest[2::2])))
        elif what == "address":
            self._address(verb, IPv4Interface(rest[0]), rest[2], rest[3:])
        else:
            self._route(verb, rest)

    def _neighbour(self, verb: str, address: IPv4Address, options: dict[str, str]) -> None:
        kept = {n for n in self.neighbours if n[:2] != (options["dev"], address)}
        if verb == "replace":
            kept.add(Neighbour(options["dev"], address, options["lladdr"]))
        elif kept == self.neighbours:
            raise Refused(f"no neighbour {address}")
        self.neighbours = kept

    def _address(self, verb: str, interface: IPv4Interface, dev: str, attributes: list[str]) -> None:
        length = interface.network.prefixlen
        if dev == "lo":
            self._lo_address(verb, interface.ip, length, " ".join(attributes))
            return
        entry = Address(dev, interface.ip, length, "noprefixroute" in attributes)
        if verb == "add":
            _absent(entry, self.addresses)
            self.addresses.add(entry)
            self.routes |= set(_kernel_routes(entry))
        else:
            found = {a for a in self.addresses if a[:3] == entry[:3]}
            if not found:
                raise Refused(f"no {entry}")
            self.addresses -= found
            self.routes -= {
                r for r in self.routes if r.dev == dev and r.source == interface.ip and not r.ours
            }

    def _lo_address(self, verb: str, address: IPv4Address, length: int, attributes: str) -> None:
        same = [entry for entry in self.lo if entry[:2] == (address, length)]
        if verb == "add":
            _absent(LoAddress(address, length), {LoAddress(e.address, e.length) for e in self.lo})
            self.lo.append(LoAddress(address, length, attributes))
            return
        if not same:
            raise Refused(f"no {address}/{length} on lo")
        subnet = IPv4Network((address, length), strict=False)
        peers = [e for e in self.lo if e.length == length and e.address in subnet]
        # promote_secondaries is off: they go with their primary
        gone = peers if peers[0] == same[0] else same
        self.lo = [entry for entry in self.lo if entry not in gone]

    def _route(self, verb: str, words: list[str]) -> None:
        kind, prefix, *rest = words
        options = dict(zip(rest[::2], rest[1::2]))
        source: Optional[IPv4Address] = IPv4Address(options["src"]) if "src" in options else None
        ours, metric = options.get("proto") == "127", int(options.get("metric", 0))
        route = Route(kind, IPv4Network(prefix), options["dev"], source, ours, metric)
        if verb == "add":
            _absent(route, self.routes)
            self.routes.add(route)
            return
        found = {r for r in self.routes if r[:3] == route[:3] and source in (None, r.source)}
        found = {r for r in found if metric in (0, r.metric)}
        if not found:
            raise Refused(f"no {route}")
        self.routes -= found

    def __str__(self) -> str:
        lines = [f"{entry.address}/{entry.length} dev lo {entry.attributes}" for entry in self.lo]
        lines += sorted(f"{a.address}/{a.length} dev {a.dev}" for a in self.addresses)
        lines += sorted(f"{r.kind} {r.prefix} dev {r.dev} src {r.source}" for r in self.routes)
        lines += sorted(f"{n.address} dev {n.dev} lladdr {n.mac}" for n in self.neighbours)
        lines += sorted(f"route_localnet {dev}" for dev in self.localnet)
        return "\n".join(lines)


def _absent(entry: object, entries: Iterable[object]) -> None:
    if entry in set(entries):
        raise Refused(f"File exists: {entry}")


def _kernel_routes(entry: Address) -> Iterable[Route]:
    yield Route("local", IPv4Network((entry.address, 32)), entry.dev, entry.address, False)
    if entry.length < 31:
        subnet = IPv4Network((entry.address, entry.length), strict=False)
        broadcast = IPv4Network((subnet.broadcast_address, 32))
        yield Route("broadcast", broadcast, entry.dev, entry.address, False)
