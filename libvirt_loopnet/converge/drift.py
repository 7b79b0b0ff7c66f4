"""What the host holds beside what it should hold, for status, plan and sync."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from .. import config
from ..addresses.store import Store
from ..daemon import runstate
from ..firewalls.openings import NFT_TABLE
from ..host import linux
from ..model import Network, Options
from ..planning.plan import NETLINK, NFT, Step
from ..planning.state import HostState, Observed
from ..ruleset.tables import delete_tables
from . import apply
from .dhcp_files import stale_files


class Look(NamedTuple):
    """One thorough look at the host."""

    options: Options
    desired: HostState
    observed: Observed
    steps: tuple[Step, ...]
    """From observed to desired."""
    stale: tuple[str, ...]
    """Files for dnsmasq that are missing, wrong or too many."""
    broken: tuple[Network, ...]
    """Active networks whose bridge is gone: only libvirt can mend that."""


def look() -> Look:
    """Look at the host; nothing is changed."""
    store, host, options = Store(), linux.Linux(), config.load()
    with settled(store):
        desired = apply.survey(host, store, options)
        observed, steps = apply.compared(host, desired, thorough=True)
        return Look(
            options=options,
            desired=desired,
            observed=observed,
            steps=tuple(steps),
            stale=tuple(stale_files(store, desired.networks)),
            broken=broken_networks(),
        )


@contextmanager
def settled(store: Store) -> Iterator[None]:
    """No hook is at work meanwhile; where there is no store yet, there is none to wait for."""
    if not os.path.isdir(store.directory):
        yield
        return
    with store.locked():
        yield


def broken_networks() -> tuple[Network, ...]:
    """Active networks whose bridge someone has deleted."""
    return tuple(n for n in runstate.active_networks() if not linux.is_device(n.bridge))


def broken(network: Network) -> str:
    """What to say of one of them."""
    return (
        f"network {network.name}: its bridge {network.bridge} is gone; recreate it with: "
        f"virsh net-destroy {network.name}; virsh net-start {network.name}"
    )


def brief(steps: Iterable[Step]) -> Iterator[str]:
    """A line for each of ``steps``, the text of rules left out."""
    for step in steps:
        if step.tool == NFT:
            gone = step.text in (delete_tables(), delete_tables(with_ipv6=False))
            yield f"nft: tables loopnet (bridge, arp, ip) {'deleted' if gone else 'replaced'}"
        elif step.tool == NFT_TABLE:
            yield f"nft: table {' '.join(step.text.split()[2:4])} updated for our networks"
        elif step.tool != NETLINK:  # a part of the tables
            yield str(step)
