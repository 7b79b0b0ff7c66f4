"""Any libvirt network definition -> a loopnet one, or one line why not. Pure: bytes in, bytes out.

========================  =========================================================================
in the definition         becomes
========================  =========================================================================
``<ip address prefix>``   guest prefix; the address is the gateway's number, so that router, DNS and
                          DHCP server stay what guests know; ``<ip>`` gets the loop prefix and, as
                          host number, the last usable one that no guest has
``<host mac ip name>``    ``<loopnet:host>``: a reservation with the same host number
``<range>``               goes away: every NIC has a reservation of its own
``<bootp>``, localPtr     stay, and dnsmasq options do what libvirt no longer does for them
``<forward>``             ``mode='open'``; dev, nat addresses and ports go away, with a warning
no ``<forward>``          the same, and ``internet='none'``, which says what it said
``<dns enable='no'>``     the option port=0: libvirt starts dnsmasq only with DNS or DHCP of its own
``<route gateway>``       the same host number in the loop prefix
everything else           stays as it is, in its order and place
========================  =========================================================================
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network
from typing import NamedTuple

from ..errors import InputError, PoolFullError, VerifyError
from ..ipv6 import Choice
from ..model import ADDRESSES, FREE, MAPPED, MODES, NAT, NATIVE, NONE, ROUTE, Network, Reservation
from ..prefixes import (
    LONGEST,
    LOOPBACK,
    SHORTEST,
    check_guest_prefix,
    check_loop_prefix,
    check_overlap,
    default_guest_prefix,
    free_loop_prefix,
)
from ..validation import check_name, shown
from ..xml.tree import Element, parse
from .edits import rewrite
from .elements import (
    bridge_of,
    describe,
    domain_of,
    host_number,
    ipv4_address,
    ipv4_elements,
    ipv6_elements,
    ipv6_given,
    network_element,
    network_of,
    own_element,
    prefixes_of,
)
from .hosts import merge_hosts
from .parsing import declared_hosts, definition_of, missing_options
from .refusals import check_rewritable, refusal
from .warnings import find_warnings


class Rewritten(NamedTuple):
    """A definition after rewrite_network."""

    xml: bytes
    network: Network
    reservations: tuple[Reservation, ...]
    """What the definition itself reserves; mac is '' for a <host> known by name only."""
    warnings: tuple[str, ...]
    """One line each: what guests or the host will find different."""


class _Asked(NamedTuple):
    loop_prefix: IPv4Network | None
    guest_prefix: IPv4Network | None
    mode: str | None
    addresses: str | None
    ipv6: Choice | None
    gateway: int | None
    taken: tuple[tuple[str, IPv4Network], ...]


def rewrite_network(
    xml: bytes,
    *,
    loop_prefix: IPv4Network | None = None,
    guest_prefix: IPv4Network | None = None,
    mode: str | None = None,
    addresses: str | None = None,
    ipv6: Choice | None = None,
    gateway: int | None = None,
    taken: Iterable[tuple[str, IPv4Network]] = (),
    occupied: Iterable[int] = (),
) -> Rewritten:
    """Rewrite the ``<network>`` definition ``xml``; what is loopnet's already is normalised.

    ``taken`` has names and loop prefixes of loopnet networks, ``occupied`` host numbers that
    guests have without the definition saying so. Rewriting the result again gives the same bytes.
    Raises InputError when the definition can't be rewritten (see refusals.py) or prefixes do not
    fit, ConflictError when a loop prefix or all host numbers are taken.
    """
    root = parse(xml)
    if network_element(root) is not root:
        raise InputError("expected <network>, got a status file; use: virsh net-dumpxml NETWORK")
    check_rewritable(root)
    asked = _Asked(loop_prefix, guest_prefix, mode, addresses, ipv6, gateway, tuple(taken))
    own = own_element(root)
    old = describe(root, own) if own else None
    draft = _fitting(_normalised(old, asked) if old else _converted(root, asked), asked)
    if root.find("forward") is None:
        draft = draft._replace(internet=NONE)
    declared = declared_hosts(old, own) if old and own else ()
    hosts, warnings = merge_hosts(root, draft, declared, prefixes_of(root, old))
    network = _with_host(draft, hosts, frozenset(occupied))
    result = rewrite(xml, root, network, hosts, old)
    return Rewritten(
        xml=result,
        network=_checked(result, network),
        reservations=hosts,
        warnings=(*warnings, *find_warnings(root, network, old)),
    )


def _normalised(old: Network, asked: _Asked) -> Network:
    """What is loopnet's already keeps what is not asked to change."""
    loop_prefix = asked.loop_prefix or old.loop_prefix
    mode = asked.mode or old.mode
    guest_prefix = asked.guest_prefix or old.guest_prefix
    if asked.guest_prefix is None and NATIVE in (mode, old.mode):
        guest_prefix = loop_prefix if mode == NATIVE else _default_guest_prefix(old, loop_prefix)
    draft = old._replace(
        mode=mode,
        loop_prefix=loop_prefix,
        guest_prefix=guest_prefix,
        gateway=old.gateway if asked.gateway is None else asked.gateway,
        addresses=asked.addresses or old.addresses,
    )
    if asked.ipv6:
        draft = _with_ipv6(draft, asked.ipv6)
    if draft.host == draft.gateway or draft.host not in draft.guest_numbers:
        draft = draft._replace(host=0)
    return draft


