"""Findings from facts; that the facts are right is seen in the e2e tests."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from libvirt_loopnet.errors import Hindrance
from libvirt_loopnet.firewalls.obstacles import Foreign, Obstacle
from libvirt_loopnet.firewalls.ways import Ways
from libvirt_loopnet.model import ANY_ADDRESS, Publication
from libvirt_loopnet.networks.dhcp import Problem
from libvirt_loopnet.reports.doctor import findings, order
from libvirt_loopnet.reports.findings import ERROR, NOTE, WARNING, Daemon, Facts, Finding, Listener
from tests.unit.test_plan import network

ADDRESS = IPv4Address("127.1.0.9")
IN_THE_WAY = Obstacle("ip x y", "drop", ("DNS",), ("nft insert",), "ip x")
SIX = network(1)._replace(ipv6=IPv6Network("fd00::/64"), ipv6_forward="nat")


def only(facts: Facts) -> Finding:
    found = findings(facts)
    assert len(found) == 1
    assert all(field and "\n" not in field for field in found[0])
    return found[0]


def test_a_sound_host() -> None:
    assert findings(Facts(networks=(network(1), SIX))) == []
    # Of IPv6 nothing is said where no network has it, or none that leaves the host.
    assert findings(Facts(networks=(network(1),), ipv6_off=True, ipv6_learned=("eth0",))) == []
    assert findings(Facts(networks=(SIX._replace(internet="none"),), ipv6_learned=("eth0",))) == []


@pytest.mark.parametrize(
    ("facts", "identity", "command"),
    [
        (Facts(missing_programs=("nft",)), "program-missing", "apt install nftables"),
        (Facts(nft_refusal="no such thing"), "nft-refuses", "modprobe"),
        (
            Facts(nft_refusal="syntax error", old=(("nft", "nft 0.9.3 is too old"),)),
            "too-old",
            "upgrade nftables",
        ),
        (Facts(hooks=(("qemu", "missing"),)), "hook-missing", "loopnet install-hooks"),
        (Facts(daemons=(Daemon("libvirtd", 7, True),)), "hook-unseen", "kill -HUP 7"),
        (Facts(selinux_hooks=False), "selinux-hooks", "libvirt-loopnet-selinux"),
        (Facts(networks=(network(1),), ip_forward=False), "ip-forward", "sysctl"),
        (Facts(networks=(SIX,), ipv6_off=True), "ipv6-off", "disable_ipv6=0"),
        (
            Facts(networks=(SIX,), ipv6_off=True, ipv6_built_in=False),
            "ipv6-off",
            "boot without ipv6.disable=1",
        ),
        (Facts(networks=(SIX,), ipv6_learned=("eth0",)), "ipv6-router", "net.ipv6.conf.eth0.accept_ra=2"),
        (Facts(lo_managers=("NetworkManager",)), "lo-managed", "keep"),
        (Facts(networkd_bridges=(("virbr1", "/etc/x.network"),)), "bridge-managed", "/etc/x.network"),
        (Facts(networks=(network(1),), addresses=(("lo", ADDRESS),)), "address-taken", "ip address del"),
        (Facts(networks=(network(1),), listeners=(Listener("tcp", ADDRESS, 80),)), "listener", "ss -lnp"),
        (Facts(problems=(Problem("<range> has no effect", "virsh net-update"),)), "dhcp", "virsh net-update"),
        (Facts(broken_state=("x is damaged",)), "state-broken", "see"),
        (Facts(rivals=(("net", "unbound (process 7) has 0.0.0.0 port 53/udp"),)), "port-taken", "ss -lnp"),
        (
            Facts(guest_leases=(("net", Hindrance("AppArmor keeps it", "do so; and so")),)),
            "leases",
            "do so; and so",
        ),
        (Facts(unplugged=(("guest vm1 runs", "loopnet sync"),)), "unplugged", "loopnet sync"),
        (Facts(drift=("ip route add",)), "drift", "loopnet sync"),
        (
            Facts(foreign=Foreign((Obstacle("ip x y", "drop", ("DNS",), ("nft insert",), "ip x"),))),
            "firewall",
            "nft insert",
        ),
        (Facts(firewall_problems=("busctl is not installed",)), "firewall-unknown", "loopnet sync"),
    ],
)
def test_each_finding(facts: Facts, identity: str, command: str) -> None:
    finding = only(facts)
    assert finding.id == identity
    assert command in finding.command


@pytest.mark.parametrize(
    "facts",
    [
        Facts(ip_forward=False),  # no network is up
        Facts(lo_managers=("NetworkManager",), lo_option="keep"),
        Facts(networks=(network(1),), addresses=(("eth0", IPv4Address("10.127.1.1")),)),
        Facts(networks=(network(1),), listeners=(Listener("udp", IPv4Address("127.1.0.254"), 53),)),
        Facts(daemons=(Daemon("libvirtd", 7, False),)),
    ],
)
def test_nothing_to_say(facts: Facts) -> None:
    assert findings(facts) == []


CLOSED = Ways(elsewhere=False, by=("inet x output",))


def test_tables_of_others() -> None:
    """The line to write has all that stands there, and the table; what can't be opened, and what needn't, says so."""
    opened = Foreign((IN_THE_WAY,), tables=frozenset({"ip x"}))
    command = only(Facts(foreign=opened)).command
    assert 'loopnet sync, with open-firewalls = [ "ip x" ] in /etc/libvirt-loopnet.conf;' in command
    other = opened._replace(tables=frozenset({"ip x", "inet a"}))
    assert (
        'open-firewalls = [ "inet a", "ip x" ]'
        in only(Facts(foreign=other, open_firewalls=("inet a",))).command
    )
    assert only(Facts(foreign=opened, open_firewalls=("ip x",))).command == "loopnet sync"
    raw = Foreign((IN_THE_WAY._replace(table="ip raw"),), tables=frozenset({"ip raw"}))
    assert only(Facts(foreign=raw)).command == "nft insert"
    owned = opened._replace(owned=frozenset({"ip x"}))
    assert "only the program it belongs to" in only(Facts(foreign=owned)).command
    assert only(Facts(open_firewalls=("inet a",))).id == "firewall-absent"


def test_guests_are_kept_in_like_the_host() -> None:
    shut = Foreign(ways=CLOSED)
    assert findings(Facts(foreign=shut)) == []
    finding = only(Facts(networks=(network(1),), foreign=shut))
    assert (finding.id, finding.level, finding.command) == (
        "firewall-closed",
        NOTE,
        "nft list chain inet x output",
    )
    assert findings(Facts(networks=(network(1)._replace(internet="none"),), foreign=shut)) == []
    tunnel = Foreign(ways=CLOSED._replace(open=("wg0",)))
    assert findings(Facts(networks=(network(1),), foreign=tunnel)) == []
    past = only(Facts(networks=(network(1),), foreign=tunnel._replace(around="eth0")))
    assert (past.id, past.level) == ("firewall-around", WARNING)
    assert """iifname { "virbr1" } oifname != "wg0" oifname != "virbr1" drop'""" in past.command
    port = Publication("tcp", ANY_ADDRESS, 80, 80)
    published = Facts(networks=(network(1),), foreign=tunnel, published=(("vm1", port, False),))
    assert only(published).id == "firewall-published"


