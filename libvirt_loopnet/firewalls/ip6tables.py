"""What ip6tables has to be told, as openings.py has it for iptables, for networks whose IPv6 rules are ours. Pure.

firewalld's zone is for both families; tables of nft are not opened for IPv6, so that where a VPN lets nothing out
but by its tunnel, nothing of guests gets out in IPv6 at all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from ..ipv6 import LINK_LOCAL
from ..model import NONE, ROUTE, Network
from .openings import REPLIES, Order, device, fill

IP6TABLES = ("ip6tables-nft", "ip6tables-legacy")


def orders6(
    saved: Iterable[tuple[str, str]], networks: Sequence[Network], bridges: Collection[str]
) -> list[Order]:
    """From what ``ip6tables-save -t filter`` says, by tool, to what ``networks`` need; without any all of ours goes.

    ``bridges`` are the bridge devices there are.
    """
    six = [network for network in networks if network.ipv6_prefixes]
    rules = {"INPUT": [*_input(six)], "FORWARD": [*_forward(six)], "OUTPUT": [*_output(six)]}
    ours = {network.bridge for network in six}
    scripts = [(tool, fill(text, rules, ours, {*bridges} - ours)) for tool, text in saved]
    return [Order(tool, script) for tool, script in scripts if script]


def _input(networks: Iterable[Network]) -> Iterable[str]:
    """DHCP, DNS and ICMP, neighbour discovery among it, and answers to the host."""
    for network in networks:
        bridge = device(network)
        yield f"-i {bridge} -p ipv6-icmp -j ACCEPT"
        yield f"-i {bridge} -p udp -m udp --dport 547 -j ACCEPT"
        for address in (str(LINK_LOCAL), *(f"{own}/128" for own in network.ipv6_own)):
            yield f"-d {address} -i {bridge} -p udp -m udp --dport 53 -j ACCEPT"
            yield f"-d {address} -i {bridge} -p tcp -m tcp --dport 53 -j ACCEPT"
        yield f"-i {bridge} {REPLIES} -j ACCEPT"


def _forward(networks: Sequence[Network]) -> Iterable[str]:
    for network in networks:
        bridge = device(network)
        yield f"-i {bridge} -o {bridge} -j ACCEPT"
        yield f"-o {bridge} {REPLIES} -j ACCEPT"
        for prefix in network.ipv6_prefixes:  # which ports are published table ip6 loopnet knows
            yield f"-d {prefix} -o {bridge} -m conntrack --ctstate DNAT -j ACCEPT"
        if network.ipv6_forward == ROUTE and network.internet != NONE:
            yield from (f"-d {prefix} -o {bridge} -j ACCEPT" for prefix in network.ipv6_prefixes)
    for network in networks:
        yield f"-o {device(network)} -j RETURN"
    for network in networks:
        yield from (f"-s {prefix} -i {device(network)} -j ACCEPT" for prefix in network.ipv6_prefixes)


def _output(networks: Iterable[Network]) -> Iterable[str]:
    for network in networks:
        for destination in (*network.ipv6_prefixes, LINK_LOCAL, "ff02::/16"):
            yield f"-d {destination} -o {device(network)} -j ACCEPT"
