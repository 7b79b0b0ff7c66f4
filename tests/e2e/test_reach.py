"""Published ports from real guests of libvirt's own network, of this loopnet and of another; a real isolated
network, converted."""

from __future__ import annotations

import os
from typing import Callable, Iterator, List, NamedTuple

import pytest

from tests.sandbox import INTERNET, Guest, Sandbox
from tests.sandbox.capture import Capture
from tests.sandbox.world import FORBIDDEN, wait

LAB = """\
<network>
  <name>lab</name>
  <ip address='10.66.0.1' prefix='24'>
    <dhcp>
      <range start='10.66.0.2' end='10.66.0.99'/>
    </dhcp>
  </ip>
</network>
"""


class Reach(NamedTuple):
    sandbox: Sandbox
    web: Guest
    """On network one, published."""
    others: List[Guest]
    """On the same, on another loopnet, and on libvirt's own network."""
    lab: Guest
    """On a network that was isolated before it was converted."""


@pytest.fixture(scope="module")
def reach() -> Iterator[Reach]:
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    with (
        Sandbox(lan_prefix="192.168.7.0/24", bridge_nf=True) as sandbox,
        Capture(sandbox.lan, "lan0") as capture,
    ):
        host = sandbox.host
        for name in ("one", "two"):
            host.run(["loopnet", "define", name])
        host.run(["virsh", "-q", "net-define", "/dev/stdin"], input=LAB)
        host.run(["loopnet", "convert", "lab"])
        for name in ("one", "two", "lab", "default"):
            sandbox.virsh("net-start", name)
        web, *others = (
            sandbox.guest(name, [network])
            for name, network in (("web", "one"), ("peer", "one"), ("far", "two"), ("nat", "default"))
        )
        lab = sandbox.guest("lab1", ["lab"])
        for guest in (web, *others, lab):
            guest.start()
        for guest in (web, *others, lab):
            guest.wait_boot()
            guest.wait_lease()
        host.run(["loopnet", "publish", "web", "8080:80"])
        yield Reach(sandbox, web, others, lab)
        assert capture.frames
        assert not capture.within(*FORBIDDEN)


def page(guest: Guest, url: str, patience: int = 20) -> str:
    return guest.run(f"timeout {patience} wget -qO- http://{url}/", check=False)


def sees(guest: Guest, url: str) -> Callable[[], bool]:
    return lambda: "hello from web" in page(guest, url)


def test_from_guests_of_all_networks(reach: Reach) -> None:
    """The publisher itself among them."""
    for guest in (reach.web, *reach.others):
        wait(sees(guest, f"{reach.sandbox.host_address}:8080"), f"the published port from {guest.name}")


def test_from_the_host(reach: Reach) -> None:
    for address in ("127.0.0.1", "localhost", "192.168.122.1", reach.sandbox.host_address):
        command = ["curl", "-sS", "--max-time", "10", f"http://{address}:8080/"]
        assert reach.sandbox.host.run(command).stdout.strip() == "hello from web", address


def test_an_isolated_network_stays_so(reach: Reach) -> None:
    sandbox, lab = reach.sandbox, reach.lab
    assert 'internet="none"' in sandbox.virsh("net-dumpxml", "lab").replace("'", '"')
    assert lab.address() == "10.66.0.2"
    loop = sandbox.host.run(["loopnet", "ip", "lab1"]).stdout.strip()
    command = ["curl", "-sS", "--max-time", "10", f"http://{loop}/"]
    wait(
        lambda: "hello from lab1" in sandbox.host.run(command, check=False).stdout, "the guest from the host"
    )
    assert "default" not in lab.run("ip route")
    lab.run("ip route add default via 10.66.0.1")
    assert "hello" in page(reach.web, INTERNET)
    for url in (INTERNET, f"{sandbox.host_address}:8080", "10.66.0.1:8080"):
        assert "hello" not in page(lab, url, 4), url
    sandbox.host.run(["loopnet", "revert", "lab", "--restart"], timeout=60)
    assert "loopnet" not in sandbox.virsh("net-dumpxml", "--inactive", "lab")