def test_the_worst_comes_first_and_notes_are_no_failure() -> None:
    found = findings(Facts(lo_managers=("NetworkManager",), missing_programs=("ip",)))
    assert [finding.level for finding in found] == [ERROR, NOTE]
    assert order(found) == 1
    assert order(found[1:]) == 0
    assert order([]) == 0


HOST = IPv4Address("192.0.2.7")
ANYWHERE, HERE = Publication("tcp", ANY_ADDRESS, 8080, 80), Publication("tcp", HOST, 8080, 80)
FOR_FOUR = ANYWHERE._replace(clients=IPv4Network("192.0.2.0/24"))
FOR_SIX = ANYWHERE._replace(clients=IPv6Network("2001:db8:1::/64"))
ALL6, HOST6 = IPv6Address("::"), IPv6Address("2001:db8::7")


@pytest.mark.parametrize(
    ("publication", "listener", "in_the_way"),
    [
        (ANYWHERE, Listener("tcp", ANY_ADDRESS, 8080), True),
        (ANYWHERE, Listener("tcp", HOST, 8080), True),
        (HERE, Listener("tcp", ANY_ADDRESS, 8080), True),
        (HERE, Listener("tcp", HOST, 8080), True),
        (HERE, Listener("tcp", HOST + 1, 8080), False),
        (ANYWHERE, Listener("udp", ANY_ADDRESS, 8080), False),
        (ANYWHERE, Listener("tcp", ANY_ADDRESS, 80), False),
        (ANYWHERE, Listener("tcp", IPv4Address("127.0.0.1"), 8080), False),
        (ANYWHERE, Listener("tcp", IPv4Address("247.1.0.1"), 8080), False),
        (ANYWHERE, Listener("tcp", ALL6, 8080), True),
        (ANYWHERE, Listener("tcp", HOST6, 8080), True),
        (ANYWHERE, Listener("tcp", IPv6Address("::1"), 8080), False),
        (ANYWHERE, Listener("tcp", IPv6Address("fe80::1"), 8080), False),
        (HERE, Listener("tcp", ALL6, 8080), False),
        (FOR_FOUR, Listener("tcp", ANY_ADDRESS, 8080), True),
        (FOR_FOUR, Listener("tcp", HOST6, 8080), False),
        (FOR_SIX, Listener("tcp", ANY_ADDRESS, 8080), False),
        (FOR_SIX, Listener("tcp", HOST, 8080), False),
        (FOR_SIX, Listener("tcp", ALL6, 8080), True),
        (FOR_SIX, Listener("tcp", HOST6, 8080), True),
    ],
)
def test_a_published_port_that_a_program_has(
    publication: Publication, listener: Listener, in_the_way: bool
) -> None:
    facts = Facts(listeners=(listener,), addresses=(("eth0", HOST),), published=(("vm1", publication, True),))
    if not in_the_way:
        assert findings(facts) == []
        return
    found = only(facts)
    assert (found.id, found.level) == ("published-listener", "warning")
    assert found.command == f"loopnet unpublish vm1 {publication}"


def test_only_what_is_published_takes_a_port_away() -> None:
    ours = network(1)._replace(ipv6=IPv6Network("fd00:0:0:1::/64"))
    inside: list[IPv4Address | IPv6Address] = [ours.guest_address(ours.gateway), *ours.ipv6_own]
    listeners = tuple(Listener("tcp", each, 8080) for each in inside)
    published = (("vm1", ANYWHERE, True),)
    assert findings(Facts(networks=(ours,), listeners=listeners, published=published)) == []
    six = (Listener("tcp", HOST6, 8080),)
    assert findings(Facts(listeners=six, published=(("vm1", ANYWHERE, False),))) == []


def test_a_published_address_that_the_host_lacks() -> None:
    facts = Facts(addresses=(("eth0", HOST + 1),), published=(("vm1", HERE, True), ("vm1", ANYWHERE, True)))
    assert only(facts)[:2] == ("published-address", NOTE)
