"""IPv6 of our networks, by packets: who reaches whom, the way out, and hosts without IPv6. What must not be is in
attacks6.py."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from libvirt_loopnet.networks.parsing import parse_network
from tests import schema
from tests.sandbox import Namespace

from . import frames, frames6
from .arena import INTERNET6, LAN6, OTHER_PREFIX6, PREFIX6, UPLINK6
from .lab import DNSMASQ, Lab, LabGuest, LabNetwork, eventually
from .wire import PATIENCE, Capture, datagram_socket

PORT = 80
TOKEN = b"@ipv6@"
SOON = 0.5
GATEWAY = PREFIX6.replace("::/64", "::1")


def loopnet(lab: Lab, *arguments: str, status: int = 0) -> str:
    done = lab.host.run(["loopnet", *arguments], check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def doctor(lab: Lab) -> str:
    return lab.host.run(["loopnet", "doctor", "--json"], check=False).stdout


def own_address(guest: LabGuest) -> None:
    guest.namespace.sh(f"ip address add {guest.ipv6}/64 dev eth0 nodad")


def pings(source: LabGuest | Lab, target: str, patience: float = PATIENCE) -> bool:
    namespace = source.host if isinstance(source, Lab) else source.namespace
    done = namespace.run(["ping", "-6", "-n", "-c1", f"-W{patience}", target], check=False)
    return done.returncode == 0


def add_uplink(lab: Lab) -> None:
    """The host is in a LAN with IPv6, and has a default route that somebody set."""
    lab.host.sh(
        f"ip address add {UPLINK6}/64 dev uplink0 nodad; ip -n lan address add {LAN6}/64 dev lan0 nodad\n"
        f"ip -n lan address add {INTERNET6}/128 dev lo; ip -6 route add default via {LAN6}"
    )
    # The kernel adds it a little after the address, "nodad" or not (addrconf_dad_work()).
    eventually(lambda: f"local {UPLINK6} " in lab.host.sh("ip -6 route show table local"))


def guest_routes(guest: LabGuest) -> str:
    return guest.namespace.run(["ip", "-6", "route", "show", "default"]).stdout


def ask_router(guest: LabGuest) -> None:
    """The guest's kernel asks once more for a router."""
    guest.namespace.sh("ip link set eth0 down; ip link set eth0 up")


def slaac(guest: LabGuest) -> str:
    """The address that the guest's kernel made, once it is sure of it."""

    def found() -> list[str]:
        lines = json.loads(guest.namespace.run(["ip", "-j", "-6", "address", "show", "dev", "eth0"]).stdout)
        return [
            each["local"]
            for line in lines
            for each in line.get("addr_info", ())
            if each["scope"] == "global" and each.get("dynamic") and not each.get("tentative")
        ]

    eventually(found)
    return found()[0]


SHAPES = {"mapped": ("mapped", False), "mapped, all": ("mapped", True), "native": ("native", True)}


@pytest.fixture(params=[*SHAPES])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    mode, hard = SHAPES[request.param]
    with Lab(mode, lan_prefix="192.168.7.0/24", bridge_nf=hard, ip_rule=hard, rp_filter=hard) as made:
        yield made


@pytest.fixture
def plain() -> Iterator[Lab]:
    with Lab("mapped", lan_prefix="192.168.7.0/24") as made:
        yield made


def start(lab: Lab, index: int = 1, *, ipv6: str = PREFIX6, internet: str = "all") -> LabNetwork:
    network = lab.network(index, ipv6=ipv6, internet=internet)
    lab.start(network, dnsmasq=True)
    return network


def test_host_and_guests_reach_each_other(lab: Lab) -> None:
    """At one address for all, the host number's; and at what a guest chooses for itself."""
    network = start(lab)
    one, two = lab.guest(network), lab.guest(network)
    own_address(one)
    own_address(two)
    assert one.ipv6 == "fd12:3456:789a:100::2"
    assert pings(lab, one.ipv6)
    assert pings(one, two.ipv6)
    assert pings(one, GATEWAY)
    made = slaac(two)
    assert made != two.ipv6
    assert pings(lab, made)
    assert pings(one, made)
    two.namespace.run(["ping", "-6", "-n", "-c1", "-I", made, GATEWAY])
    assert loopnet(lab, "plan") == "nothing to do\n"
    # For names, and a port that the host listens on, as in IPv4.
    with served(lab, GATEWAY) as asked:
        assert asked(two) in (made, two.ipv6)
        assert asked(one).startswith("fd12:3456:789a:100:")


@contextlib.contextmanager
def served(lab: Lab, address: str) -> Iterator[Callable[..., str]]:
    """A server at the host's address that says who asks; to be asked by a guest, with patience or not."""
    server = lab.host.call(lambda: socket.create_server((address, PORT), family=socket.AF_INET6))
    server.settimeout(PATIENCE)

    def ask(guest: LabGuest, patience: float = PATIENCE) -> str:
        def connect() -> socket.socket:
            return socket.create_connection((address, PORT), patience)

        with guest.namespace.call(connect), server.accept()[0] as connection:
            return str(connection.getpeername()[0])

    with server:
        yield ask


