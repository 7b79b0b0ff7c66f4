"""``loopnet sync``: bring the host to what it should be, and say what that took."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from .. import apply, config
from ..errors import HostError
from ..host import linux, taps
from ..reservations import Store
from . import dnsmasqfiles
from .drift import brief, broken, broken_networks, settled
from .privileges import require_root


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


def mend() -> list[str]:
    """Repair all that drifted; a line for each thing done."""
    store, host, options = Store(), linux.Linux(), config.load()
    with settled(store):
        desired = apply.survey(host, store, options)
        mended = list(brief(apply.converge(host, desired, thorough=True)))
        for tap, alias in apply.unnamed_taps(host, desired):
            taps.set_alias(tap, alias)
            mended.append(f"ip link set {tap} alias '{alias}'")
        for network in desired.networks:
            mended += dnsmasqfiles.mend(store, network)
    return mended
