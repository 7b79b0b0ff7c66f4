"""What ip6tables has to be told, as openings.py has it for iptables, for networks whose IPv6 rules are ours. Pure.

firewalld's zone is for both families.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from ..ipv6 import LINK_LOCAL
from ..model import NONE, ROUTE, Network
from .openings import REPLIES, device, fill, forward

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .ways import Ways


def scripts6(
    saved: Iterable[tuple[str, str]],
    networks: Sequence[Network],
    bridges: Collection[str],
    ways: Ways | None,
) -> list[tuple[str, str]]:
    """From what ``ip6tables-save -t filter`` says, by tool, to what ``networks`` need, '' for nothing; without any all
    of ours goes.

    ``bridges`` are the bridge devices there are; guests are let out by ``ways`` only, if given.
    """
    six = [network for network in networks if network.ipv6_prefixes]
    rules = {"INPUT": [*_input(six)], "FORWARD": [*_forward(six, ways)], "OUTPUT": [*_output(six)]}
    ours = {network.bridge for network in six}
    return [(tool, fill(text, rules, ours, {*bridges} - ours)) for tool, text in saved]


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


def _forward(networks: Sequence[Network], ways: Ways | None) -> Iterable[str]:
    if not (ways and ways.limited):
        yield from _inwards(networks)
    yield from forward([(device(network), "", network.ipv6_prefixes) for network in networks], ways)


def _inwards(networks: Iterable[Network]) -> Iterable[str]:
    """To published ports, which table ip6 loopnet knows, and to what libvirt routed."""
    for network in networks:
        for prefix in network.ipv6_prefixes:
            to = f"-d {prefix} -o {device(network)}"
            yield f"{to} -m conntrack --ctstate DNAT -j ACCEPT"
            if network.ipv6_forward == ROUTE and network.internet != NONE:
                yield f"{to} -j ACCEPT"


def _output(networks: Iterable[Network]) -> Iterable[str]:
    for network in networks:
        for destination in (*network.ipv6_prefixes, LINK_LOCAL, "ff02::/16"):
            yield f"-d {destination} -o {device(network)} -j ACCEPT"
