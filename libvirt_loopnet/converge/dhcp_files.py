"""The files that dnsmasq reads, by the reservations: what differs, and making them agree."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from .. import config
from ..addresses.store import Store
from ..daemon import runstate
from ..host import dnsmasq, leases
from ..model import Network, Reservation


def publish(store: Store, network_name: str) -> None:
    """Tell the network's dnsmasq what is reserved; an inactive one learns it at its start."""
    for network in runstate.active_networks():
        if network.name == network_name:
            mend(store, network)


def mend(store: Store, network: Network) -> list[str]:
    """Make the files of an active network agree with its reservations; a line a change."""
    lines = [f"dnsmasq: {path}" for path in stale_files(store, [network])]
    changed = dnsmasq.sync_hosts(network, store.load(network.name))
    retell = leases.sync(network, config.load().lease_addresses)
    if retell and not lines:
        lines = [f"libvirt's leases in network {network.name}"]
    if dnsmasq.drop_static_hosts(network) or changed or retell:
        dnsmasq.reload(network.name)
        return lines or [f"dnsmasq: names in network {network.name}"]
    return lines


def stale_files(store: Store, networks: Iterable[Network]) -> Iterator[str]:
    """Paths below dnsmasq's directories that are missing, wrong or too many."""
    for network in networks:
        directory = dnsmasq.hosts_directory(network.name)
        wanted = _wanted(network, store.load(network.name))
        count = 3 if network.ipv6 else 2
        present = {entry: _fields(f"{directory}/{entry}", count) for entry in _entries(directory)}
        for entry in sorted({*wanted, *present}):
            if wanted.get(entry) != present.get(entry):
                yield f"{directory}/{entry}"
        if _read(f"{directory}-hosts") != dnsmasq.hosts_names(network.name):
            yield f"{directory}-hosts"
        yield from leases.stale(network, config.load().lease_addresses)
        if dnsmasq.static_hosts(network):
            yield dnsmasq.static_hosts_file(network.name)


def _wanted(network: Network, reservations: Sequence[Reservation]) -> dict[str, str]:
    return {kept.mac.replace(":", "-"): ",".join(dnsmasq.host_fields(network, kept)) for kept in reservations}


def _entries(directory: str) -> list[str]:
    try:
        return [entry for entry in os.listdir(directory) if entry[0] != "."]
    except OSError:
        return []


def _fields(path: str, count: int) -> str:
    """MAC and addresses; the name after them is what another name makes of it."""
    line = (_read(path) or b"").decode("ascii", "replace").strip()
    return ",".join(line.split(",")[:count])


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None
