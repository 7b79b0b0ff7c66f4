"""``loopnet doctor``: find what on this host gets in the way, and the command that fixes it.

It changes nothing. The status is 1 if it reports more than notes. ``--json`` prints an array of
objects::

    id           stable name of the finding
    level        "error", "warning" or "note"
    what         what was found
    consequence  what follows from it
    command      what fixes it, or shows more
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from glob import glob
from ipaddress import IPv4Address

from .. import config
from ..addresses.store import Store
from ..daemon import hookfiles, runstate
from ..errors import Hindrance, InputError, LoopnetError, RulesError
from ..firewalls.obstacles import Foreign
from ..host import blocking_rules, dnsmasq, facts, ipv6, leases, linux, other_firewalls, sockets
from ..host.kernel import versions
from ..model import Network, Publication
from ..networks.dhcp import Problem, static_in
from ..networks.parsing import NAMESPACE, check_options, definition_of, given_options, parse_network
from ..reports import doctor
from ..reports.findings import Facts, Finding
from .shared import plugging
from .shared.inventory import (
    DEFINITIONS,
    PLACES,
    entries,
    links_down,
    most_dropped,
    networks_of_files,
    read_or_nothing,
    stranded,
)
from .shared.output import print_json
from .shared.privileges import require_root
from .shared.untold import untold
from .status import gather


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs; the keys are stable")


def run(arguments: Namespace) -> int:
    require_root("doctor")
    found = doctor.findings(look_around())
    if arguments.json:
        print_json([finding._asdict() for finding in found])
    elif found:
        print("\n\n".join(map(_text, found)))
    else:
        print("nothing is in the way")
    return doctor.order(found)


def _text(finding: Finding) -> str:
    return f"{finding.level}: {finding.what}\n  so:   {finding.consequence}\n  fix:  {finding.command}"


def look_around() -> Facts:
    """Everything that doctor.py judges."""
    missing = facts.missing(facts.DATA_PLANE)
    hooks = {driver: hookfiles.state(driver) for driver in hookfiles.DRIVERS}
    networks = runstate.active_networks()
    broken = _broken_state()
    drift, refusal = ((), "") if missing else _rules(networks, bool(broken))
    ports = _published(networks)
    found = networks_of_files()
    listed = () if broken else entries(found, Store())
    out = [(plugging.lacking(each), plugging.command(each)) for each in plugging.out_of_place()]
    return Facts(
        networks=tuple(networks),
        unfit=tuple(_unfit()),
        problems=_problems(),
        missing_programs=(*missing, *facts.missing(facts.BY_LIBVIRT)),
        old=tuple((each.program, str(each)) for each in versions.old()),
        nft_refusal=refusal,
        hooks=tuple(item for item in hooks.items() if item[1] != hookfiles.INSTALLED),
        daemons=facts.daemons(map(hookfiles.path, hookfiles.DRIVERS)),
        ip_forward=facts.ip_forward(),
        ipv6_off=not ipv6.is_enabled(),
        ipv6_built_in=ipv6.has_ipv6(),
        ipv6_learned=ipv6.endangered(),
        lo_managers=facts.lo_managers(),
        networkd_bridges=tuple((n.bridge, f) for n in networks if (f := facts.networkd_file(n.bridge))),
        lo_option=_lo_option(),
        rivals=_rivals({network.name for network in networks}),
        guest_leases=_guest_leases(networks),
        selinux_hooks=facts.selinux_hooks(map(hookfiles.path, hookfiles.DRIVERS)),
        listeners=facts.listeners(),
        addresses=() if missing else _addresses({network.bridge for network in networks}),
        foreign=Foreign()
        if missing
        else blocking_rules.find(networks, {network.name for network, _, _ in ports}),
        open_firewalls=_open_firewalls(),
        firewall_problems=() if missing else other_firewalls.observe().problems,
        drift=drift,
        unplugged=(*out, *stranded(found, listed)),
        untold=() if broken else tuple((str(each), each.command) for each in untold(Store())),
        published=tuple((guest, each, bool(network.ipv6_prefixes)) for network, guest, each in ports),
        broken_state=broken,
        links_down=tuple(links_down(listed)),
        dropped=tuple(most_dropped(listed)),
    )


def _unfit() -> Iterator[tuple[str, str]]:
    """(network, why it can't start as it is defined)"""
    for path in sorted(glob(f"{DEFINITIONS}/*.xml")):
        data = read_or_nothing(path)
        try:
            network = parse_network(data) if NAMESPACE.encode() in data else None
            if network:
                check_options(definition_of(data), network)
        except InputError as error:
            yield os.path.basename(path)[: -len(".xml")], str(error)


def _problems() -> tuple[Problem, ...]:
    """Of networks as they run, and as they are defined: the command takes it out where it is."""
    found: dict[Problem, list[str]] = {}
    for directory, flag in PLACES:
        for network in runstate.active_networks(directory):
            data = read_or_nothing(f"{directory}/{network.name}.xml")
            for problem in static_in(data, network).problems:
                found.setdefault(problem, []).append(flag)
    return tuple(it._replace(command=" ".join([it.command, *flags])) for it, flags in found.items())


def _rivals(active: set[str]) -> tuple[tuple[str, str], ...]:
    """Of networks that are defined and not up: (network, who has a port that its dnsmasq needs)."""
    defined = [network for network in runstate.active_networks(DEFINITIONS) if network.name not in active]
    # its own, left by a start that failed, goes with the next one
    waiting = [network for network in defined if not dnsmasq.is_running(network.name)]
    return tuple(
        (network.name, str(rival))
        for network in waiting
        for rival in sockets.rivals(network.loop_address(network.host), _serves_dns(network))
    )


def _serves_dns(network: Network) -> bool:
    return "port=0" not in (_options(DEFINITIONS, network) or ())


def _guest_leases(networks: Sequence[Network]) -> tuple[tuple[str, Hindrance], ...]:
    with suppress(LoopnetError):  # told of already
        if config.load().lease_addresses == "guest":
            return ()
    options = {n: given for n in networks if (given := _options(runstate.RUN, n)) is not None}
    return tuple((n.name, why) for n in options if (why := leases.obstacle(n, options[n])))


def _options(directory: str, network: Network) -> tuple[str, ...] | None:
    """None where libvirt has no such file: not yet while the network starts, or no longer."""
    data = read_or_nothing(f"{directory}/{network.name}.xml")
    return given_options(definition_of(data)) if data else None


def _broken_state() -> tuple[str, ...]:
    """Lines about files of ours that can't be read."""
    store = Store()
    loads: list[Callable[[], object]] = [
        config.load,
        *(partial(store.load, name) for name in store.networks()),
    ]
    return tuple(line for load in loads for line in _complaint(load))


def _rules(networks: Sequence[Network], broken: bool) -> tuple[tuple[str, ...], str]:
    """(lines of drift, unless our own files are ``broken``; why nft does not take rules like ours)"""
    drift: tuple[str, ...] = ()
    if not broken:
        try:
            drift = tuple(gather().mended_alone)
        except RulesError as error:
            return (), str(error)
        if networks and not drift:  # it has just taken theirs
            return (), ""
    return drift, facts.nft_refusal()


def _published(networks: Sequence[Network]) -> list[tuple[Network, str, Publication]]:
    """(network, guest, what of it)"""
    store = Store()
    with suppress(LoopnetError):  # told of already
        kept = [(network, each) for network in networks for each in store.load(network.name)]
        return [(network, each.name or each.mac, port) for network, each in kept for port in each.published]
    return []


def _complaint(load: Callable[[], object]) -> list[str]:
    try:
        load()
    except LoopnetError as error:
        return [str(error)]
    return []


def _lo_option() -> str:
    try:
        return config.load().lo
    except LoopnetError:  # told of already
        return "keep"


def _open_firewalls() -> tuple[str, ...]:
    with suppress(LoopnetError):  # told of already
        return config.load().open_firewalls
    return ()


def _addresses(bridges: set[str]) -> tuple[tuple[str, IPv4Address], ...]:
    observed = linux.Linux().observe(())
    others = [(a.dev, a.address) for a in observed.addresses if a.dev not in bridges]
    return tuple(sorted([*others, *(("lo", entry.address) for entry in observed.lo)]))
