"""Throughput and latency: a loopnet network, the same bridge without anything, libvirt's NAT."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

from . import worlds
from .endpoint import KINDS, SHARED, Route, measure_slice
from .samples import Effort, Metrics, Result, Rounds, interleave, ratios

GROUP, OTHERS = "data path", "traffic of others"
NOISE, TRACKED = "another bridge", "tracked bridge"
INFORMATION = {
    NOISE: "noise: two equal bridges",
    TRACKED: "connection tracking alone, a bridge with it to one without",
}
"""Contestants besides ours, and what their ratios to the bridge tell."""
SLICE = 0.04
"""Seconds that each has its turn: of many short turns neighbours differ less than of few long ones."""
RATE, LATENCY = 0.97, 1.05
"""Limits: a rate is at least, a latency at most as much."""
ROUTES = {
    worlds.HOST_TO_GUEST: ("bridge", "NAT"),
    worlds.GUEST_TO_HOST: ("bridge", "NAT"),
    worlds.GUEST_TO_GUEST: ("bridge", "NAT"),
    worlds.GUEST_TO_INTERNET: ("NAT",),
    worlds.LOCALHOST: ("NAT",),
    worlds.LAN_TO_HOST: ("NAT",),
}
"""What each is compared with: a bridge with nothing but addresses, libvirt's default network."""


def measure(effort: Effort) -> Iterator[Result]:
    with ExitStack() as stack:
        made = {
            "loopnet": stack.enter_context(worlds.loopnet()),
            "bridge": stack.enter_context(worlds.bridge()),
            "NAT": stack.enter_context(worlds.nat()),
            NOISE: stack.enter_context(worlds.bridge()),
            TRACKED: stack.enter_context(worlds.bridge(tracked=True)),
        }
        for kind in KINDS:
            for who, others in ROUTES.items():
                more = INFORMATION if who == worlds.HOST_TO_GUEST else {}
                routes = {name: made[name].routes[who] for name in ("loopnet", *others, *more)}
                rounds = run(kind, routes, effort.rounds(40, 5))
                group = OTHERS if who in (worlds.LOCALHOST, worlds.LAN_TO_HOST) else GROUP
                for other in others:
                    title = f"{who}, {kind}, to {other}"
                    yield from results(rounds, ("loopnet", other), group, title)
                for name, told in more.items():
                    for result in results(rounds, (name, "bridge"), group, f"{told}, {kind}"):
                        yield result._replace(limit=None)


def run(kind: str, routes: Mapping[str, Route], rounds: int, seconds: float = SLICE) -> Rounds:
    """One ``kind`` of traffic on each of ``routes`` by turns."""

    def slice_of(route: Route) -> Callable[[], Metrics]:
        return lambda: measure_slice(kind, route, seconds)

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
