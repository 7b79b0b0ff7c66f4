"""The data path with many guests and many networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack

from tests.netns.arena import PREFIX6

from . import worlds
from .endpoint import SHARED
from .samples import Effort, Result
from .traffic import results, run

GROUP = "data path at scale"
LIMIT = 1.05
FEW = "few"
TRAFFIC = (
    (worlds.GUEST_TO_HOST, "TCP sent"),
    (worlds.GUEST_TO_HOST, "UDP 64 bytes"),
    (worlds.HOST_TO_GUEST, SHARED),
    (worlds.HOST_TO_GUEST, "UDP 64 bytes"),
    (worlds.GUEST_TO_INTERNET, "UDP 64 bytes"),
)


def measure(effort: Effort) -> Iterator[Result]:
    with ExitStack() as stack:
        made = {
            FEW: stack.enter_context(worlds.loopnet()),
            "100 guests": stack.enter_context(worlds.loopnet(guests=100)),
            "1000 guests": stack.enter_context(worlds.loopnet(guests=1000)),
            "50 networks": stack.enter_context(worlds.loopnet(networks=50)),
            "1000 guests with IPv6": stack.enter_context(worlds.loopnet(guests=1000, ipv6=PREFIX6)),
        }
        yield from _compared(made, effort, "")
    with ExitStack() as stack:
        made = {
            FEW: stack.enter_context(worlds.loopnet6()),
            "1000 guests": stack.enter_context(worlds.loopnet6(guests=1000)),
        }
        yield from _compared(made, effort, "by IPv6, ")


def _compared(made: Mapping[str, worlds.World], effort: Effort, how: str) -> Iterator[Result]:
    """Each with the first."""
    for who, kind in TRAFFIC:
        routes = {name: world.routes[who] for name, world in made.items()}
        rounds = run(kind, routes, effort.rounds(40, 5))
        for name in list(made)[1:]:
            title = f"{who}, {how}{kind}, {name}"
            for result in results(rounds, (name, FEW), GROUP, title):
                limit = round(1 / LIMIT, 3) if result.at_least else LIMIT
                yield result._replace(limit=limit)
