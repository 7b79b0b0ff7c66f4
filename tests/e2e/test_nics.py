"""What QEMU offers for a NIC: models, offloads, jumbo frames, isolated ports. One guest has one of each."""

from __future__ import annotations

import re
from typing import Iterator, NamedTuple, Tuple

import pytest

from tests.sandbox import INTERNET, Guest
from tests.sandbox.image import GENERIC
from tests.sandbox.world import World, network_xml, wait

SIZE = 4 << 20
CLOSED = 9
JUMBO = 9000

NO_OFFLOADS = """\
<model type='virtio'/><driver name='qemu'>
  <host csum='off' gso='off' tso4='off' tso6='off' ecn='off' ufo='off' mrg_rxbuf='off'/>
  <guest csum='off' tso4='off' tso6='off' ecn='off' ufo='off'/>
</driver>"""
NO_CHECKSUMS_FROM_HOST = """\
<model type='virtio'/><driver name='qemu'>
  <guest csum='off' tso4='off' tso6='off' ecn='off' ufo='off'/>
</driver>"""
ISOLATED = "<port isolated='yes'/><model type='virtio'/>"


class Nic(NamedTuple):
    """Each is on a network of its own; the address's third number says which."""

    name: str
    settings: str
    network: str
    third: int
    mtu: int = 1500

    @property
    def loop(self) -> str:
        return f"127.{self.third}.0.2"

    @property
    def gateway(self) -> str:
        return f"10.127.{self.third}.1"


NICS = [
    Nic("virtio", "<model type='virtio'/>", "plain", 31),
    Nic("virtio without offloads", NO_OFFLOADS, "bare", 32),
    Nic("virtio, guest without offloads", NO_CHECKSUMS_FROM_HOST, "half", 33),
    Nic("e1000", "<model type='e1000'/>", "e1000", 34),
    Nic("e1000e", "<model type='e1000e'/>", "e1000e", 35),
    Nic("rtl8139", "<model type='rtl8139'/>", "rtl8139", 36),
    Nic("vmxnet3", "<model type='vmxnet3'/>", "vmxnet3", 37),
    Nic("jumbo", "<model type='virtio'/>", "jumbo", 38, mtu=JUMBO),
    Nic("isolated", ISOLATED, "isolated", 39),
]
IDS = [nic.name for nic in NICS]


class Nics(NamedTuple):
    """``guest`` has all NICs, ``other`` virtio ones on the networks plain, jumbo and isolated."""

    world: World
    guest: Guest
    other: Guest

    def device(self, nic: Nic) -> str:
        """The guest's name for it: drivers are loaded in an order of their own."""
        mac = self.guest.macs[NICS.index(nic)]
        return self.guest.run(f"grep -l {mac} /sys/class/net/eth*/address").split("/")[4]


OTHERS = [nic for nic in NICS if nic.name in ("virtio", "jumbo", "isolated")]


@pytest.fixture(scope="module")
def nics() -> Iterator[Nics]:
    with World(bridge_nf=True, rp_filter=True) as world:
        for nic in NICS:
            xml = network_xml(nic.network, f"127.{nic.third}.0.", f"10.127.{nic.third}.")
            if nic.mtu != 1500:
                xml = xml.replace("<domain ", f"<mtu size='{nic.mtu}'/><domain ")
            world.define(xml)
            world.sandbox.virsh("net-start", nic.network)
        guest = world.sandbox.guest(
            "nics", [nic.network for nic in NICS], settings=[nic.settings for nic in NICS], kernel=GENERIC,
            memory_mib=192,
        )  # fmt: skip
        settings = [nic.settings for nic in OTHERS]
        other = world.sandbox.guest("other", [nic.network for nic in OTHERS], settings=settings)
        for one in (guest, other):
            one.start()
        for one in (guest, other):
            one.wait_boot(180)
            for number in range(len(one.macs)):
                one.wait_lease(number, 180)
            # its UDP server is a perl that may take longer to start
            one.run("until netstat -lun | grep -q ':7 '; do sleep 0.1; done")
        yield Nics(world, guest, other)


@pytest.mark.parametrize("nic", NICS, ids=IDS)
def test_host_to_guest(nics: Nics, nic: Nic) -> None:
    world = nics.world
    assert world.page(nic.loop) == "hello from nics\n"
    assert world.page(nic.loop, "cgi-bin/peer") == f"10.127.{nic.third}.254\n"
    for payload in ("x", "x" * 1001, "y" * 4000, "z" * 60000):
        assert world.udp(nic.loop, 7, payload).endswith(f" {payload}")
    with pytest.raises(ConnectionRefusedError):
        world.udp(nic.loop, CLOSED, "hello")


