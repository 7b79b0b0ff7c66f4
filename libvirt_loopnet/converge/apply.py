"""What the host should hold by all that is on it now: networks, ports, reservations, leases, listeners (survey()). Then
observe, plan, run, verify: the only place where plans become deeds."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from ..addresses.labels import alias, host_names6
from ..addresses.publications import spare_taken
from ..addresses.store import Store
from ..daemon import runstate
from ..errors import HostError, LoopnetError, NamesError, VerifyError
from ..firewalls.openings import FIREWALLD, IP6TABLES, IPTABLES, NFT_TABLE, Firewalls
from ..host import Host, ipv6, leases, linux, sockets
from ..log import warn
from ..model import Binding, Network, Options
from ..planning.ipv6 import Observed6
from ..planning.plan import CONNTRACK, HOSTS, NETLINK, NFT, SYSCTL, Step, plan, script
from ..planning.state import HostState, Observed, desire


def survey(
    host: Host,
    store: Store,
    options: Options,
    *,
    starting: Network | None = None,
    stopping: Network | None = None,
) -> HostState:
    """What the host should hold now: libvirt's active networks, plus ``starting``, less ``stopping``.

    A network whose bridge is gone can't be served and is left out. Raises StateError when
    reservations can't be read.
    """
    told = {network.name for network in (starting, stopping) if network}
    networks = [n for n in runstate.active_networks() if n.name not in told]
    networks = [n for n in [*networks, *([starting] if starting else [])] if linux.is_device(n.bridge)]
    reservations = {network.name: store.load(network.name) for network in networks}
    ports = [port for network in networks for port in runstate.live_ports(network.name)]
    desired = desire(networks, reservations, ports, host.taps(n.bridge for n in networks), options)
    if desired.hosts or desired.published:
        desired = _with_leased(desired)
    if desired.published:
        desired = desired._replace(published=spare_taken(desired.published, sockets.at_localhost()))
    return desired._replace(gone=(stopping,)) if stopping else desired


def _with_leased(desired: HostState) -> HostState:
    """What leads to guests in IPv6: only where they have their address."""
    leased = leases.ipv6_leases(desired.networks)
    hosts = host_names6(desired.networks, desired.guests, leased) if desired.hosts else ()
    by_name = {network.name: network for network in desired.networks}
    reached = tuple(p for p in desired.published if by_name[p.network].ipv6_address(p.number) in leased)
    return desired._replace(hosts=(*desired.hosts, *hosts), published6=reached)


def planned(host: Host, desired: HostState, *, thorough: bool = False) -> list[Step]:
    """The steps from what the host holds to ``desired``; with ``thorough`` the rules are compared, else
    replaced unseen."""
    return compared(host, desired, thorough=thorough)[1]


def compared(host: Host, desired: HostState, *, thorough: bool) -> tuple[Observed, list[Step]]:
    """planned(), and what the host was seen to hold for it."""
    observed = _observe(host, desired, thorough)
    return observed, _plan(host, observed, desired, thorough)


def _observe(host: Host, desired: HostState, thorough: bool, firewalls: Firewalls | None = None) -> Observed:
    devices = [network.bridge for network in desired.networks]
    observed = host.observe(devices, ruleset=thorough, firewalls=firewalls, trusted=desired.trusted)
    if firewalls is not None:
        return observed
    return observed._replace(firewalls=of_ipv6(observed.firewalls, observed.ipv6, desired))


def of_ipv6(seen: Firewalls, observed: Observed6, desired: HostState) -> Firewalls:
    """``seen`` with what other firewalls say of IPv6."""
    try:
        return ipv6.with_ip6tables(seen, observed, desired.networks)
    except HostError as error:  # as of iptables: told, and nothing is refused for it
        return seen._replace(problems=(*seen.problems, str(error)))


def _plan(host: Host, observed: Observed, desired: HostState, thorough: bool) -> list[Step]:
    if not thorough:
        return plan(observed, desired)
    made = script(observed, desired)
    return plan(observed, desired, host.canonical(desired.networks, made) if made else "")


def converge(host: Host, desired: HostState, *, thorough: bool = False) -> list[Step]:
    """Bring the host to ``desired`` and look again; returns what was done.

    Raises HostError at the first step that fails, VerifyError when the host differs afterwards. NamesError only
    when all but guests' names is as desired.
    """
    before = _observe(host, desired, thorough)
    steps = _plan(host, before, desired, thorough)
    if not steps:
        return steps
    host.run([step for step in steps if step.tool not in (HOSTS, NFT_TABLE)])
    trouble = _attempt(host, [step for step in steps if step.tool == HOSTS])
    closed = _attempt(host, [step for step in steps if step.tool == NFT_TABLE])
    # Other firewalls are looked at once more where they were told something.
    known = None if any(step.tool in OTHERS for step in steps) else before.firewalls
    after = _plan(host, _observe(host, desired, thorough, known), desired, thorough)
    # A table that is made anew at this very moment is opened by whoever looks next: nobody is refused for it.
    closed = closed or _attempt(host, [step for step in after if step.tool == NFT_TABLE])
    if closed:
        warn(f"a firewall could not be opened: {closed}")
    unasked = (NFT_TABLE, *(() if thorough else UNSEEN), *((HOSTS,) if trouble else ()))
    left = [step for step in after if step.tool not in unasked]
    if left:
        raise VerifyError(f"the host is not as planned, still to do: {left[0]}; see: loopnet status")
    if trouble:
        raise NamesError(trouble)
    return steps


def _attempt(host: Host, steps: list[Step]) -> str:
    """Do ``steps``; why that failed, '' if it didn't."""
    try:
        host.run(steps)
    except LoopnetError as error:
        return str(error)
    return ""


