"""Throughput and latency: a loopnet network, the same bridge without anything, libvirt's NAT."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

from . import worlds
from .endpoint import KINDS, SHARED, Route, measure_slice
from .samples import Effort, Metrics, Result, Rounds, interleave, ratios

GROUP = "data path"
NOISE = "another bridge"
RATE, LATENCY = 0.97, 1.05
"""Limits: a rate is at least, a latency at most as much."""
ROUTES = {
    worlds.HOST_TO_GUEST: ("bridge", "NAT"),
    worlds.GUEST_TO_HOST: ("bridge", "NAT"),
    worlds.GUEST_TO_GUEST: ("bridge", "NAT"),
    worlds.GUEST_TO_INTERNET: ("NAT",),
}
"""What each is compared with: a bridge with nothing but addresses, libvirt's default network."""


def measure(effort: Effort) -> Iterator[Result]:
    with ExitStack() as stack:
        made = {
            "loopnet": stack.enter_context(worlds.loopnet()),
            "bridge": stack.enter_context(worlds.bridge()),
            "NAT": stack.enter_context(worlds.nat()),
            NOISE: stack.enter_context(worlds.bridge()),
        }
        for kind in KINDS:
            for who, others in ROUTES.items():
                noise = [NOISE] if who == worlds.HOST_TO_GUEST else []
                routes = {name: made[name].routes[who] for name in ("loopnet", *others, *noise)}
                rounds = run(kind, routes, effort, effort.rounds(12, 2))
                for other in others:
                    title = f"{who}, {kind}, to {other}"
                    yield from results(rounds, ("loopnet", other), GROUP, title)
                for name in noise:
                    title = f"noise: two equal bridges, {kind}"
                    for result in results(rounds, (name, "bridge"), GROUP, title):
                        yield result._replace(limit=None)


def run(kind: str, routes: Mapping[str, Route], effort: Effort, rounds: int) -> Rounds:
    """One ``kind`` of traffic on each of ``routes`` by turns."""

    def slice_of(route: Route) -> Callable[[], Metrics]:
        return lambda: measure_slice(kind, route, effort.slice)

    return interleave({name: slice_of(route) for name, route in routes.items()}, rounds)


def results(rounds: Rounds, pair: tuple[str, str], group: str, name: str) -> Iterator[Result]:
    """A row for each metric of ``rounds``: the first of ``pair`` to the second."""
    for metric in next(iter(rounds[0].values())):
        found = ratios(rounds, *pair, metric)
        if metric == "rate by processor":
            yield Result(group, name, found, RATE, at_least=True)
        elif metric != "rate":
            shared = SHARED in name
            limit = None if shared else LATENCY
            detail = shared and metric != "p50"
            yield Result(group, f"{name} {metric}", found, limit, detail=detail)
