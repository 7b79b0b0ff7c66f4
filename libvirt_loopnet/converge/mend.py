"""All of the host at once: what drifted is put right, and told."""

from __future__ import annotations

from .. import config
from ..addresses.store import Store
from ..errors import NamesError
from ..host import linux
from ..host.kernel import taps
from . import apply, dhcp_files
from .adopt import adopt, is_anybody
from .drift import brief, settled


def mend() -> list[str]:
    """Repair all that drifted; a line for each thing done. Raises NamesError only after all else."""
    store, host, options = Store(), linux.Linux(), config.load()
    with settled(store):
        desired = apply.survey(host, store, options)
        mended = adopt(store) if is_anybody(desired) else []
        if mended:
            desired = apply.survey(host, store, options)
        trouble = None
        try:
            mended += brief(apply.converge(host, desired, thorough=True))
        except NamesError as error:
            trouble = error
        apply.note_taps(desired)
        for tap, alias in apply.unnamed_taps(host, desired):
            taps.set_alias(tap, alias)
            mended.append(f"ip link set {tap} alias '{alias}'")
        for network in desired.networks:
            mended += dhcp_files.mend(store, network)
    if trouble:
        raise trouble
    return mended
