"""Published ports answer everybody who would reach the same port of the host, whoever masquerades them."""

from __future__ import annotations

import os
import socket
import struct

import pytest

from tests.sandbox import Namespace

from .others import CLIENT, GATEWAY, RULES, other_network
from .test_publish import HOST_PORT, OTHER_PORT, PORT, Stage, lab, loopnet, stage
from .wire import Capture, Servers, ask_tcp, ask_udp, check_refusal, stream_socket

__all__ = ["lab", "stage"]


@pytest.fixture
def published(stage: Stage) -> Stage:
    loopnet(stage.lab, "publish", stage.guest.name, f"{HOST_PORT}:{PORT}")
    loopnet(stage.lab, "publish", stage.guest.name, f"{HOST_PORT}:{PORT}/udp")
    return stage


def seen_by_guest(client: Namespace, address: str, size: int = 5000) -> set[str]:
    """How the guest sees ``client``, by TCP and UDP."""
    there = (address, HOST_PORT)
    return {ask_tcp(client, there, b"x" * 200_000)[1], ask_udp(client, there, b"y" * size)[1]}


@pytest.mark.parametrize("whose", RULES)
def test_from_networks_that_others_masquerade(published: Stage, whose: str) -> None:
    lab = published.lab
    with other_network(lab, RULES[whose]) as client:
        for address in (lab.host_address, GATEWAY):
            assert seen_by_guest(client, address) == {CLIENT}
        with pytest.raises(OSError):
            ask_tcp(client, (lab.host_address, OTHER_PORT), timeout=0.5)
        assert seen_by_guest(lab.host, GATEWAY) == {GATEWAY}
        assert seen_by_guest(lab.lan, lab.host_address) == {published.lan_source}
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            loopnet(lab, "publish", published.guest.name, f"9:9/{'tcp' if kind == 1 else 'udp'}")
            check_refusal(client, kind, (lab.host_address, 9))
        assert loopnet(lab, "plan").stdout == "nothing to do\n"


def test_from_guests(published: Stage) -> None:
    """The publisher itself among them; all are the gateway to it, by which it answers them."""
    lab, guest = published.lab, published.guest
    for client in (published.neighbour, published.stranger, guest):
        # What is in a guest's own prefix it looks for on its own wire.
        hidden = published.collides and client is not published.stranger
        for address in [client.gateway] if hidden else [client.gateway, lab.host_address]:
            assert seen_by_guest(client.namespace, address) == {guest.gateway}
    with Capture(published.neighbour.namespace, "eth0") as wire:
        for _ in range(20):
            ask_udp(published.neighbour.namespace, (published.neighbour.gateway, HOST_PORT))
        assert wire.find(is_redirect, 0.3) is None


def is_redirect(frame: bytes) -> bool:
    return frame[12:14] == b"\x08\x00" and frame[23] == socket.IPPROTO_ICMP and frame[34] == 5


def test_from_the_host_by_localhost(published: Stage) -> None:
    lab, guest = published.lab, published.guest
    assert seen_by_guest(lab.host, "127.0.0.1") == {guest.gateway}
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        loopnet(lab, "publish", guest.name, f"9:9/{'tcp' if kind == 1 else 'udp'}")
        check_refusal(lab.host, kind, ("127.0.0.1", 9))
    # The rest of 127/8 is nobody's: 127.0.0.53 is systemd-resolved, for one.
    for address in ("127.0.0.53", "127.200.0.1"):
        with pytest.raises(ConnectionRefusedError):
            ask_tcp(lab.host, (address, HOST_PORT))


def test_a_program_keeps_localhost(published: Stage) -> None:
    """What listens at 127.0.0.1 keeps it; the LAN reaches the guest all the same."""
    lab, guest = published.lab, published.guest
    with Servers() as servers:
        servers.both(lab.host, ("127.0.0.1", HOST_PORT))
        loopnet(lab, "sync")
        assert ask_tcp(lab.host, ("127.0.0.1", HOST_PORT))[1] == "127.0.0.1"
        assert ask_udp(lab.host, ("127.0.0.1", HOST_PORT))[1] == "127.0.0.1"
        assert seen_by_guest(lab.lan, lab.host_address) == {published.lan_source}
        assert loopnet(lab, "plan").stdout == "nothing to do\n"
    loopnet(lab, "sync")
    assert seen_by_guest(lab.host, "127.0.0.1") == {guest.gateway}


def test_the_gateway_keeps_its_own_services(stage: Stage) -> None:
    lab, guest, neighbour = stage.lab, stage.guest, stage.neighbour
    loopnet(lab, "publish", guest.name, f"{lab.host_address}:53:{PORT}/udp")
    loopnet(lab, "publish", guest.name, f"69:{PORT}/udp")
    own = str(neighbour.network.model.own_transit[-1])
    with Servers() as servers:
        for port in (53, 69):
            servers.udp(lab.host, (own, port))
            address = neighbour.gateway if lab.mode == "mapped" else own
            assert ask_udp(neighbour.namespace, (address, port))[1] == neighbour.transit


