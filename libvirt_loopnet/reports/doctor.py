"""What on a host gets in the way of loopnet: facts to findings. Pure.

A finding says what was found, what follows from it, and the command that mends it. ``error``: loopnet
doesn't work; ``warning``: something doesn't, or will not after the next change; ``note``: worth knowing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address

from ..ipv6 import LINK_LOCAL
from ..model import ANY_ADDRESS, NONE, Network, Publication
from ..prefixes import LOOPBACK, TRANSIT
from .findings import ERROR, NOTE, WARNING, Facts, Finding, Listener
from .firewalls import firewalls


def findings(facts: Facts) -> list[Finding]:
    """All findings, the worst first."""
    found = [finding for check in _CHECKS for finding in check(facts)]
    return sorted(found, key=lambda finding: (ERROR, WARNING, NOTE).index(finding.level))


def _programs(facts: Facts) -> Iterator[Finding]:
    for program in facts.missing_programs:
        yield Finding(
            "program-missing",
            ERROR,
            f"{program} is not installed",
            "no loopnet network can start",
            f"apt install {_PACKAGES.get(program, program)}",
        )
    for program, what in facts.old:
        yield Finding(
            "too-old",
            ERROR,
            what,
            "no loopnet network can start" if program == "nft" else "nobody has seen loopnet work with it",
            f"upgrade {_PACKAGES.get(program, program)}; the versions in Debian 12 and Ubuntu 22.04 are new enough",
        )
    if facts.nft_refusal and "nft" not in dict(facts.old):
        yield Finding(
            "nft-refuses",
            ERROR,
            f"nft doesn't take loopnet's rules: {facts.nft_refusal}",
            "no loopnet network can start",
            "modprobe -a nf_tables nft_nat nft_masq; uname -r",
        )


_PACKAGES = {"nft": "nftables", "ip": "iproute2", "dnsmasq": "dnsmasq-base"}


def _hooks(facts: Facts) -> Iterator[Finding]:
    for driver, state in facts.hooks:
        yield Finding(
            "hook-missing",
            ERROR,
            f"the hook for {driver} is {state}",
            "libvirt starts networks and guests without loopnet",
            "loopnet install-hooks",
        )
    for daemon in facts.daemons:
        if daemon.older_than_hooks:
            yield Finding(
                "hook-unseen",
                NOTE,
                f"{daemon.name} was started before the hooks were installed",
                "unless it was reloaded since (as packages do), it doesn't run them",
                f"kill -HUP {daemon.pid}",
            )
    if not facts.selinux_hooks:
        yield Finding(
            "selinux-hooks",
            ERROR,
            "SELinux keeps libvirt's hooks confined",
            "the hooks can't start Python, nft or ip",
            "install the package libvirt-loopnet-selinux; restorecon -R /etc/libvirt/hooks",
        )


def _forwarding(facts: Facts) -> Iterator[Finding]:
    if facts.networks and not facts.ip_forward:
        yield Finding(
            "ip-forward",
            ERROR,
            "net.ipv4.ip_forward is 0",
            "guests have no internet",
            "sysctl -w net.ipv4.ip_forward=1",
        )


def _lo(facts: Facts) -> Iterator[Finding]:
    if facts.lo_option != "shrink":
        return
    for manager in facts.lo_managers:
        yield Finding(
            "lo-managed",
            NOTE,
            f"{manager} may bring back 127.0.0.1/8 on lo",
            "loopnet works all the same, but status reports drift",
            'set lo = "keep" in /etc/libvirt-loopnet.conf, or run loopnet watch',
        )


def _bridges(facts: Facts) -> Iterator[Finding]:
    for bridge, path in facts.networkd_bridges:
        yield Finding(
            "bridge-managed",
            WARNING,
            f"systemd-networkd configures {bridge}, as {path} matches it",
            "at any time, it may take guests' taps off their bridge and remove addresses",
            f"let [Match] in {path} match only your own interfaces; networkctl reload",
        )


def _occupants(facts: Facts) -> Iterator[Finding]:
    for network in facts.networks:
        prefix, host = network.loop_prefix, network.loop_address(network.host)
        for dev, address in facts.addresses:
            if address in prefix:
                yield Finding(
                    "address-taken",
                    WARNING,
                    f"{address} is an address of {dev}, inside {prefix} of network {network.name}",
                    f"a guest at {address} can't be reached",
                    f"ip address del {address} dev {dev}",
                )
        for socket in facts.listeners:
            if socket.address in prefix and socket.address != host:
                yield Finding(
                    "listener",
                    WARNING,
                    f"a program listens on {socket.address} port {socket.port}/{socket.protocol}, "
                    f"inside {prefix} of network {network.name}",
                    "nobody reaches it there any more: the address is a guest's",
                    f"ss -lnp src {socket.address}",
                )


def _definitions(facts: Facts) -> Iterator[Finding]:
    for network, why in facts.unfit:
        yield Finding(
            "definition",
            WARNING,
            why,
            f"network {network} can't start as it is defined",
            f"virsh net-edit {network}",
        )
    for problem in facts.problems:
        yield Finding(
            "dhcp",
            WARNING,
            problem.what,
            "the network will not start again as it is defined",
            problem.command,
        )


def rival(
    publication: Publication, listeners: Iterable[Listener], networks: Iterable[Network], *, six: bool
) -> Listener | None:
    """A program of the host that others reach no more, since a guest has the port: in IPv4, and if its network has
    IPv6 (``six``), in that. Spared is what listens on 127/8 or ::1, and what active ``networks`` have of their own."""
    own = {address for n in networks for address in (n.guest_address(n.gateway), *n.ipv6_own)}
    for socket in sorted(listeners, key=lambda each: (each.address.version, each)):
        same = socket.protocol == publication.protocol and socket.port in publication.ports
        if same and socket.address not in own and _takes(publication, socket.address, six):
            return socket
    return None


def _takes(publication: Publication, address: IPv4Address | IPv6Address, six: bool) -> bool:
    """Does it lead to a guest what comes to that address?"""
    if isinstance(address, IPv6Address):
        return six and publication.is_ipv6 and not (address.is_loopback or address in LINK_LOCAL)
    anywhere = ANY_ADDRESS in (publication.address, address)
    spared = address in LOOPBACK or address in TRANSIT
    return publication.is_ipv4 and not spared and (anywhere or address == publication.address)


def _published(facts: Facts) -> Iterator[Finding]:
    own = {address for _, address in facts.addresses} | {ANY_ADDRESS}
    for guest, publication, six in facts.published:
        socket = rival(publication, facts.listeners, facts.networks, six=six)
        if socket:
            yield Finding(
                "published-listener",
                WARNING,
                f"a program of this host listens on {socket.address} port {socket.port}/{socket.protocol}, "
                f"which is published for guest {guest}: {publication}",
                "others reach the guest there, not the program",
                f"loopnet unpublish {guest} {publication}",
            )
        if facts.addresses and publication.address not in own:
            yield Finding(
                "published-address",
                NOTE,
                f"{publication} of guest {guest} is published at an address that this host does not have now",
                "nobody reaches the guest there",
                "ip -4 address",
            )


def _rivals(facts: Facts) -> Iterator[Finding]:
    for network, rival in facts.rivals:
        yield Finding(
            "port-taken",
            ERROR,
            rival,
            f"network {network} can't start: its dnsmasq needs the port",
            "stop that program, or make it listen only on the addresses it needs (not 0.0.0.0 or ::); ss -lnp",
        )


def _leases(facts: Facts) -> Iterator[Finding]:
    for network, found in facts.guest_leases:
        yield Finding(
            "leases",
            WARNING,
            f"libvirt lists the addresses that guests of network {network} see, since {found.why}",
            "virsh domifaddr, libnss-libvirt and every program that asks libvirt show addresses that don't work here",
            found.remedy,
        )


def _state(facts: Facts) -> Iterator[Finding]:
    for line in facts.broken_state:
        yield Finding(
            "state-broken", ERROR, line, "networks, or guests on them, can't start", "see the message"
        )
    if facts.drift:
        count = "one thing is" if len(facts.drift) == 1 else f"{len(facts.drift)} things are"
        yield Finding(
            "drift",
            WARNING,
            f"{count} different from what should be: {facts.drift[0]}",
            "guests may be cut off, or not be guarded",
            "loopnet sync",
        )


def _guests(facts: Facts) -> Iterator[Finding]:
    for what, command in facts.unplugged:
        yield Finding(
            "unplugged",
            WARNING,
            what,
            "it can't be reached there, and reaches nobody",
            command,
        )
    for what, command in facts.links_down:
        yield Finding(
            "link-down",
            NOTE,
            what,
            "the guest sees no carrier: it can't be reached there, and reaches nobody",
            command,
        )


def _untold(facts: Facts) -> Iterator[Finding]:
    for what, command in facts.untold:
        yield Finding(
            "unknown-nic",
            WARNING,
            what,
            "it has no loopnet address, and reaches neither this host nor anything beyond",
            command,
        )


def _senders(facts: Facts) -> Iterator[Finding]:
    for what, command, inside in facts.dropped:
        yield Finding(
            "sender-dropped",
            WARNING if inside else NOTE,
            what,
            "from there it reaches nobody, and nobody reaches it",
            command,
        )


def _ipv6(facts: Facts) -> Iterator[Finding]:
    ours = [network for network in facts.networks if network.ipv6]
    if ours and facts.ipv6_off:
        name = ours[0].name
        on = f"sysctl -w net.ipv6.conf.all.disable_ipv6=0; virsh net-destroy {name}; virsh net-start {name}"
        off = "IPv6 is switched off on this host"
        what, command = (
            (off, on)
            if facts.ipv6_built_in
            else ("the kernel of this host has no IPv6", "boot without ipv6.disable=1")
        )
        yield Finding("ipv6-off", NOTE, what, f"network {name} has none either", command)
    for device in facts.ipv6_learned if any(network.internet != NONE for network in ours) else ():
        yield Finding(
            "ipv6-router",
            NOTE,
            f"the kernel learns the IPv6 default route of {device} from router advertisements, and would stop "
            "listening to them if it forwarded",
            "guests have no IPv6 beyond this host",
            f"sysctl -w net.ipv6.conf.{device}.accept_ra=2; loopnet sync",
        )


_CHECKS = (
    _programs, _hooks, _forwarding, _ipv6, _definitions, _state, _guests, _untold, _senders, firewalls, _bridges,
    _occupants, _rivals,
    _leases, _published, _lo,
)  # fmt: skip


def order(found: Iterable[Finding]) -> int:
    """Exit status for ``found``: 1 if anything but notes is among them."""
    return int(any(finding.level != NOTE for finding in found))
