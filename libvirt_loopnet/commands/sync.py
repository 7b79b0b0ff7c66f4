"""``loopnet sync``: repair what differs from what should be, and print what was changed."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..converge.drift import broken, broken_networks
from ..converge.mend import mend
from ..errors import HostError, LoopnetError
from .shared.plugging import plug_in, plugged, unplugged
from .shared.privileges import require_root


def add_arguments(_parser: ArgumentParser) -> None:
    pass


def run(arguments: Namespace) -> int:
    require_root("sync")
    mended = mend()
    problems = [broken(network) for network in broken_networks()]
    try:
        back, left = plug_in(arguments.connect)
        if back:
            mended += [*map(plugged, back), *mend()]
        problems += [unplugged(left)] if left else []
    except LoopnetError as error:
        problems.append(str(error))
    print("\n".join(mended) if mended else "nothing to do")
    if problems:
        raise HostError("; ".join(problems))
    return 0
