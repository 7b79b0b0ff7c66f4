"""The values everything else passes around: immutable, typed, without I/O.

NamedTuple, not dataclass: importing dataclasses costs more than starting Python, and these are
on the path of every hook.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from .prefixes import transit_prefix
from .records import NamedTuple

MAPPED = "mapped"
NATIVE = "native"
MODES = (MAPPED, NATIVE)

ALL = "all"
SERVICES = "services"
NONE = "none"
GUEST_TO_HOST = (ALL, SERVICES, NONE)
"""What guests may begin with the host: as on libvirt's NAT network all that its firewall allows; DHCP,
DNS and ping; or DHCP alone, without which they would have no address."""

FREE = "free"
OWN = "own"
ADDRESSES = (FREE, OWN)
"""Which addresses a NIC may use beside those that are reserved for its domain: any that nobody has reserved, as
on any network; or none."""


INTERNET = (ALL, NONE)
"""What guests may reach beyond the host and each other: whatever the host does, or nothing."""

NAT = "nat"
ROUTE = "route"
IPV6_FORWARD = (NAT, ROUTE)
"""How IPv6 leaves the host, and comes in, in libvirt's words: masqueraded, and nothing new comes in; or both ways
as it is."""


class Network(NamedTuple):
    """A libvirt network that is ours, as its XML describes it.

    Host number n stands for one guest in three prefixes of the same length: ``loop_address(n)``
    on the host, ``guest_address(n)`` on the guest's wire, ``transit_address(n)`` in the host's IP stack.
    """

    name: str
    uuid: str
    bridge: str
    """Bridge device; '' in a definition that libvirt has not completed yet."""
    bridge_mac: str
    """MAC address libvirt gives the bridge, lower case; '' likewise."""
    mode: str
    loop_prefix: IPv4Network
    guest_prefix: IPv4Network
    gateway: int
    """Host number of what guests see as router, DNS and DHCP server."""
    host: int
    """Host number of the host on the bridge, libvirt's ``<ip address>``."""
    domain: str
    """DNS domain of the guests' names."""
    guest_to_host: str = ALL
    addresses: str = FREE
    internet: str = ALL
    ipv6: IPv6Network | None = None
    """The prefix that loopnet gives it in IPv6, a /64."""
    ipv6_forward: str = ""
    """'' where IPv6 is none of loopnet's: it has no prefix, and what libvirt gives it was let through before."""
    ipv6_given: tuple[IPv6Interface, ...] = ()
    """The bridge's addresses, and prefixes, that libvirt gives it (``<ip family='ipv6'>``), if their rules are ours."""

    @property
    def transit_prefix(self) -> IPv4Network:
        return transit_prefix(self.loop_prefix)

    def loop_address(self, number: int) -> IPv4Address:
        return self.loop_prefix.network_address + number

    def guest_address(self, number: int) -> IPv4Address:
        return self.guest_prefix.network_address + number

    def transit_address(self, number: int) -> IPv4Address:
        return self.transit_prefix.network_address + number

    def ipv6_address(self, number: int) -> IPv6Address | None:
        """The address with ``number`` as its interface ID, None where the network has no prefix."""
        return self.ipv6.network_address + number if self.ipv6 else None

    @property
    def ipv6_prefixes(self) -> tuple[IPv6Network, ...]:
        """All IPv6 prefixes whose rules are ours; none without."""
        return (self.ipv6,) if self.ipv6 else tuple(given.network for given in self.ipv6_given)

    @property
    def ipv6_own(self) -> tuple[IPv6Address, ...]:
        """The host's addresses in them."""
        gateway = self.ipv6_address(self.gateway)
        return (gateway,) if gateway else tuple(given.ip for given in self.ipv6_given)

    @property
    def own_transit(self) -> list[IPv4Address]:
        """The transit addresses that are the host's: the gateway, and a native network's DNS server."""
        numbers = [self.gateway] + ([self.host] if self.mode == NATIVE else [])
        return [self.transit_address(number) for number in numbers]

    def number(self, address: IPv4Address) -> int | None:
        """The host number of ``address`` in the loop or guest prefix, None if it is in neither."""
        for prefix in (self.loop_prefix, self.guest_prefix):
            if address in prefix:
                return int(address) - int(prefix.network_address)
        return None

    @property
    def guest_numbers(self) -> range:
        """Host numbers from the first to the last usable; gateway and host are among them."""
        return range(1, self.loop_prefix.num_addresses - 1)


PROTOCOLS = ("tcp", "udp")
ANY_ADDRESS = IPv4Address("0.0.0.0")
LOCALHOST = IPv4Address("127.0.0.1")
EVERYBODY = IPv4Network("0.0.0.0/0")