def test_ranges(stage: Stage) -> None:
    """Each port leads to its own, and to no other; connections end when it is closed."""
    lab, guest = stage.lab, stage.guest
    last = 19000 if lab.mode == "native" else 9100  # nft takes seconds to list ten thousand
    loopnet(lab, "publish", guest.name, f"8000-8002:{PORT - 1}-{OTHER_PORT}")
    loopnet(lab, "publish", guest.name, f"9000-{last}:9000-{last}/udp")
    with Servers() as servers:
        for port in (9000, last):
            servers.udp(guest.namespace, ("0.0.0.0", port))
            assert ask_udp(lab.lan, (lab.host_address, port))[1] == stage.lan_source
        for client in (lab.lan, lab.host):
            for port in (8001, 8002):
                ask_tcp(client, (lab.host_address, port))
            check_refusal(client, socket.SOCK_STREAM, (lab.host_address, 8000))
        check_refusal(lab.lan, socket.SOCK_STREAM, (lab.host_address, 8003))
    assert loopnet(lab, "plan").stdout == "nothing to do\n"
    said = loopnet(lab, "publish", stage.neighbour.name, f"8002:{PORT}", status=2).stderr
    assert "8000-8002:79-81/tcp of vm" in said
    file = lab.path(f"/var/lib/libvirt-loopnet/{guest.network.model.name}.reservations")
    assert file.read_text().startswith("# libvirt-loopnet reservations, version 3\n")
    loopnet(lab, "unpublish", guest.name, "8000-8002")
    check_refusal(lab.lan, socket.SOCK_STREAM, (lab.host_address, 8001))
    loopnet(lab, "unpublish", guest.name, "--all")
    assert file.read_text().startswith("# libvirt-loopnet reservations, version 1\n")


def test_from_a_prefix_only(stage: Stage) -> None:
    """Nobody else gets in, by any address of the host, nor goes on when the prefix changes."""
    lab, guest = stage.lab, stage.guest
    there = (lab.host_address, HOST_PORT)
    loopnet(lab, "publish", guest.name, f"{HOST_PORT}:{PORT}", "--from", f"{lab.router_address}/32")
    ask_tcp(lab.lan, there)
    with other_network(lab, RULES["docker, nft"]) as client:
        for namespace, address in ((client, GATEWAY), (stage.stranger.namespace, stage.stranger.gateway)):
            with pytest.raises(OSError):
                ask_tcp(namespace, (address, HOST_PORT), timeout=0.5)
    ask_tcp(lab.host, there)
    ask_tcp(lab.host, ("127.0.0.1", HOST_PORT))
    loopnet(lab, "unpublish", guest.name, f"{HOST_PORT}:{PORT}")
    loopnet(lab, "publish", guest.name, f"{HOST_PORT}:{PORT}")
    with stream_socket(lab.lan) as stream:
        stream.connect(there)
        loopnet(lab, "unpublish", guest.name, str(HOST_PORT))
        only = str(stage.second.model.loop_prefix)
        loopnet(lab, "publish", guest.name, f"{HOST_PORT}:{PORT}", "--from", only)
        assert only in loopnet(lab, "list").stdout
        stream.send(b"late")
        stream.settimeout(1)
        with pytest.raises(socket.timeout):
            stream.recv(100)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # nothing is repeated
    with pytest.raises(OSError):
        ask_tcp(lab.lan, there, timeout=0.5)
    assert ask_tcp(stage.stranger.namespace, (stage.stranger.gateway, HOST_PORT))[1] == guest.gateway
    with pytest.raises(OSError):
        ask_tcp(stage.neighbour.namespace, (stage.neighbour.gateway, HOST_PORT), timeout=0.5)
    assert loopnet(lab, "plan").stdout == "nothing to do\n"


@pytest.mark.parametrize("address", ["0.0.0.0", "HOST", "127.0.0.1"])
def test_a_port_of_a_program_is_refused(stage: Stage, address: str) -> None:
    """By name; at 127.0.0.1 alone it is no obstacle, and it is said that it keeps that."""
    lab, guest = stage.lab, stage.guest
    before = lab.rules()
    with Servers() as servers:
        servers.both(lab.host, (address.replace("HOST", lab.host_address), HOST_PORT))
        for kind in ("tcp", "udp"):
            local = address == "127.0.0.1"
            ports = f"{HOST_PORT - 1}-{HOST_PORT + 1}:1-3/{kind}"
            said = loopnet(lab, "publish", guest.name, ports, status=0 if local else 2).stderr
            assert f"(process {os.getpid()})" in said or "a program" in said
            assert f"port {HOST_PORT}/{kind}" in said
            assert said.count("\n") == 1
        if not local:
            assert lab.rules() == before
            loopnet(
                lab,
                "publish",
                guest.name,
                f"{GATEWAY}:{HOST_PORT}:1",
                status=2 if address == "0.0.0.0" else 0,
            )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("1-3:1-2",), "1-3 has 3, 1-2 has 2"), (("3-1:3-1",), "not a range"),
        (("1:1", "--from", "fd00::/64"), "has no IPv6 prefix"), (("1:1", "--from", "10.0.0.1/8"), "host bits"),
        (("1:1", "--from", "10.0.0.1"), "no length"), (("1:1", "--from", ""), "no length"),
    ],
)  # fmt: skip
def test_bad_input_changes_nothing(stage: Stage, arguments: tuple[str, ...], says: str) -> None:
    before = stage.lab.rules()
    said = loopnet(stage.lab, "publish", stage.guest.name, *arguments, status=2).stderr
    assert says in said
    assert said.count("\n") == 1
    assert stage.lab.rules() == before
