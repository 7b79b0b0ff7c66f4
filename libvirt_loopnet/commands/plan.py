"""``loopnet plan``: print what ``loopnet sync`` would run; change nothing. Status 1 if there is anything."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..converge.drift import broken, look
from .shared.output import note
from .shared.privileges import require_root


def add_arguments(_parser: ArgumentParser) -> None:
    pass


def run(_arguments: Namespace) -> int:
    require_root("plan")
    seen = look()
    lines = [*map(str, seen.steps), *(f"# for dnsmasq: {path}" for path in seen.stale)]
    for network in seen.broken:
        note(broken(network))
    print("\n".join(lines) if lines else "nothing to do")
    return 1 if lines or seen.broken else 0
