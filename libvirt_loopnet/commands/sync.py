"""``loopnet sync``: bring the host to what it should be, and say what that took."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..converge.drift import broken, broken_networks
from ..converge.mend import mend
from ..errors import HostError
from .shared.privileges import require_root


def add_arguments(_parser: ArgumentParser) -> None:
    pass


def run(_arguments: Namespace) -> int:
    require_root("sync")
    mended = mend()
    print("\n".join(mended) if mended else "nothing to do")
    problems = [broken(network) for network in broken_networks()]
    if problems:
        raise HostError("; ".join(problems))
    return 0