def test_a_vpn_that_takes_all_ipv6_does_not_take_guests(plain: Lab) -> None:
    """Its rule stands before table main, in which the kernel has the bridge's own route."""
    network = start(plain)
    guest = plain.guest(network)
    own_address(guest)
    plain.host.sh(
        "ip link add vpn0 type veth peer name vpn1; ip link set vpn1 up; ip link set vpn0 up\n"
        "ip -6 address add fd99::1/64 dev vpn0 nodad\n"
        "ip -6 rule add from all lookup 51820 priority 100; ip -6 route add default dev vpn0 table 51820"
    )
    assert pings(plain, guest.ipv6)
    assert pings(guest, GATEWAY)


def test_no_router_until_the_host_has_a_way_out(lab: Lab) -> None:
    network = start(lab)
    guest = lab.guest(network)
    made = slaac(guest)
    assert guest_routes(guest) == ""
    assert "forwarding" not in loopnet(lab, "plan")
    assert f"net1 {PREFIX6}, no way out" in loopnet(lab, "status")
    add_uplink(lab)
    assert "net/ipv6/conf/all/forwarding=1" in loopnet(lab, "sync")
    assert loopnet(lab, "plan") == "nothing to do\n"
    assert f"net1 {PREFIX6}\n" in loopnet(lab, "status")
    ask_router(guest)
    eventually(lambda: "default" in guest_routes(guest))
    assert slaac(guest) == made
    with Capture(lab.lan, "lan0") as wire:
        assert pings(guest, INTERNET6)
        asked = wire.find(lambda frame: frame[12:14] == b"\x86\xdd" and frame[54:55] == b"\x80", PATIENCE)
    assert asked is not None
    assert asked[22:38] == socket.inet_pton(socket.AF_INET6, UPLINK6)
    # And it is gone again: guests are told so at once when they ask, and else within a minute.
    lab.host.sh("ip -6 route delete default")
    loopnet(lab, "sync")
    ask_router(guest)
    slaac(guest)
    assert guest_routes(guest) == ""


def test_a_host_that_learns_its_own_router_is_no_router(plain: Lab) -> None:
    """The kernel would stop listening to router advertisements, and the host would lose its default route."""
    plain.host.sh(
        "cd /proc/sys/net/ipv6/conf/uplink0; echo 1 >accept_ra; echo 1 >accept_ra_defrtr; echo 0 >accept_dad\n"
        f"ip -n lan address add {LAN6}/64 dev lan0 nodad"
    )
    mac = plain.lan.sh("ip -br link show lan0").split()[2]
    with Capture(plain.lan, "lan0") as wire:
        advertised = frames.router_advertisement(mac, bytes(14))
        wire.send(frames.ethernet(mac, frames.ALL_NODES, frames.IP6, advertised))
    eventually(lambda: "default" in plain.host.run(["ip", "-6", "route"]).stdout)
    network = start(plain)
    guest = plain.guest(network)
    slaac(guest)
    assert plain.host.sh("cat /proc/sys/net/ipv6/conf/all/forwarding") == "0\n"
    assert guest_routes(guest) == ""
    assert loopnet(plain, "plan") == "nothing to do\n"
    found = {each["id"]: each for each in json.loads(doctor(plain))}
    assert found["ipv6-router"]["command"].startswith("sysctl -w net.ipv6.conf.uplink0.accept_ra=2")
    plain.host.sh("echo 2 >/proc/sys/net/ipv6/conf/uplink0/accept_ra")
    assert "forwarding" in loopnet(plain, "sync")
    assert "default" in plain.host.run(["ip", "-6", "route"]).stdout
    assert "ipv6-router" not in doctor(plain)


def frame_to_router(guest: LabGuest, source: str, destination: str) -> bytes:
    packet = frames6.udp((source, 4000), (destination, 53), TOKEN)
    return frames.ethernet(guest.mac, guest.network.model.bridge_mac, frames.IP6, packet)


def test_nothing_new_comes_in_and_nothing_leaves_unmasked(plain: Lab) -> None:
    add_uplink(plain)
    network = start(plain)
    guest = plain.guest(network)
    own_address(guest)
    uplink = plain.path("/sys/class/net/uplink0/address").read_text().strip()
    mac = plain.lan.sh("ip -br link show lan0").split()[2]
    with Capture(guest.namespace, "eth0") as inside, Capture(plain.lan, "lan0") as outside:
        for source in (LAN6, INTERNET6, GATEWAY):
            for destination in (guest.ipv6, GATEWAY):
                packet = frames6.udp((source, 4000), (destination, 53), TOKEN)
                outside.send(frames.ethernet(mac, uplink, frames.IP6, packet))
        assert inside.find(lambda frame: TOKEN in frame) is None
        # Without masquerade nothing leaves.
        plain.host.run(["nft", "flush", "chain", "ip6", "loopnet", "source-nat"])
        inside.send(frame_to_router(guest, guest.ipv6, INTERNET6))
        assert outside.find(lambda frame: TOKEN in frame, 0.2) is None
        loopnet(plain, "sync")
        inside.send(frame_to_router(guest, guest.ipv6, INTERNET6))
        assert outside.find(lambda frame: TOKEN in frame, PATIENCE) is not None


