"""Guests without libvirt: namespaces behind veth pairs that stand for taps."""

from __future__ import annotations

from tests.sandbox import Namespace, Sandbox
from tests.sandbox.holder import Holder
from tests.sandbox.world import wait

_FORWARDING = "3"
"""The state of a bridge port that carries traffic (linux/if_bridge.h)."""


def plug(
    sandbox: Sandbox,
    bridge: str,
    number: int,
    *,
    address: str = "",
    gateway: str = "",
) -> Namespace:
    """Guest ``number``: a namespace with eth0, whose other end, tapNUMBER, is in the bridge.

    ``address`` has a length; without it eth0 is down.
    """
    tail = f"54:00:ee:00:{number:02x}"
    sandbox.host.sh(
        f"ip netns add guest{number}\n"
        f"ip link add tap{number} address fe:{tail} type veth "
        f"peer name eth0 address 52:{tail} netns guest{number}\n"
        f"ip link set tap{number} master {bridge} up"
    )
    guest = namespace(sandbox, f"guest{number}")
    if address:
        guest.sh(
            "echo 1 >/proc/sys/net/ipv4/conf/all/rp_filter\n"  # as the guests of tests.netns.lab
            f"ip link set lo up; ip address add {address} dev eth0; ip link set eth0 up\n"
            f"ip route add default via {gateway}"
        )
    return guest


def wait_forwarding(sandbox: Sandbox, number: int) -> None:
    """Until spanning tree lets traffic through to guest ``number``, whose eth0 is up."""
    state = sandbox.path(f"/sys/class/net/tap{number}/brport/state")
    wait(lambda: state.read_text().strip() == _FORWARDING, "port that forwards")


def namespace(sandbox: Sandbox, name: str) -> Namespace:
    """The network namespace ``name`` of ``ip netns``."""
    holder: Holder = sandbox._holder
    return Namespace(holder, {}, network=f"/run/netns/{name}")
