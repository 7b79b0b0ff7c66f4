"""Tables of others in nft that would drop what our networks need, and what to do about it. Pure.

openings.py speaks to iptables and firewalld. A table written by hand or by a VPN's client belongs to
whoever wrote it: nothing is put into it unless the user says so (opened_tables.py), but ``loopnet doctor`` names the
chain, the rule and a command. Found by walking sample packets through the rules. What isn't understood counts
as not matching: better a drop that is missed than one that is made up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from ipaddress import IPv4Address

from ..model import NATIVE, NONE, Network
from ..records import NamedTuple
from ..ruleset.tables import IPV6_TABLE, TABLES
from .walk import Fate, Packet, Rules, is_early
from .ways import ELSEWHERE, EVERYWHERE, Ways

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .walk import Json, Place

_ANYWHERE = IPv4Address("9.9.9.9")
CLIENT = 40000
REPLY = "ct state established,related"


class Obstacle(NamedTuple):
    """Something on the host that is in the way."""

    where: str
    """Family, table and chain."""
    rule: str
    breaks: tuple[str, ...]
    mend: tuple[str, ...]
    """Commands that put it right until the table is loaded anew; they open no more than ``ways`` do. None where the
    chain runs too early to tell answers from new connections."""
    table: str = ""
    """Family and table, if the user may name it in ``open-firewalls``."""


class Foreign(NamedTuple):
    """What tables of others do to our networks."""

    obstacles: tuple[Obstacle, ...] = ()
    ways: Ways = EVERYWHERE
    """By which devices guests' traffic may leave at most, since the host's own does by no others."""
    tables: frozenset[str] = frozenset()
    """All there are, each as family and name."""
    owned: frozenset[str] = frozenset()
    """Those in the way that nobody may change but the program that they belong to."""
    around: str = ""
    """The device by which guests get out though the host's own traffic does not; '' for none."""
    unread: frozenset[str] = frozenset()
    """Tables whose rules nft can't tell."""
    ways6: Ways = EVERYWHERE
    """As ``ways``, of IPv6, where guests and host have a way out."""
    around6: str = ""
    """As ``around``."""


class Drop(NamedTuple):
    """A base chain drops packets."""

    place: Place
    handle: int
    """Of the rule that does, in this chain or one it leads to; 0: the policy."""
    packets: tuple[Packet, ...]
    hook: str
    entry: int
    """The handle of the chain's own rule that leads there; 0: the policy."""
    six: bool = False
    """These are of IPv6."""
    early: bool = False
    """The chain sees packets before conntrack."""

    @property
    def late(self) -> bool:
        """Does an accept have to come right before what drops? What leaves the host is for all rules to judge,
        what stays on it is between guests and us."""
        return self.hook in ("forward", "postrouting")

    @property
    def insert(self) -> str:
        """nft's words for where an accept goes."""
        where = " ".join(self.place)
        if not self.late:
            return f"insert rule {where}"
        return f"insert rule {where} handle {self.entry}" if self.entry else f"add rule {where}"

    @property
    def matches(self) -> list[str]:
        """nft's words for all that an accept can tell from others there."""
        told = (packet.match for packet in self.packets if not (self.early and REPLY in packet.match))
        return [*dict.fromkeys(told)]

    def obstacle(self, rule: str) -> Obstacle:
        """``rule`` is the rule's text."""
        where = " ".join(self.place)
        mend = tuple(f"nft {self.insert} {match} accept" for match in self.matches)
        family = " by IPv6" if self.six else ""
        breaks = tuple(dict.fromkeys(f"{packet.what}{family}" for packet in self.packets))
        return Obstacle(where, rule, breaks, mend, " ".join(self.place[:2]))


def packets(
    networks: Iterable[Network],
    uplink: str,
    bridged: bool,
    published: Collection[str] = (),
    ways: Ways = EVERYWHERE,
) -> list[Packet]:
    """What must pass for ``networks``; ``uplink`` is the device of the default route, '' for none.

    ``bridged``: br_netfilter shows rules for IP what goes from guest to guest. ``published`` names the
    networks that have published ports: where the host's own traffic may leave by some ``ways`` only, the LAN
    gets no answers from guests.
    """
    found: list[Packet] = []
    for network in networks:
        found += [*_to_host(network), *_from_host(network)]
        if network.internet != NONE:
            found += _internet(network, uplink) if not ways.limited else _by_ways(network, uplink, ways)
        found += _among_guests(network) if bridged else ()
        if uplink and network.name in published and not ways.limited:
            found.append(_from_lan(network, uplink))
    return found


