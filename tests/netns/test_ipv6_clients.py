"""Real DHCPv6 clients in guests, against libvirt's dnsmasq as we configure it: each has its number's address."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.machines import busybox
from tests.sandbox.packages import available, provide

from .arena import PREFIX6
from .lab import Lab, LabGuest, eventually
from .networkd import FILES, RUN, prepare
from .wire import PATIENCE

pytestmark = pytest.mark.timeout(900)  # one of them is built

NETWORKD = "[Match]\nName=eth0\n[Network]\nDHCP=ipv6\nIPv6AcceptRA=yes\n"
# Its own /etc/resolv.conf: what a client writes there is no business of the host's.
OWN_RESOLVER = "touch /run/resolv.guest; mount --bind /run/resolv.guest /etc/resolv.conf; "
# As it boots: NetworkManager takes over no NIC that has addresses already, and Ubuntu's no Ethernet unless told to.
NETWORKMANAGER = """
ip address flush dev eth0; ip link set eth0 down
for directory in /run/dbus /run/NetworkManager /var/lib/NetworkManager; do
    mkdir -p $directory; mount -t tmpfs none $directory
done
mount -o remount,bind,ro /sys; mkdir -m 700 /run/NetworkManager/profiles
cat >/run/NetworkManager/profiles/eth0.nmconnection <<END
[connection]
id=eth0
type=ethernet
interface-name=eth0
[ipv4]
method=disabled
[ipv6]
method=auto
END
chmod 600 /run/NetworkManager/profiles/*
cat >/run/NetworkManager.conf <<END
[main]
plugins=keyfile
dns=none
auth-polkit=false
[keyfile]
path=/run/NetworkManager/profiles
unmanaged-devices=type:loopback
END
bus=$(dbus-daemon --system --fork --nopidfile --print-pid --address=unix:path=/run/dbus/system_bus_socket)
NetworkManager --no-daemon --config /run/NetworkManager.conf &
trap "kill $! $bus" TERM
wait; wait
"""
# Its example script does as much with the address.
UDHCPC6 = """
cat >/run/udhcpc6.script <<'END'
#!/bin/sh
case $1 in bound|renew) ip -6 address replace $ipv6/128 dev $interface;; esac
END
chmod +x /run/udhcpc6.script; exec /run/udhcpc6 -f -i eth0 -s /run/udhcpc6.script
"""
CLIENTS = {
    "dhclient": "mkdir -p /var/lib/dhcp; exec dhclient -6 -d eth0",
    "dhcpcd": "mkdir -p /var/lib/dhcpcd /run/dhcpcd; exec dhcpcd --nobackground --ipv6only eth0",
    "networkd": RUN,
    "NetworkManager": NETWORKMANAGER,
    "udhcpc6": UDHCPC6,
}
PACKAGES = ("dhcpcd-base|dhcpcd5", "network-manager")
DHCLIENT = "isc-dhcp-client"
"""Its maker has given it up; releases after Debian 13 may be without it."""


@pytest.fixture(scope="module", params=["free", "own"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab("mapped", lan_prefix="192.168.7.0/24", addresses=request.param) as made:
        provide(made, *PACKAGES, *filter(available, [DHCLIENT]))
        prepare(made)
        made.path(f"{FILES}/guest.network").write_text(NETWORKD)
        shutil.copy(busybox.udhcpc6(), made.path("/run/udhcpc6"))
        made.start(made.network(1, ipv6=PREFIX6), dnsmasq=True)
        yield made


@contextlib.contextmanager
def client(guest: LabGuest, name: str) -> Iterator[subprocess.Popen[str]]:
    process = guest.namespace.popen(["unshare", "--mount", "sh", "-c", OWN_RESOLVER + CLIENTS[name]])
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


def addresses(guest: LabGuest, scope: str = "global") -> set[str]:
    """Those of which the kernel is sure; by default without fe80."""
    lines = json.loads(guest.namespace.run(["ip", "-j", "-6", "address", "show", "dev", "eth0"]).stdout)
    return {
        each["local"]
        for line in lines
        for each in line.get("addr_info", ())
        if each["scope"] == scope and not each.get("tentative")
    }


def pings(lab: Lab, address: str, patience: float = PATIENCE) -> bool:
    argv = ["ping", "-6", "-n", "-c1", f"-W{patience}", address]
    return lab.host.run(argv, check=False).returncode == 0


@pytest.mark.parametrize("name", [*CLIENTS])
def test_a_client_gets_its_numbers_address(lab: Lab, name: str) -> None:
    if name == "dhclient" and not available(DHCLIENT):
        pytest.skip(f"this release has no {DHCLIENT} any more")
    guest = lab.guest(lab.active[0])
    eventually(lambda: addresses(guest, "link"))  # as ifupdown waits for it
    with client(guest, name) as process:
        try:
            eventually(lambda: guest.ipv6 in addresses(guest), 60.0)
        except AssertionError:
            process.terminate()
            pytest.fail(f"{name}: {addresses(guest)}, {process.communicate(timeout=10)[0][-3000:]}")
        # dhclient knows who else is on the wire from the router's advertisement alone.
        eventually(lambda: pings(lab, guest.ipv6, 1), 20.0)
        if lab.addresses == "free":
            eventually(lambda: len(addresses(guest)) > 1, 20.0)
        others = addresses(guest) - {guest.ipv6}
        assert bool(others) is (lab.addresses == "free")  # none makes more where it may not use them
        for address in others:
            assert pings(lab, address)
        gateway = PREFIX6.replace("::/64", "::1")
        assert guest.namespace.run(["ping", "-6", "-n", "-c1", gateway]).returncode == 0
        name = f"{guest.name}.{guest.network.model.domain}"
        asked = ["busybox", "nslookup", "-type=aaaa", name, gateway]
        assert f"Address: {guest.ipv6}\n" in guest.namespace.run(asked, check=False).stdout
        assert "default" not in guest.namespace.run(["ip", "-6", "route"]).stdout
    lab.destroy(guest)
