"""What doctor.py goes by, what was seen on the host, and what it makes of that."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from ..errors import Hindrance
from ..firewalls.obstacles import Foreign
from ..model import Network, Publication
from ..networks.dhcp import Problem
from .dropped import Dropped

ERROR, WARNING, NOTE = "error", "warning", "note"


class Finding(NamedTuple):
    """One thing in the way."""

    id: str
    level: str
    what: str
    consequence: str
    command: str


class Listener(NamedTuple):
    """A local socket that waits for others."""

    protocol: str
    address: IPv4Address | IPv6Address
    port: int


class Daemon(NamedTuple):
    """A running libvirt daemon."""

    name: str
    pid: int
    older_than_hooks: bool


class Facts(NamedTuple):
    """What was seen on the host."""

    networks: tuple[Network, ...] = ()
    """Active ones."""
    missing_programs: tuple[str, ...] = ()
    old: tuple[tuple[str, str], ...] = ()
    """(program, what says that it is too old)."""
    nft_refusal: str = ""
    """Why nft or the kernel doesn't take our rules; '' if it does."""
    unfit: tuple[tuple[str, str], ...] = ()
    """(network, why it can't start as it is defined)."""
    problems: tuple[Problem, ...] = ()
    """What stands in <dhcp> of our networks and can't be followed."""
    hooks: tuple[tuple[str, str], ...] = ()
    """(driver, state) of each installed hook that isn't in order."""
    daemons: tuple[Daemon, ...] = ()
    ip_forward: bool = True
    ipv6_off: bool = False
    """The host has no IPv6, or it is switched off."""
    ipv6_built_in: bool = True
    """The kernel has IPv6, be it switched off; not so with ipv6.disable=1."""
    ipv6_learned: tuple[str, ...] = ()
    """Devices by which the kernel has learned a default route that it would lose if it forwarded."""
    lo_managers: tuple[str, ...] = ()
    """Programs that run and may bring lo's /8 back."""
    networkd_bridges: tuple[tuple[str, str], ...] = ()
    """(bridge of ours, .network file by which systemd-networkd configures it)."""
    lo_option: str = "shrink"
    guest_leases: tuple[tuple[str, Hindrance], ...] = ()
    """(network, why libvirt lists the addresses its guests see, against the configuration)."""
    rivals: tuple[tuple[str, str], ...] = ()
    """(network that is not up, program with the port that its dnsmasq needs)."""
    selinux_hooks: bool = True
    """False where SELinux is enforced and keeps hooks confined."""
    listeners: tuple[Listener, ...] = ()
    addresses: tuple[tuple[str, IPv4Address], ...] = ()
    """(device, address) of all but our bridges."""
    foreign: Foreign = Foreign()  # it can't be changed
    open_firewalls: tuple[str, ...] = ()
    """Tables of nft that may be opened."""
    firewall_problems: tuple[str, ...] = ()
    """One line for each other firewall that could not be spoken to."""
    drift: tuple[str, ...] = ()
    unplugged: tuple[tuple[str, str], ...] = ()
    """(what is said of a running guest that is not plugged into its network, the command)."""
    links_down: tuple[tuple[str, str], ...] = ()
    """(what is said of a NIC whose link libvirt has down, the command)."""
    untold: tuple[tuple[str, str], ...] = ()
    """(what is said of a NIC on a bridge of ours that is not let in, the command)."""
    published: tuple[tuple[str, Publication, bool], ...] = ()
    """(guest, what of it, whether its network has IPv6) of active networks."""
    broken_state: tuple[str, ...] = ()
    """One line for each file of ours that can't be read."""
    dropped: tuple[Dropped, ...] = ()
