"""A guest with its own address where guests may use free ones as well, to where each has its own alone; and what
it sends from an address that it has beside its first, to that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from libvirt_loopnet.model import FREE, OWN

from . import worlds
from .samples import Effort, Result
from .traffic import results, run

GROUP = "senders"
LIMIT = 0.97
ALSO = "also"
TRAFFIC = (
    (worlds.GUEST_TO_HOST, "TCP sent"),
    (worlds.GUEST_TO_HOST, "UDP 64 bytes"),
    (worlds.GUEST_TO_INTERNET, "UDP 64 bytes"),
    (worlds.GUEST_TO_GUEST, "UDP 64 bytes"),
)


def measure(effort: Effort) -> Iterator[Result]:
    with ExitStack() as stack:
        made = {kind: stack.enter_context(worlds.loopnet(addresses=kind)) for kind in (FREE, OWN)}
        made[ALSO] = stack.enter_context(worlds.loopnet(addresses=OWN, also=True))
        for who, kind in TRAFFIC:
            routes = {name: world.routes[who] for name, world in made.items()}
            rounds = run(kind, routes, effort.rounds(40, 5))
            for one in (FREE, ALSO):
                title = f"{who}, {kind}, {'free' if one == FREE else 'beside its first'} to own"
                for result in results(rounds, (one, OWN), GROUP, title):
                    yield result._replace(limit=LIMIT if one == FREE and result.at_least else None)