def around(filters: Iterable[Rules], networks: Iterable[Network], uplink: str, ways: Ways) -> str:
    """``uplink``, if guests' traffic gets out by it while ``ways`` keep the host's own from it: whoever wrote these
    rules had no guests in mind."""
    outs = [next(iter(_by_way(network, uplink, ""))) for network in networks if network.internet != NONE]
    return uplink if uplink and not ways.lets_out(uplink) and is_any_let_out(filters, outs) else ""


def is_any_let_out(filters: Iterable[Rules], outs: Sequence[Packet]) -> bool:
    """Is there a packet among ``outs`` that no base chain is known to drop?"""
    by_family = {
        six: [
            (rules, place, chain)
            for rules in filters
            for place, chain in rules.base_chains(six)
            if place[:2] not in (*TABLES, IPV6_TABLE)
        ]
        for six in {out.six for out in outs}
    }
    return any(
        not any(
            c["hook"] in out.hooks and rules.dropping(place, c, out) for rules, place, c in by_family[out.six]
        )
        for out in outs
    )


NO_DHCP, NO_DNS, NO_PING = "guests get no DHCP", "guests get no DNS", "guests can't ping the gateway"
NO_GUEST, NO_INTERNET = "the host doesn't reach guests", "guests don't reach the internet"
NOT_AMONG = "guests don't reach each other"
NO_LAN = "the LAN doesn't reach published ports"
_NOBODY, _EVERYBODY = IPv4Address("0.0.0.0"), IPv4Address("255.255.255.255")


def _to_host(network: Network) -> Iterable[Packet]:
    hooks, bridge, transit = ("prerouting", "input"), network.bridge, network.transit_prefix
    guest, own = network.transit_address(guest_of(network)), network.own_transit[-1]
    dhcp, by_guest = f'iifname "{bridge}" udp dport 67', f'iifname "{bridge}" ip saddr {transit}'
    by_guest += f" ip daddr {{ {', '.join(map(str, network.own_transit))} }}"
    dns = f"{by_guest} meta l4proto {{ tcp, udp }} th dport 53"
    yield Packet(NO_DHCP, hooks, dhcp, bridge, "", _NOBODY, _EVERYBODY, "udp", (68, 67))
    yield Packet(NO_DNS, hooks, dns, bridge, "", guest, own, "udp", (CLIENT, 53))
    yield Packet(NO_PING, hooks, f"{by_guest} meta l4proto icmp", bridge, "", guest, own, "icmp", (0, 0))
    loop_guest, loop_host = network.loop_address(guest_of(network)), network.loop_address(network.host)
    renewing, server = (loop_guest, loop_host) if network.mode == NATIVE else (guest, own)
    yield Packet(NO_DHCP, hooks, dhcp, bridge, "", renewing, server, "udp", (68, 67))
    # No ct state: in a chain ahead of conntrack it isn't known yet, and table ip loopnet looks at it.
    reply = f'iifname "{bridge}" ip saddr {network.loop_prefix}'
    ports = (22, CLIENT)
    yield Packet(NO_GUEST, hooks, reply, bridge, "", loop_guest, loop_host, "tcp", ports, "established")


def _from_host(network: Network) -> Iterable[Packet]:
    hooks, bridge = ("output", "postrouting"), network.bridge
    guest, own = network.loop_address(guest_of(network)), network.loop_address(network.host)
    match = f'oifname "{bridge}" ip daddr {{ {network.loop_prefix}, {network.transit_prefix} }}'
    yield Packet(NO_GUEST, hooks, match, "", bridge, own, guest, "tcp", (CLIENT, 22))
    gateway, match = network.guest_address(network.gateway), f'oifname "{bridge}" udp sport 67'
    yield Packet(NO_DHCP, hooks, match, "", bridge, gateway, _EVERYBODY, "udp", (67, 68))


