"""``<dhcp>`` of a loopnet network, as ``virsh net-update`` and tools like Terraform fill it.

libvirt knows nothing of loopnet, so what ``<host>`` asks for is kept as reservations of ours. Expat only.
"""

from __future__ import annotations

from ..addresses.labels import dns_label
from ..errors import InputError
from ..model import Network, Reservation
from ..records import NamedTuple
from ..validation import check_mac, shown
from ..xml.tree import Element
from .elements import ipv4_elements, place
from .parsing import Definition, definition_of


class Problem(NamedTuple):
    """What loopnet can't follow."""

    what: str
    command: str
    """What takes it out again; with --live or --config, or both, where it is in one that runs."""

    def __str__(self) -> str:
        return f"{self.what}; remove it: {self.command}"


class Static(NamedTuple):
    """What the ``<dhcp>`` of a definition asks for."""

    hosts: tuple[Reservation, ...] = ()
    problems: tuple[Problem, ...] = ()

    def number(self, mac: str) -> int | None:
        """The host number for the NIC ``mac``, None if any will do."""
        return next((host.number for host in self.hosts if host.mac == mac), None)


def static_in(data: bytes, network: Network) -> Static:
    """static_of() what a file has, which may be empty."""
    return static_of(definition_of(data), network) if b"<dhcp" in data else Static()


def static_of(definition: Definition, network: Network) -> Static:
    """The ``<dhcp>`` in the ``definition`` of ``network``; a ``<host>`` by either of its addresses."""
    hosts: list[Reservation] = []
    problems: list[Problem] = []
    for dhcp in (dhcp for ip in ipv4_elements(definition) for dhcp in ip.findall("dhcp")):
        problems += [_range(network, given) for given in dhcp.findall("range")]
        for host in dhcp.findall("host"):
            try:
                hosts.append(_reservation(network, host))
            except InputError as error:
                text = f"<host ip='{host.get('ip')}'/>"
                problems.append(Problem(str(error), _delete(network, "host", text)))
    return Static(tuple(hosts), tuple(problems))


def padded_mac(mac: str) -> str:
    """libvirt's virMacAddrParse takes 0:16:3e:… for 00:16:3e:…"""
    return ":".join(part.zfill(2) for part in mac.split(":"))


def _range(network: Network, given: Element) -> Problem:
    text = f"<range start='{given.get('start')}' end='{given.get('end')}'/>"
    what = f"network {network.name}: {text} has no effect, since each NIC has an address of its own"
    return Problem(what, _delete(network, "range", text))


def _reservation(network: Network, host: Element) -> Reservation:
    address, mac = host.get("ip"), host.get("mac")
    what = f"network {network.name}: <host ip={shown(address)}>"
    if not mac:
        raise InputError(f"{what} has no MAC address to know its guest by")
    number = place(address, (network.loop_prefix, network.guest_prefix))
    if number is None:
        raise InputError(f"{what} is in neither {network.loop_prefix} nor {network.guest_prefix}")
    if number not in network.guest_numbers or number in (network.gateway, network.host):
        raise InputError(f"{what} is the network's own address")
    return Reservation(number, check_mac(what, padded_mac(mac)), "", dns_label(host.get("name")))


def _delete(network: Network, what: str, xml: str) -> str:
    return f'virsh net-update {network.name} delete ip-dhcp-{what} "{xml}"'
