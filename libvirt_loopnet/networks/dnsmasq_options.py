"""The lines a loopnet network adds to the configuration of libvirt's dnsmasq."""

from __future__ import annotations

from ..errors import InputError
from ..model import FREE, MAPPED, NONE, Network
from ..validation import shown
from ..xml.tree import Element
from .elements import ipv4_elements

DNSMASQ_NAMESPACE = "http://libvirt.org/schemas/network/dnsmasq/1.0"
OPTIONS_TAG = f"{{{DNSMASQ_NAMESPACE}}}options"
OPTION_TAG = f"{{{DNSMASQ_NAMESPACE}}}option"
DIRECTORY = "/var/lib/libvirt/dnsmasq"
"""Where libvirt's dnsmasq may read, by AppArmor and SELinux."""


RA_INTERVAL = 60
"""Seconds between router advertisements: so long may it take until guests know of a way out, or that it is gone."""


def hosts_directory(name: str) -> str:
    """The directory from which dnsmasq reads the reservations of network ``name``, live."""
    return f"{DIRECTORY}/{name}.loopnet"


def lease_option(name: str) -> str:
    """Where dnsmasq finds the lease script of network ``name`` (host/leases.py writes that file).

    Where there is no hook to write it, dnsmasq doesn't start, and so the network doesn't: its guests would get
    nothing. A network without the option starts, and libvirt lists its guest addresses, which is what
    definitions of former releases do.
    """
    return f"conf-file={DIRECTORY}/{name}.loopnet-dnsmasq"


def dnsmasq_options(network: Network) -> tuple[str, ...]:
    """The ``<dnsmasq:option value=…>`` a loopnet network needs, in dnsmasq 2.90's syntax.

    There is no dhcp-leasefile: libvirt runs dnsmasq with --leasefile-ro, which opens none.
    """
    prefix = network.guest_prefix
    options: tuple[str, ...] = (
        f"dhcp-range={prefix.network_address},static,{prefix.netmask}",
        f"dhcp-hostsdir={hosts_directory(network.name)}",
        # /etc/hosts has our names with loop addresses, which are nothing to a guest
        "no-hosts",
        f"addn-hosts={hosts_directory(network.name)}-hosts",
        "dhcp-authoritative",
        # an answer by unicast would go to an address that is on no interface of the host
        "dhcp-broadcast",
        # a ping to the guest prefix may ask the LAN, and holds the answer up for three seconds
        "no-ping",
    )
    if network.internet == NONE:  # as libvirt has it for isolated networks: DNS is a way out, too
        options = (*options, "no-resolv")
    if network.mode == MAPPED and network.internet == NONE:  # a second NIC's router is the only one
        options = (*options, "dhcp-option=3")
    if network.mode != MAPPED:
        options = (
            *options,
            f"dhcp-option=option:router,{network.guest_address(network.gateway)}",
            # NetworkManager and systemd-networkd drop DNS servers in 127/8
            f"dhcp-option=option:dns-server,{network.transit_address(network.host)}",
        )
    return (*options, lease_option(network.name))


def ipv6_options(network: Network) -> tuple[str, ...]:
    """What dnsmasq is told of IPv6 where the host has it, in the file that lease_option() names.

    Not in the definition, as dnsmasq would not start where the kernel has no IPv6. Guests that ask get the
    address that is reserved for them; where addresses are free, any guest makes others by itself (SLAAC).
    Router lifetime 0: here is no way out (RFC 4861, 6.2.3); where there is one, our rules change it
    (ruleset/ipv6_bridge.py), since dnsmasq reads this once.
    """
    if not network.ipv6:
        return ()
    kinds = "static,slaac" if network.addresses == FREE else "static"
    return (
        "enable-ra",
        f"dhcp-range={network.ipv6.network_address},{kinds},{network.ipv6.prefixlen}",
        f"ra-param={network.bridge},{RA_INTERVAL},0",
    )


def tftp_options(definition: Element) -> tuple[str, ...]:
    """What dnsmasq is told of the definition's ``<tftp>``, in the file that lease_option() names.

    libvirt 8.0 writes it only for a prefix with <range> or <host>. Newer ones write it, too, and dnsmasq takes it
    twice; so this is not in the definition, where it would outlive the element. Raises InputError.
    """
    first = [ip.find("tftp") for ip in ipv4_elements(definition)]  # libvirt looks at no other
    roots = [tftp.get("root", "") for tftp in first if tftp is not None]
    for root in roots:
        if not (root.startswith("/") and root.isprintable()):
            raise InputError(
                f"network {definition.findtext('name')}: <tftp root={shown(root)}>: that is no path of a directory; "
                "change it with: virsh net-edit"
            )
    return tuple(line for root in roots for line in ("enable-tftp", f"tftp-root={root}"))


def given_options(network: Element) -> tuple[str, ...]:
    """The dnsmasq options in a ``<network>`` element, in order."""
    return tuple(
        option.get("value")
        for options in network.findall(OPTIONS_TAG)
        for option in options.findall(OPTION_TAG)
    )
