"""guest-to-host: what guests may begin with the host, by packets."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from libvirt_loopnet.networks.parsing import parse_network
from tests.netns.lab import Lab, LabGuest, LabNetwork
from tests.netns.wire import PATIENCE, Servers, ask_tcp, ask_udp
from tests.sandbox import INTERNET

WEB, DNS = 8080, 53
REACHED: dict[str, set[str]] = {
    "all": {"tcp 8080", "udp 53", "tcp 53", "ping"},
    "services": {"udp 53", "tcp 53", "ping"},
    "none": set(),
}


def network_with(lab: Lab, choice: str) -> LabNetwork:
    xml = lab.network(1).xml.replace("gateway='1'", f"gateway='1' guest-to-host='{choice}'")
    model = parse_network(xml.encode())
    assert model is not None
    assert model.guest_to_host == choice
    return LabNetwork(model, xml)


@pytest.fixture(scope="module", params=["mapped", "native"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab(mode=request.param) as made:
        yield made


def reached(guest: LabGuest, expected: set[str]) -> set[str]:
    """What of the host's services the guest gets an answer from; it waits for those that are expected."""
    found = set()
    for name, ask, port in (("tcp 8080", ask_tcp, WEB), ("tcp 53", ask_tcp, DNS), ("udp 53", ask_udp, DNS)):
        with contextlib.suppress(socket.timeout):
            ask(guest.namespace, (guest.gateway, port), timeout=PATIENCE if name in expected else 0.5)
            found.add(name)
    patience = PATIENCE if "ping" in expected else 1
    ping = guest.namespace.run(["ping", "-c", "1", f"-W{patience}", guest.gateway], check=False)
    return found | ({"ping"} if ping.returncode == 0 else set())


@pytest.mark.parametrize("choice", list(REACHED))
def test_services(lab: Lab, choice: str) -> None:
    network = network_with(lab, choice)
    lab.start(network)
    try:
        guest = lab.guest(network)
        with Servers() as servers:
            servers.tcp(lab.host, ("0.0.0.0", WEB))
            servers.both(lab.host, ("0.0.0.0", DNS))
            servers.tcp(guest.namespace, ("0.0.0.0", WEB))
            assert reached(guest, REACHED[choice]) == REACHED[choice]
            # The LAN's address of the host is the host as well.
            if choice != "all":
                with pytest.raises(socket.timeout):
                    ask_tcp(guest.namespace, (lab.host_address, WEB), timeout=0.5)
            # The other way round, and further on, nothing is closed.
            ask_tcp(lab.host, (guest.loop, WEB))
            ask_tcp(lab.host, (str(guest.network.model.transit_address(guest.number)), WEB))
        guest.namespace.run(["ping", "-c", "1", INTERNET])
    finally:
        lab.clean()