@pytest.mark.parametrize("nic", NICS, ids=IDS)
def test_large_transfers(nics: Nics, nic: Nic) -> None:
    """From the guest and to it; segments of all sizes, and the checksum of the whole."""
    world, guest = nics.world, nics.guest
    guest.run(f"[ -e /www/big ] || head -c {SIZE} /dev/urandom >/www/big")
    there = guest.run("md5sum </www/big").split()[0]
    world.host.sh(f"curl -sS --max-time 100 -o /run/sandbox/big http://{nic.loop}/big", timeout=120)
    assert world.host.sh("md5sum </run/sandbox/big").split()[0] == there
    with world.host.popen(["busybox", "httpd", "-f", "-p", "8080", "-h", "/run/sandbox"]) as server:
        try:
            wait(lambda: world.host.run(["curl", "-sfI", "127.0.0.1:8080/big"], check=False).stdout, "server")
            got = guest.run(f"wget -qO- http://{nic.gateway}:8080/big | md5sum", timeout=120)
        finally:
            server.kill()
    assert got.split()[0] == there


@pytest.mark.parametrize("nic", NICS, ids=IDS)
def test_guest_to_internet(nics: Nics, nic: Nic) -> None:
    seen = nics.world.sandbox.host_address
    # A jumbo frame is lost at first: then the host says that the LAN takes smaller ones.
    told = nics.guest.run(
        f"ip route add {INTERNET} via {nic.gateway} dev {nics.device(nic)}\n"
        f"wget -qO- http://{INTERNET}/; udp send {INTERNET} 7 hello; udp send {INTERNET} {CLOSED} hello\n"
        f"ping -q -c 3 -i 0.2 -s 4000 {INTERNET} && echo answered; ip route del {INTERNET}",
        timeout=60,
    )
    assert told.startswith(f"hello from the internet; you are {seen}\n{seen}:")
    assert "refused\n" in told
    assert "\nanswered\n" in told


def test_offloads_are_what_was_asked_for(nics: Nics) -> None:
    """The tests above would prove nothing of offloads that libvirt or the guest did not turn off."""
    features = {}
    for name in ("virtio", "virtio without offloads", "virtio, guest without offloads"):
        device = nics.device(next(nic for nic in NICS if nic.name == name))
        bits = nics.guest.run(f"cat /sys/class/net/{device}/device/features")
        features[name] = (bits[0], bits[1])  # VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM
    assert list(features.values()) == [("1", "1"), ("0", "0"), ("1", "0")]


def test_jumbo_frames(nics: Nics) -> None:
    """One frame each: what must not be fragmented gets through, between guests, too."""
    nic = next(nic for nic in NICS if nic.mtu == JUMBO)
    device = nics.device(nic)
    assert f" mtu {JUMBO} " in nics.guest.run(f"ip link show {device}")
    whole = JUMBO - 28
    ping = f"ping -q -n -M do -c 1 -s {whole}"
    nics.world.host.sh(f"{ping} {nic.loop}")
    assert nics.world.host.run(
        ["sh", "-c", f"{ping.replace(str(whole), str(whole + 1))} {nic.loop}"], check=False
    ).returncode
    payload = "j" * (whole - 30)
    sent = fragments(nics.world)
    assert nics.world.udp(nic.loop, 7, payload).endswith(payload)
    assert fragments(nics.world) == sent
    other = nics.other.address(OTHERS.index(nic))
    nics.guest.run(f"ping -q -c 1 -s {whole} {other}")


def fragments(world: World) -> Tuple[str, str]:
    """How many the host has made and put together."""
    names, values = (line.split() for line in world.host.sh("grep ^Ip: /proc/self/net/snmp").splitlines())
    counters = dict(zip(names, values))
    return counters["FragCreates"], counters["ReasmReqds"]


def test_isolated_ports(nics: Nics) -> None:
    """The host reaches both guests, and they don't reach each other: not even through the host."""
    nic = next(nic for nic in NICS if nic.name == "isolated")
    theirs = nics.other.address(OTHERS.index(nic))
    assert theirs == f"10.127.{nic.third}.3"
    assert nics.world.page(nic.loop) == "hello from nics\n"
    assert nics.world.page(f"127.{nic.third}.0.3") == "hello from other\n"
    device = nics.device(nic)

    def reaches() -> bool:
        return "bytes from" in nics.guest.run(f"ping -c 1 -W 2 {theirs}", check=False)

    assert not reaches()
    via_host = f"{theirs} via {nic.gateway} dev {device}"
    nics.guest.run(f"ip route add {via_host}")
    nics.other.run(f"ip route add {nics.guest.address(int(device[3:]))} via {nic.gateway}")
    try:
        nics.guest.run(f"ping -q -c 1 {nic.gateway}")
        assert not reaches()
    finally:
        nics.guest.run(f"ip route del {via_host}")
        nics.other.run(f"ip route del {nics.guest.address(int(device[3:]))} via {nic.gateway}")
    # It is isolation that does it: without, they do.
    taps = re.findall(r"^\s*(vnet\d+)\s+network\s+isolated\s", domiflist(nics, "nics", "other"), re.MULTILINE)
    assert len(taps) == 2
    for tap in taps:
        nics.world.host.sh(f"bridge link set dev {tap} isolated off")
    try:
        wait(reaches, "answer without isolation")
    finally:
        for tap in taps:
            nics.world.host.sh(f"bridge link set dev {tap} isolated on")


def domiflist(nics: Nics, *names: str) -> str:
    return "\n".join(nics.world.sandbox.virsh("domiflist", name) for name in names)