class Publication(NamedTuple):
    """A port of a guest that others than the host may reach, at a port of the host."""

    protocol: str
    address: IPv4Address
    """Of the host; ANY_ADDRESS for all that it has."""
    port: int
    """The host's."""
    guest_port: int
    size: int = 1
    """So many ports, one after the other, from these on."""
    clients: IPv4Network | IPv6Network = EVERYBODY
    """Who may: addresses as the host sees them, guests by their loop addresses in IPv4. The host itself always may.
    Some of IPv4 may in IPv4 alone, some of IPv6, or all of it, in IPv6 alone."""

    def __lt__(self, other: tuple[object, ...]) -> bool:
        """Addresses of two families have no order of their own."""
        return self._order < other._order if isinstance(other, Publication) else NotImplemented

    @property
    def _order(self) -> tuple[object, ...]:
        return (*self[:-1], self.clients.version, self.clients)

    @property
    def is_ipv4(self) -> bool:
        """Is there anybody who may in IPv4?"""
        return self.clients.version == 4

    @property
    def is_ipv6(self) -> bool:
        """Is there anybody who may in IPv6?"""
        return not self.is_ipv4 or (self.clients == EVERYBODY and self.address == ANY_ADDRESS)

    @property
    def ports(self) -> range:
        """All of the host's."""
        return range(self.port, self.port + self.size)

    @property
    def pairs(self) -> Iterable[tuple[int, int]]:
        """Each port of the host, and the guest's that it leads to."""
        return zip(self.ports, range(self.guest_port, self.guest_port + self.size))

    @property
    def texts(self) -> tuple[str, str, str]:
        """Ports of the host, ports of the guest, and the protocol."""
        host, guest = (
            f"{first}-{first + self.size - 1}" if self.size > 1 else str(first)
            for first in (self.port, self.guest_port)
        )
        return host, guest, self.protocol

    def __str__(self) -> str:
        """As it is given to ``loopnet publish``."""
        address = "" if self.address == ANY_ADDRESS else f"{self.address}:"
        clients = "" if self.clients == EVERYBODY else f"@{self.clients}"
        host, guest, protocol = self.texts
        return f"{address}{host}:{guest}/{protocol}{clients}"


class Published(NamedTuple):
    """A publication, and the guest that it leads to."""

    network: str
    number: int
    publication: Publication
    taken: tuple[int, ...] = ()
    """Ports among it that stay a program's at localhost."""


class Reservation(NamedTuple):
    """A host number kept for a NIC for good."""

    number: int
    mac: str
    """MAC address of the NIC, lower case with colons."""
    uuid: str
    """UUID of the domain, '' when reserved by hand for a MAC address."""
    name: str
    """The guest's name as a DNS label, unique in its network; '' when it has none."""
    published: tuple[Publication, ...] = ()
    """Sorted, as what follows."""
    also: tuple[int, ...] = ()
    """Further host numbers that are kept for it alone."""
    shared: tuple[int, ...] = ()
    """Those that it may hold in turn with other NICs, which have them here as well."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """All of them."""
        return (self.number, *self.also, *self.shared)


class Port(NamedTuple):
    """A live NIC, as libvirt's record of network ports says, or a note of ours where libvirt has no port for it.

    While a NIC is updated it has two (virsh domif-setlink, update-device), and so it has when a guest has given
    two NICs one MAC address: a NIC is live while any port has its MAC address.
    """

    network: str
    mac: str
    owner: str
    """Domain name."""
    owner_uuid: str
    uuid: str = ""
    """The port's own, by which libvirt knows it; '' for a NIC that libvirt has no port for."""
    tap: str = ""
    """The device of a NIC without a port; by its name alone it is known."""


class Guest(NamedTuple):
    """A live NIC with its host number: what the data plane admits."""

    network: str
    mac: str
    number: int
    name: str
    """The guest's DNS label, '' when it has none."""
    also: tuple[int, ...] = ()
    """Further ones, and those of its domain's other NICs on the network: the NICs of a domain are one sender."""


class Binding(NamedTuple):
    """The tap that a live NIC is attached to."""

    network: str
    tap: str
    mac: str
    number: int
    also: tuple[str, ...] = ()
    """MAC addresses of its domain's other NICs on the network; a bond sends with one of them by any tap."""


class Options(NamedTuple):
    """What /etc/libvirt-loopnet.conf says."""

    lo: str = "shrink"
    """'shrink': 127.0.0.1/8 becomes /16 while a network is up; 'keep': lo is left alone."""
    names: str = "hosts"
    """'hosts': guests' names stand in /etc/hosts while they run; 'off'."""
    lease_addresses: str = "loop"
    """Which addresses libvirt lists for the guests' leases: 'loop' or 'guest'."""
    move: tuple[tuple[str, str], ...] = ()
    """(from, to) network names: guests restored or migrated here move from one to the other."""
    open_firewalls: tuple[str, ...] = ()
    """Tables of others in nft, each as family and name, that may get accepts of ours."""