def _default_guest_prefix(old: Network, loop_prefix: IPv4Network) -> IPv4Network:
    return default_guest_prefix(loop_prefix) if old.mode == NATIVE else old.guest_prefix


def _converted(root: Element, asked: _Asked) -> Network:
    """What was not loopnet's: its prefix becomes the guest prefix, its address the gateway."""
    name = check_name(root.findtext("name"))
    address, prefix = ipv4_address(name, ipv4_elements(root)[0])
    mode = asked.mode or MAPPED
    loop_prefix = _loop_prefix(name, prefix, asked)
    guest_prefix = asked.guest_prefix or (loop_prefix if mode == NATIVE else prefix)
    number = int(address) - int(prefix.network_address)
    if not 0 < number < prefix.num_addresses - 1:
        raise refusal("gateway", name=name, address=address, prefix=prefix)
    bridge, bridge_mac = bridge_of(name, root)
    draft = Network(
        name=name,
        uuid="",
        bridge=bridge,
        bridge_mac=bridge_mac,
        mode=mode,
        loop_prefix=loop_prefix,
        guest_prefix=guest_prefix,
        gateway=number if asked.gateway is None else asked.gateway,
        host=0,
        domain=domain_of(name, root),
        addresses=asked.addresses or FREE,
        ipv6_forward=_ipv6_forward(root),
        ipv6_given=ipv6_given(name, root) if _ipv6_forward(root) else (),
    )
    return _with_ipv6(draft, asked.ipv6) if asked.ipv6 else draft


def _with_ipv6(draft: Network, choice: Choice) -> Network:
    prefix = choice.of(draft.loop_prefix)
    if not (prefix or draft.ipv6):
        return draft
    return draft._replace(ipv6=prefix, ipv6_forward=NAT if prefix else "")


def _ipv6_forward(root: Element) -> str:
    """What libvirt's rules do for IPv6, in its words: networkAddRoutingFirewallRules() unless ``<nat ipv6='yes'>``;
    none in mode open. Isolated, nothing leaves whatever this says."""
    forward = root.find("forward")
    if not ipv6_elements(root) or (forward is not None and forward.get("mode", "nat") == "open"):
        return ""
    nat = None if forward is None else forward.find("nat")
    is_nat = forward is None or (nat is not None and nat.get("ipv6") == "yes")
    return NAT if is_nat else ROUTE


def _loop_prefix(name: str, prefix: IPv4Network, asked: _Asked) -> IPv4Network:
    """The loop prefix asked for, the one the network has, or a free one of the same length."""
    if asked.loop_prefix:
        return asked.loop_prefix
    length = (asked.guest_prefix or prefix).prefixlen
    if length > LONGEST:
        raise refusal("long", name=name, prefix=prefix)
    if length < SHORTEST:
        raise refusal("short", name=name, prefix=prefix)
    if prefix.subnet_of(LOOPBACK):
        if asked.mode != NATIVE and not asked.guest_prefix:
            raise refusal("loopback", name=name, prefix=prefix)
        return prefix
    others = [taken for other, taken in asked.taken if other != name]
    return free_loop_prefix(length, others)


def _fitting(draft: Network, asked: _Asked) -> Network:
    """``draft``, if its prefixes and gateway fit each other and the other networks."""
    if draft.mode not in MODES:
        raise InputError(f"mode {shown(draft.mode)} is unknown; use {' or '.join(MODES)}")
    if draft.addresses not in ADDRESSES:
        raise InputError(f"addresses {shown(draft.addresses)} is unknown; use {' or '.join(ADDRESSES)}")
    check_guest_prefix(draft.guest_prefix, check_loop_prefix(draft.loop_prefix), draft.mode)
    check_overlap(draft.name, draft.loop_prefix, asked.taken)
    host_number(draft.name, "gateway", str(draft.gateway), draft.loop_prefix)
    return draft


def _with_host(draft: Network, hosts: Iterable[Reservation], occupied: frozenset[int]) -> Network:
    """``draft`` with the host number it has, or the last usable one that no guest has."""
    if draft.host:
        return draft
    used = {draft.gateway, *occupied, *(host.number for host in hosts)}
    for number in reversed(draft.guest_numbers):
        if number not in used:
            return draft._replace(host=number)
    raise PoolFullError(
        f"network {draft.name}: its guests have every address of {draft.guest_prefix}, and the "
        "host needs one; remove a <host> that is no longer needed"
    )


def _checked(result: bytes, wanted: Network) -> Network:
    """Read back what was written: a hook will refuse what does not come out the same."""
    definition = definition_of(result)
    network = network_of(definition)
    if network is None or missing_options(definition, network):
        raise VerifyError(f"network {wanted.name}: the rewritten XML is incomplete; report this bug")
    if network._replace(uuid=wanted.uuid) != wanted:
        raise VerifyError(f"network {wanted.name}: the rewritten XML differs; report this bug")
    return network
