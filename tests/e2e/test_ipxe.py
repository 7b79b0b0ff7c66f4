"""iPXE, an IP stack of its own, in each virtual NIC's ROM: it boots the test guest from the host.

What dnsmasq hands out by TFTP is a script, which fetches kernel and initramfs by HTTP.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, IPv6Network
from typing import Dict, Iterator, NamedTuple
from urllib.parse import unquote

import pytest

from tests.sandbox import INTERNET
from tests.sandbox.domain import KERNEL_ARGUMENTS
from tests.sandbox.image import guest_image
from tests.sandbox.netboot import NetGuest, WebServer, bootable
from tests.sandbox.world import MAPPED, NATIVE, Kind, World, wait

SCRIPT = """\
#!ipxe
echo iPXE ${{version}} has ${{net0/ip}}
imgfetch http://{server}/{name}/told?ip=${{net0/ip}}&ip6=${{net0/ip6}}&router=${{net0/gateway}}&dns=${{net0/dns}}
imgfetch http://{internet}/
imgfetch http://internet.example/
imgfetch http://{server}/{name}/reached-the-internet
imgfree
# Meanwhile the host calls
sleep 3
kernel http://{server}/{name}/vmlinuz {arguments} guest.hostname={name} {cmdline}
initrd http://{server}/{name}/initramfs
boot
"""
TFTP = "/run/sandbox/tftp"
IPV6 = {MAPPED: "fd12:3456:789a:1::/64", NATIVE: "fd12:3456:789a:2::/64"}


class Booted(NamedTuple):
    """A guest that came from the host's web server."""

    world: World
    kind: Kind
    guest: NetGuest
    server: WebServer
    pinged: str
    """What ping printed when iPXE was the only system that the guest had."""


@pytest.fixture(scope="module")
def all_booted() -> Iterator[Dict[Kind, Booted]]:
    """With IPv6, as networks have it: where nothing of it answers, iPXE waits for 13 seconds before it goes on."""
    image = guest_image()
    kinds = {"mapped": MAPPED, "native": NATIVE}
    files: Dict[str, object] = {}
    for name in kinds:
        files.update({f"/{name}/vmlinuz": image.vmlinuz, f"/{name}/initramfs": image.initramfs})
    with World() as world, WebServer(world.host, files) as server:
        world.path(TFTP).mkdir(mode=0o755)
        guests = {}
        for name, kind in kinds.items():
            script = SCRIPT.format(
                server=kind.gateway, internet=INTERNET, name=name, arguments=KERNEL_ARGUMENTS,
                cmdline=kind.cmdline,
            )  # fmt: skip
            world.path(f"{TFTP}/{name}.ipxe").write_text(script)
            world.define(bootable(world, kind, TFTP, f"{name}.ipxe", IPV6[kind]))
            world.sandbox.virsh("net-start", kind.name)
            guests[name] = NetGuest(world.sandbox, name, [kind.name], memory_mib=256)
            guests[name].define()
        for guest in guests.values():
            guest.start()
        pinged = {}
        for name, kind in kinds.items():
            path = f"/{name}/reached-the-internet"
            wait(lambda path=path: server.who(path), f"{path} from iPXE", timeout=120)  # type: ignore[misc]
            pinged[name] = world.host.sh(f"ping -n -c 3 -i 0.2 -W 5 {kind.loop}2")
        for guest in guests.values():
            guest.wait_boot()
            guest.wait_lease()
        yield {kind: Booted(world, kind, guests[n], server, pinged[n]) for n, kind in kinds.items()}


@pytest.fixture(params=[MAPPED, NATIVE], ids=["mapped", "native"])
def booted(request: pytest.FixtureRequest, all_booted: Dict[Kind, Booted]) -> Booted:
    return all_booted[request.param]


def test_it_has_its_lease(booted: Booted) -> None:
    told = next(path for _, path in booted.server.asked if path.startswith(f"/{booted.guest.name}/told"))
    kind = booted.kind
    dns = kind.gateway if kind is MAPPED else f"{kind.transit}254"
    found = re.search(r"ip=([\d.]+)&ip6=([^&]*)&router=([\d.]+)&dns=([\d.]+)", unquote(told))
    assert found, told
    ip, ip6, *servers = found.groups()
    assert [ip, *servers] == [f"{kind.guest}2", kind.gateway, dns]
    # Its number's by DHCPv6 or one that it has made itself, of which each version names another.
    assert IPv6Address(ip6) in IPv6Network(IPV6[kind])


def test_the_host_saw_it_in_the_transit_prefix(booted: Booted) -> None:
    for file in ("told", "vmlinuz", "initramfs"):
        assert booted.server.who(f"/{booted.guest.name}/{file}") == [f"{booted.kind.transit}2"]


def test_it_answered_at_its_loop_address(booted: Booted) -> None:
    assert f"bytes from {booted.kind.loop}2: icmp_seq=" in booted.pinged


def test_what_it_booted_is_there(booted: Booted) -> None:
    assert booted.world.page(f"{booted.kind.loop}2") == f"hello from {booted.guest.name}\n"
    assert booted.guest.address() == f"{booted.kind.guest}2"