def establish(host: Host, desired: HostState, *, thorough: bool = False) -> None:
    """converge() where something would be refused: names that can't be published are for the log only."""
    try:
        converge(host, desired, thorough=thorough)
    except NamesError as error:
        warn(str(error))
    note_taps(desired)


def note_taps(desired: HostState) -> None:
    """Note which taps the NICs were seen at: of one that is hot-plugged nothing else tells when it goes."""
    seen: dict[tuple[str, str], list[str]] = {}
    for binding in desired.bindings:
        seen.setdefault((binding.network, binding.mac), []).append(binding.tap)
    for (network, mac), taps in seen.items():
        if runstate.noted_taps(network, mac) != taps:
            runstate.note_taps(network, mac, taps)


OTHERS = (*IPTABLES, *IP6TABLES, FIREWALLD, NFT_TABLE)
"""Tools that speak to other firewalls."""
UNSEEN = (CONNTRACK, NFT, NETLINK)
"""Tools whose outcome only a thorough look compares; nft's transaction itself is all or nothing."""


def force(host: Host, desired: HostState) -> list[str]:
    """Get as near to ``desired`` as the host lets us: go on after errors, return them, one line each."""
    errors: list[str] = []
    with suppress(LoopnetError):
        host.run(_planned_or_none(host, desired, errors))
        return errors
    unguarded = unreplaced = False
    for step in _planned_or_none(host, desired, errors):
        if step.tool == NFT and unguarded:  # the guards stay while a bridge may carry 127.x
            continue
        if step.tool == NETLINK and unreplaced:  # the old tables have these rules, once
            continue
        try:
            host.run([step])
        except LoopnetError as error:
            errors.append(str(error))
            unguarded = unguarded or step.tool == SYSCTL
            unreplaced = unreplaced or step.tool == NFT
    return errors


def _planned_or_none(host: Host, desired: HostState, errors: list[str]) -> Sequence[Step]:
    try:
        return planned(host, desired)
    except LoopnetError as error:
        errors.append(str(error))
        return []


def unnamed_taps(host: Host, desired: HostState) -> list[tuple[str, str]]:
    """(tap, alias) of guests' taps that were plugged in without an event that told their name."""
    networks = {network.name: network for network in desired.networks}
    guests = {(guest.network, guest.mac): guest for guest in desired.guests}
    taps = {tap.name: tap for tap in host.taps(n.bridge for n in desired.networks)}
    found = []
    own: dict[str, Binding] = {}  # beside those behind it
    for binding in desired.bindings:
        tap = taps.get(binding.tap)
        if binding.tap not in own or (tap and tap.mac[2:] == binding.mac[2:]):
            own[binding.tap] = binding
    for binding in own.values():
        guest = guests[binding.network, binding.mac]
        name = alias(guest.name, networks[binding.network], guest.number)
        if guest.name and binding.tap in taps and not taps[binding.tap].alias:
            found.append((binding.tap, name))
    return found