def _internet(network: Network, uplink: str) -> Iterable[Packet]:
    if not uplink:
        return
    bridge, transit = network.bridge, network.transit_prefix
    guest, all_hooks = network.transit_address(guest_of(network)), ("prerouting", "forward", "postrouting")
    match, ports = f'iifname "{bridge}" ip saddr {transit}', (CLIENT, 443)
    yield Packet(NO_INTERNET, all_hooks, match, bridge, uplink, guest, _ANYWHERE, "tcp", ports)
    # In prerouting it is still on its way to the host, whose address the guest had borrowed.
    hooks, match, ports = all_hooks[1:], f'oifname "{bridge}" ip daddr {transit} {REPLY}', (443, CLIENT)
    yield Packet(NO_INTERNET, hooks, match, uplink, bridge, _ANYWHERE, guest, "tcp", ports, "established")


def _by_ways(network: Network, uplink: str, ways: Ways) -> Iterable[Packet]:
    """Out, and answers back, only where the host's own traffic goes: told in hooks that know the device."""
    for device, there in devices(uplink, ways):
        yield from _by_way(network, device, there)


def devices(uplink: str, ways: Ways) -> Iterable[tuple[str, str]]:
    """(a device by which the host's own traffic goes, how nft tells it, with DIR for iifname or oifname)."""
    if ways.elsewhere:
        device = uplink if uplink and ways.lets_out(uplink) else ELSEWHERE
        yield device, " ".join(f'DIR != "{name}"' for name in ways.closed)
        return
    for name in ways.open:
        yield name, f'DIR "{name}"'


def directions(there: str) -> tuple[str, str]:
    """nft's words for out by a device, and in by it, from what devices() has."""
    return there.replace("DIR", "oifname"), there.replace("DIR", "iifname")


def _by_way(network: Network, device: str, there: str) -> Iterable[Packet]:
    """``there`` as in devices()."""
    hooks, bridge, transit = ("forward", "postrouting"), network.bridge, network.transit_prefix
    to, back = directions(there)
    guest = network.transit_address(guest_of(network))
    match, ports = f'iifname "{bridge}" {to} ip saddr {transit}', (CLIENT, 443)
    yield Packet(NO_INTERNET, hooks, match, bridge, device, guest, _ANYWHERE, "tcp", ports)
    match, ports = f'{back} oifname "{bridge}" ip daddr {transit} {REPLY}', (443, CLIENT)
    yield Packet(NO_INTERNET, hooks, match, device, bridge, _ANYWHERE, guest, "tcp", ports, "established")


def _among_guests(network: Network) -> Iterable[Packet]:
    bridge, guest = network.bridge, guest_of(network)
    here, there = network.guest_address(guest), network.guest_address(guest + 1)
    for hook, out in (("prerouting", ""), ("forward", f' oifname "{bridge}"')):
        match = f'iifname "{bridge}"{out} ip saddr {network.guest_prefix}'
        yield Packet(NOT_AMONG, (hook,), match, bridge, bridge, here, there, "tcp", (CLIENT, 22))


def _from_lan(network: Network, uplink: str) -> Packet:
    hooks, bridge, guest = (
        ("forward", "postrouting"),
        network.bridge,
        network.transit_address(guest_of(network)),
    )
    match, ports = f'oifname "{bridge}" ip daddr {network.transit_prefix} ct status dnat', (CLIENT, 80)
    return Packet(NO_LAN, hooks, match, uplink, bridge, _ANYWHERE, guest, "tcp", ports, status="dnat")


def guest_of(network: Network) -> int:
    """The number of some guest."""
    return next(n for n in network.guest_numbers if n not in (network.host, network.gateway))


def drops(rules: Rules, packets: Sequence[Packet], known: Iterable[Place] = ()) -> list[Drop]:
    """Base chains that would drop some of ``packets``, but for ours and those ``known``."""
    skipped = {*known}
    found: dict[tuple[Place, Fate, bool], list[Packet]] = {}
    chains: dict[Place, Json] = {}
    both = [(six, *each) for six in (False, True) for each in rules.base_chains(six)]
    for six, place, chain in both:
        if place in skipped or place[:2] in (*TABLES, IPV6_TABLE):
            continue
        chains[place] = chain
        for packet in packets:
            passing = packet.six == six and chain["hook"] in packet.hooks
            fate = rules.dropping(place, chain, packet) if passing else None
            if fate is not None:
                found.setdefault((place, fate, six), []).append(packet)
    return [
        Drop(place, fate.handle, tuple(hit), chains[place]["hook"], fate.entry, six, is_early(chains[place]))
        for (place, fate, six), hit in found.items()
    ]