def test_isolated_guests_reach_the_host_and_each_other_alone(plain: Lab) -> None:
    add_uplink(plain)
    closed, other = start(plain, internet="none"), start(plain, 2, ipv6=OTHER_PREFIX6)
    one, two, stranger = plain.guest(closed), plain.guest(closed), plain.guest(other)
    for guest in (one, two, stranger):
        own_address(guest)
    assert pings(one, two.ipv6)
    assert pings(one, GATEWAY)
    assert pings(plain, one.ipv6)
    made = slaac(one)
    assert guest_routes(one) == ""
    with Capture(plain.lan, "lan0") as outside, Capture(stranger.namespace, "eth0") as elsewhere:
        with Capture(one.namespace, "eth0") as inside:
            for source in (one.ipv6, made):
                for destination in (INTERNET6, LAN6, stranger.ipv6):
                    inside.send(frame_to_router(one, source, destination))
        assert outside.find(lambda frame: TOKEN in frame, 0.2) is None
        assert elsewhere.find(lambda frame: TOKEN in frame) is None


@pytest.mark.parametrize("reach", ["services", "none"])
def test_what_guests_may_begin_with_the_host(plain: Lab, reach: str) -> None:
    network = plain.network(1, ipv6=PREFIX6)
    xml = network.xml.replace("gateway='1'", f"gateway='1' guest-to-host='{reach}'")
    assert xml != network.xml
    network = network._replace(xml=xml, model=network.model._replace(guest_to_host=reach))
    plain.start(network, dnsmasq=True)
    guest = plain.guest(network)
    own_address(guest)
    slaac(guest)  # router advertisements come all the same
    is_served = reach == "services"
    assert pings(guest, GATEWAY, PATIENCE if is_served else 1) is is_served
    assert pings(plain, guest.ipv6)
    with served(plain, GATEWAY) as asked, pytest.raises(OSError, match="timed out"):
        asked(guest, 2)


def test_a_host_without_ipv6_has_what_it_had(plain: Lab) -> None:
    """Switched off by sysctl, as ip-sysctl.rst has it: nobody switches it on for a bridge of ours."""
    plain.host.sh("for conf in all default; do echo 1 >/proc/sys/net/ipv6/conf/$conf/disable_ipv6; done")
    network = start(plain)
    guest = plain.guest(network)
    assert plain.host.run(["ping", "-n", "-c1", guest.loop]).returncode == 0
    assert plain.host.run(["ip", "-6", "address"]).stdout == ""
    assert "enable-ra" not in plain.path(f"{DNSMASQ}/net1.loopnet-dnsmasq").read_text()
    assert loopnet(plain, "plan") == "nothing to do\n"
    assert "ipv6-off" in doctor(plain)
    plain.stop(network)
    assert plain.rules() == ""


def test_networks_without_a_prefix_are_as_they_were(plain: Lab) -> None:
    """Beside one that has one: their bridges have no IPv6, and guests reach each other by it."""
    start(plain)
    network = plain.network(2)
    plain.start(network, dnsmasq=True)
    one, two = plain.guest(network), plain.guest(network)
    for guest, address in ((one, "fd55::1"), (two, "fd55::2")):
        guest.namespace.sh(f"ip address add {address}/64 dev eth0 nodad")
    assert pings(one, "fd55::2")
    assert plain.host.run(["ip", "-6", "address", "show", "dev", "virbr2"]).stdout == ""
    assert not pings(one, f"{frames.link_local(network.model.bridge_mac)}%eth0", 1)
    assert "nd-claim-127.2" not in plain.rules()


def test_a_prefix_is_one_networks(plain: Lab) -> None:
    start(plain)
    refused = plain.network(2, ipv6=PREFIX6)
    done = plain.network_hook(refused, "start", check=False)
    assert done.returncode == 1
    assert "overlaps" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_all_of_it_goes(plain: Lab) -> None:
    add_uplink(plain)
    everything = (
        "ip -6 route show table all; ip -6 address show dev uplink0\n"
        "cd /proc/sys/net/ipv6/conf; grep . all/forwarding default/forwarding lo/forwarding uplink0/forwarding"
    )
    before = plain.host.sh(everything)
    network = start(plain)
    plain.guest(network)
    loopnet(plain, "cleanup")
    assert plain.host.run(["ip", "-6", "address", "show", "dev", "virbr1"]).stdout == ""
    assert PREFIX6[:-5] not in plain.host.run(["ip", "-6", "route", "show", "table", "all"]).stdout
    assert plain.rules() == ""
    loopnet(plain, "sync")
    assert pings(plain, GATEWAY)
    plain.stop(network)
    plain.host.sh("for link in /sys/class/net/vnet*; do ip link delete ${link##*/}; done")
    time.sleep(0.1)
    assert plain.host.sh(everything) == before
    assert plain.rules() == ""


