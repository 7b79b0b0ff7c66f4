"""Debian systems as guests: untouched on mapped networks, and on native ones prepared by guest-setup."""

from __future__ import annotations

import contextlib
import re
import time
from typing import Dict, Iterator, List, NamedTuple

import pytest

from tests.e2e.test_first_light import REBIND, dhcp
from tests.machines.guest import SystemGuest
from tests.machines.stacks import STACKS
from tests.machines.systems import system
from tests.sandbox import INTERNET, CommandError
from tests.sandbox.world import MAPPED, NATIVE, Kind, World, template, wait

from .prepare import prepared, seed, setup

pytestmark = pytest.mark.timeout(1800)

T1 = 40
"""Seconds after which a client renews its lease: long before its half, which dnsmasq would suggest."""
SLOW = 120.0

KINDS = {"mapped": MAPPED, "native": NATIVE}
SECOND = {
    "mapped": Kind("second", "127.3.0.", "10.127.3.", "247.3.0."),
    "native": Kind("second-native", "127.4.0.", "127.4.0.", "247.4.0."),
}
LET_ROOT_IN = "disable_root: false\nssh_deletekeys: false\n"
BY_SMBIOS = ("trixie", "smbios")
"""These are as untouched in native mode as in mapped: what they need is in the SMBIOS."""
SYSCTL_ALONE = "smbios"
"""bookworm's systemd 252 takes no more than a sysctl from there."""
FETCH = "exec 3<>/dev/tcp/{}/80 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && tail -n 1 <&3"


class Real(NamedTuple):
    """A guest that has booted, and where it is."""

    world: World
    stack: str
    kind: Kind
    second: Kind
    guest: SystemGuest

    @property
    def name(self) -> str:
        return f"{self.guest.name}.{self.kind.name}"

    def start(self) -> None:
        """Starts the guest as it has been described, in native mode with credentials if it is prepared so."""
        self.guest.define()
        if self.stack in BY_SMBIOS and self.kind is NATIVE:
            setup(self.world, "smbios", "--domain", self.guest.name)
        self.guest.start()


Pair = Dict[str, Real]


@pytest.fixture(scope="module", params=list(STACKS))
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """The same system twice: on a mapped network, and prepared on a native one."""
    stack = request.param
    with World(ip_rule=True, bridge_nf=True) as world, contextlib.ExitStack() as stacked:
        for kind in KINDS.values():
            world.define(with_t1(template(kind.name)))
            world.sandbox.virsh("net-start", kind.name)
        for mode, second in SECOND.items():
            define = ["loopnet", "define", second.name, "--mode", mode, "--loop-prefix", f"{second.loop}0/24"]
            world.host.run(define)
            world.sandbox.virsh("net-start", second.name)
        found: Pair = {}
        for mode, kind in KINDS.items():
            guest = made(world, stack, mode, stacked)
            found[mode] = Real(world, stack, kind, SECOND[mode], guest)
            found[mode].start()
        for real in found.values():
            real.guest.wait_boot()
        yield found
        world.clean()


def made(world: World, stack: str, mode: str, stacked: contextlib.ExitStack) -> SystemGuest:
    """The guest called like its mode, not started."""
    networks = [KINDS[mode].name, SECOND[mode].name]
    debian = system(stack)
    disk = image = None
    if stack == "cloud-init":
        user_data = setup(world, "cloud-init") if mode == "native" else "#cloud-config\n"
        image = stacked.enter_context(seed(user_data + LET_ROOT_IN))
    elif mode == "native" and stack not in BY_SMBIOS:
        disk = stacked.enter_context(prepared(world, debian, stack, mode, networks))
    return SystemGuest(world.sandbox, mode, networks[:1], debian, disk=disk, second=image)


@pytest.fixture(params=["mapped", "native"])
def real(request: pytest.FixtureRequest, pair: Pair) -> Real:
    return pair[request.param]


@pytest.fixture(scope="module")
def rebooted(pair: Pair) -> Pair:
    """Both with one more NIC."""
    for one in pair.values():
        one.guest.attach_nic(one.second.name)
        one.guest.go_down()
        one.start()
    for one in pair.values():
        one.guest.wait_boot()
    return pair


def with_t1(xml: str) -> str:
    """A definition whose DHCP server tells when to renew."""
    return xml.replace(
        "  </dnsmasq:options>", f"    <dnsmasq:option value='dhcp-option=58,{T1}'/>\n  </dnsmasq:options>"
    )


