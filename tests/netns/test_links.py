"""lo, addresses and ways out as netlink tells them, where a host has several."""

from __future__ import annotations

import json
from pathlib import Path

from .lab import Lab

CHECKOUT = Path(__file__).resolve().parents[2]
HOST = """\
ip link set lo up
ip link add one type veth peer name two
for link in one two; do ip link set $link up; done
ip address add 10.9.0.2/24 dev one
ip address add 10.9.1.1 peer 10.9.1.2/30 dev one
ip address add 10.8.0.2/24 dev two
ip route add default metric 50 nexthop via 10.9.0.1 dev one nexthop via 10.8.0.1 dev two
ip route add default dev two metric 10
ip route add blackhole default metric 5
"""
LOOK = """\
import json, sys; sys.path.insert(0, sys.argv[1])
from libvirt_loopnet.host.kernel import links
print(json.dumps([links.lo(), links.uplinks(), sorted(links.own_addresses())]))
"""


def test_several_ways_out() -> None:
    with Lab() as lab:
        lab.host.sh("ip netns add several")
        several = lab.namespace("several")
        several.sh(HOST)
        said = several.run(["/usr/bin/python3", "-c", LOOK, str(CHECKOUT)])
    lo, uplinks, own = json.loads(said.stdout)
    assert lo == ["127.0.0.1/8"]
    assert uplinks == [["two", ["10.8.0.2/24"], ""], ["one", ["10.9.0.2/24", "10.9.1.1/30"], "10.9.0.1"]]
    assert own == ["10.8.0.2", "10.9.0.2", "10.9.1.1", "127.0.0.1"]