def test_forwarding_that_others_may_need_stays(plain: Lab) -> None:
    """Who forwards beside us by the time we stop, who switched it on as well, and who did before."""
    forwarding = "cd /proc/sys/net/ipv6/conf; cat all/forwarding uplink0/forwarding"
    on, off = "1\n1\n", "0\n0\n"
    add_uplink(plain)
    network = start(plain)
    assert plain.host.sh(forwarding) == on
    plain.host.sh("ip link add docker0 type bridge; ip address add fd44::1/64 dev docker0 nodad")
    plain.stop(network)
    assert plain.host.sh(forwarding) == on
    # So does a tunnel, which needs no address for that.
    plain.host.sh("ip link delete docker0; ip link add tunnel0 type bridge; ip link set tunnel0 up")
    plain.host.sh("ip -6 route add 2001:db8:66::/48 dev tunnel0")
    start(plain, 2)
    loopnet(plain, "cleanup")
    assert plain.host.sh(forwarding) == on
    plain.host.sh("ip link delete tunnel0")
    loopnet(plain, "sync")
    loopnet(plain, "cleanup")
    assert plain.host.sh(forwarding) == off
    loopnet(plain, "sync")
    plain.host.sh("echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
    loopnet(plain, "cleanup")
    assert plain.host.sh(forwarding) == on
    plain.host.sh("cd /proc/sys/net/ipv6/conf; echo 0 >all/forwarding; echo 1 >uplink0/forwarding")
    loopnet(plain, "sync")
    loopnet(plain, "cleanup")
    assert plain.host.sh(forwarding) == on


@pytest.mark.parametrize("others", [True, False], ids=["beside an IPv4 network", "the last"])
def test_connections_end_with_their_network(plain: Lab, others: bool) -> None:
    """As in IPv4: NAT rules of others keep the kernel's translation alive, and what comes late for a guest would leave
    by the default route."""
    add_uplink(plain)
    theirs = "chain c { type nat hook prerouting priority dstnat; };"
    theirs += "chain d { type nat hook postrouting priority srcnat; oifname nowhere masquerade; };"
    plain.host.run(["nft", "-f", "-"], input=f"table ip6 theirs {{ {theirs} }}")
    network = start(plain)
    if others:
        plain.start(plain.network(2))
    guest = plain.guest(network)
    own_address(guest)
    guest.namespace.sh(f"ip -6 route replace default via {GATEWAY} dev eth0")
    inside, outside = (
        datagram_socket(namespace, (address, 0), socket.AF_INET6)
        for namespace, address in ((guest.namespace, guest.ipv6), (plain.lan, INTERNET6))
    )
    with inside, outside, Capture(plain.lan, "lan0") as lan:
        outside.settimeout(PATIENCE)
        inside.sendto(b"out", outside.getsockname()[:2])
        _, masqueraded = outside.recvfrom(100)
        assert masqueraded[0] == UPLINK6
        plain.destroy(guest)
        plain.stop(network)
        for _ in range(3):
            outside.sendto(TOKEN, masqueraded[:2])
        mine = socket.inet_pton(socket.AF_INET6, guest.ipv6)
        assert lan.find(lambda frame: TOKEN in frame and mine in frame) is None
    assert PREFIX6[:-5] not in plain.host.sh("cat /proc/net/nf_conntrack")
    plain.host.sh("nft delete table ip6 theirs")


def test_many_guests_cost_what_one_costs(plain: Lab) -> None:
    """A guest's event touches elements alone: its rules are not made anew."""
    network = start(plain)
    plain.guest(network)
    handles = [line for line in all_handles(plain) if "chain" in line]
    plain.guest(network)
    assert [line for line in all_handles(plain) if "chain" in line] == handles
    assert "replacing all rules" not in plain.syslog()


def all_handles(lab: Lab) -> list[str]:
    return lab.host.run(["nft", "-a", "list", "table", "ip6", "loopnet"]).stdout.splitlines()


def test_names_lead_to_what_is_leased(plain: Lab) -> None:
    """And to nothing else: a guest that makes addresses by itself has no answer at its number's."""
    network = start(plain)
    one, two = plain.guest(network), plain.guest(network)

    def six(guest: LabGuest) -> str:
        name = f"{guest.name}.{network.model.domain}"
        return plain.host.run(["getent", "ahostsv6", name], check=False).stdout.partition(" ")[0]

    loopnet(plain, "sync")
    assert (six(one), six(two)) == (f"::ffff:{one.loop}", f"::ffff:{two.loop}")
    leases = [
        {"ip-address": one.ipv6, "mac-address": one.mac},
        {"ip-address": one.loop, "mac-address": one.mac},
    ]
    plain.path(f"{DNSMASQ}/virbr1.status").write_text(json.dumps(leases, indent=2))
    loopnet(plain, "sync")
    assert (six(one), six(two)) == (one.ipv6, f"::ffff:{two.loop}")
    assert loopnet(plain, "plan") == "nothing to do\n"
    # Another guest's events leave it alone, its own end takes it away, and its next start brings it back.
    three = plain.guest(network)
    assert six(one) == one.ipv6
    plain.destroy(three)
    assert six(one) == one.ipv6
    plain.destroy(one)
    assert six(one) == ""
    again = plain.guest(network, one.mac, name=one.name)
    assert six(again) == one.ipv6
    assert loopnet(plain, "plan") == "nothing to do\n"
    plain.stop(network)
    assert "loopnet" not in plain.path("/etc/hosts").read_text()


def test_ip_prints_where_a_guest_answers(plain: Lab) -> None:
    """The address that it leased, or those of its own that it was seen at, and nothing that it never took."""
    network = start(plain)
    one, two = plain.guest(network), plain.guest(network)
    said = loopnet(plain, "ip", "--ipv6", "no-such-guest", status=1)
    assert "is on a network with IPv6" in said
    made = slaac(one)
    said = loopnet(plain, "ip", "--ipv6", two.name, status=1)
    assert len(said.splitlines()) == 1
    assert f"loopnet ip {two.name}" in said
    assert pings(plain, made)
    assert loopnet(plain, "ip", "--ipv6", one.name) == f"{made}\n"
    assert made in loopnet(plain, "list")
    assert json.loads(loopnet(plain, "list", "--json"))[0]["ipv6_address"] == one.ipv6
    # By hand it has its number's as well, and one that it keeps for a day; the one made of its MAC address is first.
    chosen = PREFIX6.replace("::/64", ":a:b:c:d")
    own_address(one)
    one.namespace.sh(f"ip address add {chosen}/64 dev eth0 nodad")
    assert pings(plain, one.ipv6)
    assert pings(plain, chosen)
    assert loopnet(plain, "ip", "--ipv6", one.name) == f"{made}\n"
    assert set(loopnet(plain, "ip", "--ipv6", "--all", one.name).split()) == {made, one.ipv6, chosen}
    # Who says that he is another is that nowhere.
    two.namespace.sh(
        f"ip address add {one.ipv6}/64 dev eth0 nodad; ip address add {chosen}1/64 dev eth0 nodad"
    )
    two.namespace.run(["ping", "-6", "-n", "-c1", "-W1", "-I", one.ipv6, GATEWAY], check=False)
    assert two.namespace.run(["ping", "-6", "-n", "-c1", "-I", f"{chosen}1", GATEWAY]).returncode == 0
    assert one.ipv6 not in loopnet(plain, "ip", "--ipv6", "--all", two.name)
    lease(plain, one)
    assert loopnet(plain, "ip", "--ipv6", "--all", one.name) == f"{one.ipv6}\n"
    lease(plain)
    plain.destroy(one)
    loopnet(plain, "ip", "--ipv6", one.name, status=1)


# --- published ports -----------------------------------------------------------------------------


def lease(lab: Lab, *guests: LabGuest) -> None:
    """As libvirt's helper writes it down when a guest has its address by DHCPv6."""
    listed = [{"ip-address": guest.ipv6, "mac-address": guest.mac} for guest in guests]
    lab.path(f"{DNSMASQ}/virbr1.status").write_text(json.dumps(listed, indent=2))


def asks(source: Namespace, address: str, port: int, own: str = "", patience: float = PATIENCE) -> str:
    """What a server says of who asks, as ``own``; '' when it can't be asked."""

    def connect() -> socket.socket:
        return socket.create_connection((address, port), patience, (own, 0) if own else None)

    with contextlib.suppress(OSError), source.call(connect) as connection:
        return connection.recv(100).decode()
    return ""


def cut_off(source: Namespace, address: str, port: int) -> bool:
    """It can't."""
    return not asks(source, address, port, patience=SOON)


@contextlib.contextmanager
def answering(guest: LabGuest) -> Iterator[None]:
    """A server on all of the guest's addresses that says who asks."""
    script = (
        "import socket, sys\n"
        f"server = socket.create_server(('::', {PORT}), family=socket.AF_INET6, dualstack_ipv6=True)\n"
        "while True:\n"
        "    connection, peer = server.accept()\n"
        "    connection.send(peer[0].encode()); connection.close()\n"
    )
    process = guest.namespace.popen(["python3", "-c", script])
    try:
        eventually(lambda: asks(guest.namespace, "::1", PORT))
        yield
    finally:
        process.kill()
        process.wait(10)


def test_published_ports_are_reached_by_ipv6_too(plain: Lab) -> None:
    add_uplink(plain)
    network = start(plain)
    guest, other = plain.guest(network), plain.guest(network)
    own_address(guest)
    own_address(other)
    ask_router(guest)
    eventually(lambda: "default" in guest_routes(guest))
    own_address(guest)
    loopnet(plain, "publish", guest.name, "8080:80")
    loopnet(plain, "publish", guest.name, "8081:80", "--from", "192.168.7.0/24")
    with answering(guest):
        # Nobody waits for a guest that has no such address.
        assert cut_off(plain.lan, UPLINK6, 8080)
        lease(plain, guest)
        loopnet(plain, "sync")
        assert asks(plain.lan, UPLINK6, 8080) == LAN6
        # Who may by --from is said in IPv4, and nobody else may in IPv6; nor is the rest open.
        assert cut_off(plain.lan, UPLINK6, 8081)
        assert cut_off(plain.lan, UPLINK6, PORT)
        plain.host.run(["ip", "-n", "lan", "-6", "route", "add", PREFIX6, "via", UPLINK6])
        assert cut_off(plain.lan, guest.ipv6, PORT)
        assert cut_off(plain.lan, GATEWAY, 8080)
        assert asks(other.namespace, guest.ipv6, PORT)
        loopnet(plain, "unpublish", guest.name, "--all")
        assert cut_off(plain.lan, UPLINK6, 8080)
    assert loopnet(plain, "plan") == "nothing to do\n"


def test_published_for_some(plain: Lab) -> None:
    """By --from: those of IPv4 in IPv4, those of IPv6 in IPv6, at the same port if need be; the host in any case."""
    add_uplink(plain)
    network, without = start(plain), start(plain, 2, ipv6="")
    guest, peer, poor = plain.guest(network), plain.guest(network), plain.guest(without)
    for each in (guest, peer):
        own_address(each)
        each.namespace.sh(f"ip -6 route replace default via {GATEWAY}")
    lease(plain, guest)
    lan4 = plain.host_address.rpartition(".")[0] + ".0/24"

    clients = {
        "LAN by IPv4": (plain.lan, plain.host_address, "", f"::ffff:{plain.router_address}"),
        "LAN": (plain.lan, UPLINK6, "", LAN6),
        "beyond": (plain.lan, UPLINK6, INTERNET6, INTERNET6),
        "guest": (peer.namespace, GATEWAY, "", GATEWAY),
        "host": (plain.host, UPLINK6, "", GATEWAY),
    }

    def check(port: int, *expected: str) -> None:
        """By these, and by nobody else, the port is reached."""
        reached = set()
        for name, (source, address, own, seen) in clients.items():
            patience = PATIENCE if name in expected else SOON
            if asks(source, address, port, own, patience) == seen:
                reached.add(name)
        assert reached == {*expected}

    with answering(guest):
        # A guest that never asked for its address is told of: its port is reached by nobody.
        said = loopnet(plain, "publish", peer.name, "8090:80", "--from", "::/0")
        assert f"the guest has not leased {peer.ipv6}" in said
        loopnet(plain, "unpublish", peer.name, "--all")
        told = loopnet(plain, "publish", guest.name, "8081:80", "--from", "2001:db8:7::/64")
        assert "warning" not in told
        loopnet(plain, "publish", guest.name, "8082:80", "--from", PREFIX6)
        loopnet(plain, "publish", guest.name, "8083:80", "--from", "::/0")
        loopnet(plain, "publish", guest.name, "8084:80", "--from", lan4)
        loopnet(plain, "publish", guest.name, "8084:80", "--from", f"{INTERNET6}/128")
        assert "2001:db8:7::/64" in loopnet(plain, "list")
        schema.check("list", json.loads(loopnet(plain, "list", "--json")))
        schema.check(
            "status", json.loads(plain.host.run(["loopnet", "status", "--json"], check=False).stdout)
        )
        check(8081, "LAN", "host")
        check(8082, "guest", "host")
        check(8083, "LAN", "beyond", "guest", "host")
        check(8084, "LAN by IPv4", "beyond", "host")
        assert loopnet(plain, "plan") == "nothing to do\n"
        loopnet(plain, "unpublish", guest.name, f"8084:80@{INTERNET6}/128")
        check(8084, "LAN by IPv4")
        # What can't be is one line, and changes nothing.
        before = plain.rules()
        for whom, says, name in (
            ("2001:db8::/32", "has no IPv6 prefix", poor.name),
            ("fe80::/10", "nobody is forwarded", guest.name),
            ("2001:db8::1/32", "did you mean", guest.name),
            ("fd00::/8", "can't be published", guest.name),
        ):
            port = "8083" if "published" in says else "8090"
            said = loopnet(plain, "publish", name, f"{port}:80", "--from", whom, status=2)
            assert says in said
            assert len(said.splitlines()) == 1
        assert plain.rules() == before
        loopnet(plain, "unpublish", guest.name, "--all")
        check(8081)


def test_published_ports_are_reached_by_guests_and_the_host(plain: Lab) -> None:
    """At the host's addresses and at a guest's own gateway, where the host's services stay; as in IPv4."""
    add_uplink(plain)
    network, second = start(plain), start(plain, 2, ipv6=OTHER_PREFIX6)
    closed = start(plain, 3, ipv6="fd12:3456:789a:300::/64", internet="none")
    guest, peer = plain.guest(network), plain.guest(network)
    far, isolated = plain.guest(second), plain.guest(closed)
    for each in (guest, peer, far, isolated):
        own_address(each)
    for each in (guest, peer, far):
        each.namespace.sh(f"ip -6 route replace default via {each.network.model.ipv6_own[0]}")
    isolated.namespace.sh("ip -6 route add default via fd12:3456:789a:300::1")
    assert guest.ipv6 not in loopnet(plain, "list")
    lease(plain, guest)
    assert guest.ipv6 in loopnet(plain, "list")
    with answering(guest):
        loopnet(plain, "publish", guest.name, "8080:80")
        for source in (peer.namespace, far.namespace, plain.host):
            eventually(lambda source=source: asks(source, UPLINK6, 8080, patience=2) == GATEWAY, 30.0)  # type: ignore[misc]
        for who in (peer, far):
            assert asks(who.namespace, str(who.network.model.ipv6_own[0]), 8080) == GATEWAY
        assert asks(plain.lan, UPLINK6, 8080) == LAN6
        # Neither another network's gateway, nor ::1, which refuses at once.
        assert cut_off(peer.namespace, str(second.model.ipv6_own[0]), 8080)
        assert cut_off(far.namespace, GATEWAY, 8080)
        assert cut_off(far.namespace, guest.ipv6, PORT)
        assert cut_off(isolated.namespace, UPLINK6, 8080)
        assert cut_off(isolated.namespace, "fd12:3456:789a:300::1", 8080)
        with pytest.raises(ConnectionRefusedError):
            plain.host.call(lambda: socket.create_connection(("::1", 8080), 5))
        loopnet(plain, "publish", guest.name, "53:80")
        assert cut_off(peer.namespace, GATEWAY, 53)
        loopnet(plain, "unpublish", guest.name, "--all")
        assert cut_off(peer.namespace, UPLINK6, 8080)
    assert loopnet(plain, "plan") == "nothing to do\n"


BRIDGED = "/proc/sys/net/bridge/bridge-nf-call-ip6tables"


def test_a_guest_that_publishes_is_reached_by_itself(plain: Lab) -> None:
    """Unless br_netfilter shows rules for IP what it sends: then the frame would have to go back by its own port."""
    add_uplink(plain)
    guest = plain.guest(start(plain))
    own_address(guest)
    guest.namespace.sh(f"ip -6 route replace default via {GATEWAY}")
    lease(plain, guest)
    loopnet(plain, "publish", guest.name, "8080:80")

    def itself(patience: float = PATIENCE) -> list[str]:
        return [asks(guest.namespace, address, 8080, patience=patience) for address in (UPLINK6, GATEWAY)]

    with answering(guest):
        plain.host.sh(f"echo 0 >{BRIDGED}")
        eventually(lambda: itself(2) == [GATEWAY] * 2, 30.0)
        plain.host.sh(f"echo 1 >{BRIDGED}")
        assert itself(SOON) == ["", ""]
        plain.host.sh(f"ip link set dev {guest.tap} type bridge_slave hairpin on")
        assert itself() == [GATEWAY] * 2


# --- other firewalls -----------------------------------------------------------------------------

FORBID = """
for chain in INPUT FORWARD OUTPUT; do {tool} -P $chain DROP; done
{tool} -A INPUT -i lo -j ACCEPT; {tool} -A OUTPUT -o lo -j ACCEPT
{tool} -A OUTPUT -o uplink0 -j ACCEPT; {tool} -A INPUT -i uplink0 -j ACCEPT
"""


@pytest.mark.parametrize("tool", ["ip6tables-nft", "ip6tables-legacy"])
def test_ip6tables_lets_through_what_is_needed(plain: Lab, tool: str) -> None:
    """As ufw and Docker drop by policy; what was there is as before when the network is gone."""
    add_uplink(plain)
    plain.host.sh(FORBID.format(tool=tool))
    before = plain.host.run([f"{tool}-save", "-t", "filter"]).stdout
    network = start(plain)
    one, two = plain.guest(network), plain.guest(network)
    for guest in (one, two):
        own_address(guest)
        slaac(guest)
    assert pings(plain, one.ipv6)
    assert pings(one, GATEWAY)
    assert pings(one, two.ipv6)
    assert pings(one, INTERNET6)
    assert loopnet(plain, "plan") == "nothing to do\n"
    with served(plain, GATEWAY) as asked, pytest.raises(OSError, match="timed out"):
        asked(one, 2)  # a service of the host's, which its firewall forbids
    plain.host.run([tool, "-F", "LOOPNET_INPUT"])
    assert not pings(one, GATEWAY, 1)
    assert tool in loopnet(plain, "sync")
    assert pings(one, GATEWAY)
    plain.stop(network)
    after = plain.host.run([f"{tool}-save", "-t", "filter"]).stdout
    assert without_counters(after) == without_counters(before)


def without_counters(saved: str) -> list[str]:
    return [line.partition(" [")[0] for line in saved.splitlines() if not line.startswith("#")]


# --- what libvirt gives --------------------------------------------------------------------------

GIVEN = "2001:db8:1::1"
GIVEN_PREFIX = "2001:db8:1::/64"


class Given:
    """A network with a global prefix that was libvirt's, and is loopnet's now; the LAN has a route to it."""

    def __init__(self, lab: Lab, forward: str, internet: str = "all") -> None:
        add_uplink(lab)
        lab.host.sh("echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")  # as libvirt does
        lab.host.run(["ip", "-n", "lan", "-6", "route", "add", GIVEN_PREFIX, "via", UPLINK6])
        plain = lab.network(1, internet=internet)
        given = f"<ip family='ipv6' address='{GIVEN}' prefix='64'/>"
        xml = plain.xml.replace("gateway='1'", f"gateway='1' ipv6-forward='{forward}'")
        xml = xml.replace("<dnsmasq:options", f"{given}<dnsmasq:options")
        model = parse_network(xml.encode())
        assert model
        assert model.ipv6_given
        self.lab, self.network = lab, LabNetwork(model, xml)
        lab.network_hook(self.network, "start")
        lab.make_bridge(self.network)
        lab.host.sh(
            f"echo 0 >/proc/sys/net/ipv6/conf/virbr1/disable_ipv6; ip address add {GIVEN}/64 dev virbr1 nodad"
        )
        lab.network_hook(self.network, "started")
        lab.note(self.network)
        self.one, self.two = lab.guest(self.network), lab.guest(self.network)
        for guest, address in ((self.one, "2001:db8:1::51"), (self.two, "2001:db8:1::52")):
            guest.namespace.sh(
                f"ip address add {address}/64 dev eth0 nodad; ip -6 route add default via {GIVEN}"
            )

    def out(self, source: str, patience: float = 0.2) -> str:
        """What address a guest's packet to the internet has in the LAN, '' if it isn't seen there."""
        with Capture(self.lab.lan, "lan0") as outside, Capture(self.one.namespace, "eth0") as inside:
            inside.send(frame_to_router(self.one, source, INTERNET6))
            seen = outside.find(lambda frame: TOKEN in frame, patience)
        return socket.inet_ntop(socket.AF_INET6, seen[22:38]) if seen else ""

    def comes_in(self, destination: str, patience: float = 0.2) -> bool:
        mac = self.lab.lan.sh("ip -br link show lan0").split()[2]
        uplink = self.lab.path("/sys/class/net/uplink0/address").read_text().strip()
        with Capture(self.one.namespace, "eth0") as inside, Capture(self.lab.lan, "lan0") as outside:
            packet = frames6.udp((LAN6, 4000), (destination, 53), TOKEN)
            outside.send(frames.ethernet(mac, uplink, frames.IP6, packet))
            return inside.find(lambda frame: TOKEN in frame, patience) is not None


def test_given_and_masqueraded(plain: Lab) -> None:
    given = Given(plain, "nat")
    assert pings(given.one, "2001:db8:1::52")
    assert pings(given.one, GIVEN)
    assert pings(plain, "2001:db8:1::51")
    assert given.out("2001:db8:1::51", PATIENCE) == UPLINK6
    # While a fe80 address is tentative, the kernel looks for no neighbour to forward to (ndisc_send_ns()).
    eventually(lambda: pings(given.one, INTERNET6, 1), 20.0)
    assert not given.comes_in("2001:db8:1::51")
    assert loopnet(plain, "plan") == "nothing to do\n"


def test_given_and_routed(plain: Lab) -> None:
    given = Given(plain, "route")
    assert given.out("2001:db8:1::51", PATIENCE) == "2001:db8:1::51"
    # While a fe80 address is tentative, the kernel looks for no neighbour to forward to (ndisc_send_ns()).
    eventually(lambda: pings(given.one, INTERNET6, 1), 20.0)
    pings(plain, "2001:db8:1::51")  # now the host knows where it is
    assert given.comes_in("2001:db8:1::51", PATIENCE)
    for forged in (GIVEN, LAN6, "2001:db8:2::1", "fd00::1"):
        assert given.out(forged) == ""
    # To another network of ours it is no router, nor is that to it.
    other = start(plain, 2, ipv6=OTHER_PREFIX6)
    stranger = plain.guest(other)
    own_address(stranger)
    stranger.namespace.run(
        ["ip", "-6", "route", "add", GIVEN_PREFIX, "via", OTHER_PREFIX6.replace("::/64", "::1")]
    )
    assert not pings(stranger, "2001:db8:1::51", 1)
    assert not pings(given.one, stranger.ipv6, 1)


def test_given_and_isolated(plain: Lab) -> None:
    given = Given(plain, "nat", "none")
    assert pings(given.one, "2001:db8:1::52")
    assert pings(given.one, GIVEN)
    assert given.out("2001:db8:1::51") == ""
    assert not given.comes_in("2001:db8:1::51")


def test_without_our_rules_it_is_open(plain: Lab) -> None:
    """What these tests would see of a network whose rules libvirt took away."""
    given = Given(plain, "nat")
    pings(plain, "2001:db8:1::51")
    plain.host.run(["nft", "delete", "table", "ip6", "loopnet"])
    assert given.comes_in("2001:db8:1::51", PATIENCE)
    assert given.out("2001:db8:1::51", PATIENCE) == "2001:db8:1::51"
