"""The whole host follows what was just stored: reservations and publications."""

from __future__ import annotations

from .. import config
from ..addresses.store import Store
from ..host import linux
from .adopt import adopt
from .apply import establish, survey
from .evict import evict


def enact(store: Store) -> None:
    """Put into effect what is stored; within its lock. Raises HostError where the host refuses, and ``loopnet sync``
    may do better."""
    host = linux.Linux()
    adopt(store)
    desired = survey(host, store, config.load())
    establish(host, desired, thorough=True)
    for network in desired.networks:
        evict(network, store.load(network.name))
