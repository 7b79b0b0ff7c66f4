"""Tables of others that the user lets us open: what came or was made anew is opened at once.

mend() does the same and all else, and takes a few times as long: a VPN that has just connected keeps the host from
its guests meanwhile.
"""

from __future__ import annotations

from .. import config
from ..addresses.store import Store
from ..firewalls.openings import NFT_TABLE, orders
from ..host import ipv6, linux, other_firewalls
from ..planning.plan import Step
from . import apply
from .drift import brief, settled


def reopen() -> list[str]:
    """Open what isn't open; a line for each table. Raises LoopnetError."""
    options = config.load()
    if not options.open_firewalls:
        return []
    store, host = Store(), linux.Linux()
    with settled(store):
        desired = apply.survey(host, store, options)
        chains = other_firewalls.nft_chains()
        observed = apply.of_ipv6(
            other_firewalls.observe(chains, desired.trusted), ipv6.observe((), chains, first=True), desired
        )
        told = orders(observed, desired.networks, trusted=desired.trusted)
        steps = [Step(*order) for order in told if order.tool == NFT_TABLE]
        host.run(steps)
    return list(brief(steps))
