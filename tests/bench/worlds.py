"""Hosts with guests, each in a sandbox of its own: ours, a plain bridge, libvirt's NAT network.

All have the same traffic to offer, by the same kind of veth pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from libvirt_loopnet.model import FREE
from tests.netns.arena import INTERNET6, LAN6, PREFIX6, UPLINK6
from tests.netns.lab import Lab, eventually
from tests.sandbox import INTERNET, Namespace, Sandbox

from .crowd import add_crowd, add_network, wide_network
from .daemon import daemon
from .endpoint import Route, serving
from .wires import plug, wait_forwarding

LAN = "192.0.2.0/24"
HOST_TO_GUEST, GUEST_TO_HOST = "host to guest", "guest to host"
GUEST_TO_GUEST, GUEST_TO_INTERNET = "guest to guest", "guest to internet"
LOCALHOST, LAN_TO_HOST = "localhost", "LAN to host"
"""What has nothing to do with guests."""

TRACKING = """\
table ip firewall {
	chain input {
		type filter hook input priority 0; policy accept;
		ct state established accept
	}
}
"""


class World(NamedTuple):
    """A sandbox whose host, two guests and internet serve."""

    sandbox: Sandbox
    routes: dict[str, Route]
    """By who calls whom."""


@contextmanager
def loopnet(
    *, guests: int = 2, networks: int = 1, addresses: str = FREE, also: bool = False, ipv6: str = ""
) -> Iterator[World]:
    """A loopnet network /21 with ``guests``, two of which have traffic, and others without any.

    With ``also`` the first of them sends from an address that it has beside its first.
    """
    with Lab(lan_prefix=LAN, addresses=addresses) as lab:
        network = wide_network(lab, ipv6)
        for index in range(2, networks + 1):
            add_network(lab, lab.network(index))
        add_crowd(lab, network.model, guests - 2)
        one, two = lab.guest(network), lab.guest(network)
        if also:
            first, one = one, one._replace(number=1500)
            lab.host.run(["loopnet", "reserve", one.name, "--also", one.loop])
            one.namespace.sh(
                f"ip address delete {first.address}/21 dev eth0\n"
                f"ip address add {one.address}/21 scope global dev eth0\n"
                f"ip route replace default via {one.gateway}"
            )
        with world(lab, one.namespace, two.namespace, one.loop, two.address, one.gateway) as found:
            yield found


@contextmanager
def loopnet6(*, guests: int = 2) -> Iterator[World]:
    """The same with IPv6, which the traffic takes; the host has a way out."""
    with Lab(lan_prefix=LAN) as lab, ExitStack() as stack:
        lab.host.sh(
            f"ip address add {UPLINK6}/64 dev uplink0 nodad; ip -n lan address add {LAN6}/64 dev lan0 nodad\n"
            f"ip -n lan address add {INTERNET6}/128 dev lo nodad; ip -6 route add default via {LAN6}"
        )
        network = wide_network(lab, PREFIX6)
        add_crowd(lab, network.model, guests - 2)
        one, two = lab.guest(network), lab.guest(network)
        gateway = str(network.model.ipv6_own[0])
        for guest in (one, two):
            guest.namespace.sh(
                f"ip address add {guest.ipv6}/64 dev eth0 nodad; ip -6 route replace default via {gateway}\n"
                "echo 0 >/proc/sys/net/ipv6/conf/eth0/autoconf"
            )

        def route(client: Namespace, address: str, server: Namespace) -> Route:
            return Route(client, address, pid=stack.enter_context(serving(server, "::")), pinned=True)

        routes = {
            HOST_TO_GUEST: route(lab.host, one.ipv6, one.namespace),
            GUEST_TO_HOST: route(one.namespace, gateway, lab.host),
            GUEST_TO_INTERNET: route(one.namespace, INTERNET6, lab.lan),
        }
        for each in routes.values():
            eventually(lambda each=each: _pings(each), 20.0)  # type: ignore[misc]
        yield World(lab, routes)


def _pings(route: Route) -> bool:
    argv = ["ping", "-6", "-n", "-c1", "-W1", route.address]
    return route.client.run(argv, check=False).returncode == 0


@contextmanager
def bridge(*, tracked: bool = False) -> Iterator[World]:
    """The same bridge with nothing but addresses; no guest gets beyond the host.

    With ``tracked`` the host knows its connections, as any with a firewall does.
    """
    with Sandbox(lan_prefix=LAN, libvirtd=False, hooks=False, ip_forward=True) as sandbox:
        if tracked:
            sandbox.host.run(["nft", "-f", "-"], input=TRACKING)
        sandbox.host.sh(
            "ip link add br0 type bridge forward_delay 0\n"
            "ip address add 10.127.1.1/24 dev br0; ip link set br0 up"
        )
        with _guests(sandbox, "br0", "10.127.1.") as found:
            yield found


@contextmanager
def nat() -> Iterator[World]:
    """libvirt's default network."""
    with daemon(hooks=False) as libvirtd:
        libvirtd.connection.networkLookupByName("default").create()
        with _guests(libvirtd.sandbox, "virbr0", "192.168.122.") as found:
            yield found


@contextmanager
def _guests(sandbox: Sandbox, bridge: str, prefix: str) -> Iterator[World]:
    gateway = f"{prefix}1"
    one = plug(sandbox, bridge, 1, address=f"{prefix}11/24", gateway=gateway)
    two = plug(sandbox, bridge, 2, address=f"{prefix}12/24", gateway=gateway)
    wait_forwarding(sandbox, 2)
    with world(sandbox, one, two, f"{prefix}11", f"{prefix}12", gateway) as found:
        yield found


@contextmanager
def world(
    sandbox: Sandbox, one: Namespace, two: Namespace, to_one: str, to_two: str, gateway: str
) -> Iterator[World]:
    """``to_one`` is how the host calls guest ``one``, ``to_two`` how that calls the other."""
    with ExitStack() as stack:

        def pinned(client: Namespace, address: str, server: Namespace) -> Route:
            pid = stack.enter_context(serving(server))
            return Route(client, address, pid=pid, pinned=True)

        host = stack.enter_context(serving(sandbox.host))
        routes = {
            HOST_TO_GUEST: pinned(sandbox.host, to_one, one),
            GUEST_TO_HOST: Route(one, gateway, pid=host, pinned=True),
            GUEST_TO_GUEST: pinned(one, to_two, two),
            GUEST_TO_INTERNET: pinned(one, INTERNET, sandbox.lan),
            LOCALHOST: Route(sandbox.host, "127.0.0.1", pid=host, pinned=True),
            LAN_TO_HOST: Route(sandbox.lan, sandbox.host_address, pid=host, pinned=True),
        }
        yield World(sandbox, routes)