def check_network(real: Real) -> None:
    """Address, route, names, internet, ssh."""
    guest, kind = real.guest, real.kind
    assert guest.wait_lease() == f"{kind.guest}2"
    check_internet(real, f"via {kind.gateway} dev eth0")
    assert resolved(guest, real.name) in ([f"{kind.guest}2"], ["127.0.1.1"])
    wait(lambda: arrived(real, real.name) == [kind.host, f"{kind.guest}2"], f"ssh to {real.name}", SLOW)


def check_internet(real: Real, *routes: str) -> None:
    """By any of these default routes."""
    guest = real.guest

    def has_route() -> bool:
        default = guest.run("ip route show default")
        return any(route in default for route in routes)

    wait(has_route, "default route", SLOW)
    wait(lambda: resolved(guest, "internet.example") == [INTERNET], "DNS", SLOW)
    page = guest.run(f"bash -c {quoted(FETCH.format('internet.example'))}", timeout=60)
    assert page == f"hello from the internet; you are {real.world.sandbox.host_address}\n"


def arrived(real: Real, target: str) -> List[str]:
    """Whom an sshd takes the host for, and where it was reached; nothing if it wasn't."""
    with contextlib.suppress(CommandError):
        client, _, server, _ = real.guest.ssh(target, "echo $SSH_CONNECTION").split()
        return [client, server]
    return []


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def resolved(guest: SystemGuest, name: str) -> List[str]:
    told = guest.run(f"getent ahostsv4 {name}", check=False, timeout=60)
    return list(dict.fromkeys(re.findall(r"^\S+", told, re.MULTILINE)))


def test_network(real: Real) -> None:
    check_network(real)


def test_the_rest_of_127_stays_with_the_guest(real: Real) -> None:
    for address in ("127.0.0.1", "127.0.0.53", "127.200.0.1"):
        real.guest.run(f"ping -q -c 1 -W 5 {address}")
    assert "dev lo" in real.guest.run("ip route get 127.200.0.1")


def test_renewal(real: Real) -> None:
    """By itself, at the time that the server told; by unicast."""
    mac = real.guest.macs[0]

    def renewed() -> bool:
        return dhcp(real.world.syslog(), mac)[-2:] == ["DHCPREQUEST", "DHCPACK"] and (
            dhcp(real.world.syslog(), mac).count("DHCPACK") > before
        )

    before = dhcp(real.world.syslog(), mac).count("DHCPACK")
    wait(renewed, "renewal", SLOW + 2 * T1)
    assert "DHCPNAK" not in dhcp(real.world.syslog(), mac)
    assert real.guest.address() == f"{real.kind.guest}2"


def test_rebinding(real: Real) -> None:
    mac = real.guest.macs[0]
    before = dhcp(real.world.syslog(), mac).count("DHCPACK")
    real.guest.run(f"cat >/tmp/rebind <<'END'\n{REBIND}END")
    real.guest.run(f"perl /tmp/rebind {real.kind.guest}2 {mac.replace(':', '')}")
    wait(lambda: dhcp(real.world.syslog(), mac).count("DHCPACK") > before, "answer to rebinding", SLOW)
    check_network(real)


def test_suspend_and_resume(real: Real) -> None:
    real.world.sandbox.virsh("suspend", real.guest.name)
    time.sleep(5)
    real.world.sandbox.virsh("resume", real.guest.name)
    check_network(real)


def test_with_an_ip_rule_in_the_guest(real: Real) -> None:
    """From the first rule on the kernel asks table local, with lo's 127/8, before all others."""
    real.guest.run("ip rule add to 203.0.113.0/24 table 51820")
    try:
        if real.stack == SYSCTL_ALONE and real.kind is NATIVE:
            assert "dev lo" in real.guest.run(f"ip route get {real.kind.host}")
            ping = ["ping", "-q", "-c", "2", "-W", "5", f"{real.kind.loop}2"]
            assert real.world.host.run(ping, check=False).returncode != 0
        else:
            check_network(real)
    finally:
        real.guest.run("ip rule del to 203.0.113.0/24 table 51820")


@pytest.mark.parametrize("mode", ["mapped", "native"])
def test_reboot_with_a_second_nic(rebooted: Pair, mode: str) -> None:
    """With dhclient, which gives no metrics, the default route and DNS are those of the NIC that was first."""
    real = rebooted[mode]
    assert real.guest.wait_lease() == f"{real.kind.guest}2"
    assert real.guest.wait_lease(1) == f"{real.second.guest}2"
    check_internet(real, f"via {real.kind.gateway} dev eth0", f"via {real.second.gateway} dev eth1")
    for kind in (real.second, real.kind):
        address, seen = f"{kind.loop}2", [kind.host, f"{kind.guest}2"]
        wait(lambda: arrived(real, address) == seen, f"ssh to {address}", SLOW)  # noqa: B023
