"""NICs that no port tells of: a guest's on the bridge itself, containers, what is behind guests. By packets."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.sandbox import CHECKOUT, INTERNET

from . import frames
from .arena import STRANGE_MAC
from .lab import Lab, LabGuest, LabNetwork, bound_over, domain_xml, eventually, guest_uuid
from .test_senders import PORT, agrees, answers, loopnet, silent
from .wire import Capture, Servers, ask_tcp, ask_udp


@pytest.fixture(params=["mapped", "mapped-all", "native"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    mode, _, rest = request.param.partition("-")
    with Lab(mode, bridge_nf=bool(rest), ip_rule=bool(rest)) as made:
        yield made


def bridged_xml(guest: LabGuest) -> str:
    """The live domain whose NIC is on the bridge itself."""
    name, bridge = guest.network.model.name, guest.network.model.bridge
    plain = domain_xml(guest.name, [guest]).replace("<interface type='network'>", "<interface type='bridge'>")
    return plain.replace(f"<source network='{name}' bridge='{bridge}'/>", f"<source bridge='{bridge}'/>")


def save_status(lab: Lab, driver: str, guest: LabGuest, xml: str) -> None:
    """What libvirt writes down of a guest that runs."""
    path = lab.path(f"/run/libvirt/{driver}/{guest.name}.xml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<domstatus state='running'>{xml}</domstatus>")


def settle(lab: Lab, guest: LabGuest) -> LabGuest:
    """It has the address that DHCP would give it by now."""
    number = lab.reserved(guest.network)[guest.mac]
    length = guest.network.model.guest_prefix.prefixlen
    settled = guest._replace(number=number)
    guest.namespace.sh(
        f"ip address flush dev eth0; ip address add {settled.address}/{length} scope global dev eth0\n"
        f"ip route replace default via {guest.gateway}"
    )
    return settled


def works(lab: Lab, guest: LabGuest) -> None:
    """From the host, to the host, and to the internet."""
    # What it asked of the gateway in vain before waits for its last ARP request, and fails with it.
    guest.namespace.run(["ip", "neighbour", "flush", "all"])
    with Servers() as servers:
        servers.both(guest.namespace, ("0.0.0.0", PORT))
        servers.both(lab.host, ("0.0.0.0", PORT))
        eventually(lambda: answers(lab, guest.loop, 1) == guest.mac)
        assert ask_tcp(lab.host, (guest.loop, PORT))
        assert ask_tcp(guest.namespace, (guest.gateway, PORT))[1] == guest.transit
        assert ask_udp(guest.namespace, (INTERNET, 7))[1] == lab.host_address
    agrees(lab)


def speak(guest: LabGuest, mac: str = "") -> None:
    """A frame to all, so that the bridge hears it."""
    with Capture(guest.namespace, "eth0") as wire:
        payload = frames.arp(
            frames.REQUEST, (mac or guest.mac, guest.address), (frames.BROADCAST, guest.gateway)
        )
        wire.send(frames.ethernet(mac or guest.mac, frames.BROADCAST, frames.ARP, payload))


def listed(lab: Lab) -> dict[str, Any]:
    """By MAC address."""
    return {entry["mac"]: entry for entry in json.loads(loopnet(lab, "list", "--json"))}


def is_bound(lab: Lab, guest: LabGuest) -> bool:
    return f'"{guest.tap}" . {guest.mac} :' in lab.rules()


def container(lab: Lab, network: LabNetwork, mac: str = STRANGE_MAC) -> LabGuest:
    return lab.guest(network, mac, admit=False)


# --- <interface type='bridge'> ---------------------------------------------------------------------


def test_a_guest_on_the_bridge_itself(lab: Lab) -> None:
    """Its start tells of it, and its end; it is treated like one with a port."""
    network = lab.network(1)
    lab.start(network)
    other = lab.guest(network)
    guest = container(lab, network)
    lab.hook("qemu", guest.name, "start", bridged_xml(guest))
    agrees(lab)
    assert is_bound(lab, guest)
    guest = settle(lab, guest)
    works(lab, guest)
    entry = listed(lab)[guest.mac]
    assert (entry["state"], entry["tap"], entry["name"]) == ("up", guest.tap, guest.name)
    assert f"{guest.loop} {guest.name}.{network.model.domain}" in lab.path("/etc/hosts").read_text()
    lab.hook("qemu", guest.name, "reconnect", bridged_xml(guest))  # as a restarted daemon does
    works(lab, guest)
    lab.host.sh(f"ip link delete {guest.tap}")
    lab.hook("qemu", guest.name, "stopped", bridged_xml(guest))
    assert guest.mac not in lab.rules()
    agrees(lab)
    assert listed(lab)[guest.mac]["state"] == "reserved"
    assert guest.name not in lab.path("/etc/hosts").read_text()
    assert answers(lab, other.loop) == other.mac


def test_other_guests_ends_start_no_python(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no guest is on a bridge itself, there is nothing that its end would have to tell."""
    network = lab.network(1)
    lab.start(network)
    plain, guest = lab.guest(network), container(lab, network)

    def end() -> int:
        with bound_over(lab, "/usr/bin/python3", "#!/bin/sh\nexit 7\n"), monkeypatch.context() as changed:
            changed.setattr(lab, "starts", True)
            return lab.hook("qemu", plain.name, "stopped", plain.domain_xml, check=False).returncode

    assert end() == 0
    lab.hook("qemu", guest.name, "start", bridged_xml(guest))
    assert end() == 7
    lab.hook("qemu", guest.name, "stopped", bridged_xml(guest))
    assert end() == 0


def test_arrivals(lab: Lab) -> None:
    """Of a NIC on a network, the bridge is the other host's."""
    network = lab.network(1)
    lab.start(network)
    guest = LabGuest("new", network, STRANGE_MAC, 0, "vnet0", lab.host)
    elsewhere = guest.domain_xml.replace("network='net1'", "network='elsewhere'")
    assert lab.hook("qemu", "new", "migrate", elsewhere).stdout == ""
    refused = lab.hook("qemu", "new", "migrate", bridged_xml(guest), check=False)
    assert refused.returncode == 1
    assert f"loopnet reserve {STRANGE_MAC}" in refused.stderr
    loopnet(lab, "reserve", STRANGE_MAC, str(network.model.loop_address(50)))
    assert lab.hook("qemu", "new", "migrate", bridged_xml(guest)).stdout == ""


def test_a_clone_on_the_bridge_is_refused(lab: Lab) -> None:
    network = lab.network(1)
    lab.start(network)
    guest = lab.guest(network)
    clone = container(lab, network)._replace(mac=guest.mac, name="clone")
    lab.host.run(["ip", "link", "set", clone.tap, "address", "fe" + guest.mac[2:]])
    before, kept = lab.rules(), lab.reserved(network)
    refused = lab.hook("qemu", clone.name, "start", bridged_xml(clone), check=False)
    assert refused.returncode == 1
    assert guest.name in refused.stderr
    assert "virsh edit clone" in refused.stderr
    assert (lab.rules(), lab.reserved(network)) == (before, kept)
    assert answers(lab, guest.loop) == guest.mac


def test_hot_plugged_on_the_bridge(lab: Lab) -> None:
    """No hook tells of it; libvirt has written it down."""
    network = lab.network(1)
    lab.start(network)
    guest = container(lab, network)
    save_status(lab, "qemu", guest, bridged_xml(guest))
    status = lab.host.run(["loopnet", "status"], check=False)
    assert status.returncode == 1
    assert f"{guest.mac} at {guest.tap}" in status.stdout
    assert f"guest {guest.name} ({guest.mac}) at {guest.tap}" in loopnet(lab, "sync")
    assert loopnet(lab, "sync") == "nothing to do\n"
    works(lab, settle(lab, guest))
    lab.host.sh(f"ip link delete {guest.tap}")
    assert "nft" in loopnet(lab, "plan", status=1)
    loopnet(lab, "sync")
    assert guest.mac not in lab.rules()


def test_a_hot_plugged_clone(lab: Lab) -> None:
    """No hook could refuse it, and its tap looks like that of whom it is a clone of: it gets nowhere, and is named."""
    network = lab.network(1)
    lab.start(network)
    guest = lab.guest(network)
    clone = container(lab, network, guest.mac)
    save_status(lab, "qemu", clone, bridged_xml(clone))
    clone.namespace.sh(f"ip address flush dev eth0; ip address add {guest.address}/24 dev eth0")
    loopnet(lab, "sync")
    assert not is_bound(lab, clone)
    speak(clone)
    assert clone.namespace.run(["ping", "-c1", "-W0.5", guest.gateway], check=False).returncode != 0
    told = json.loads(loopnet(lab, "list", "--json"))
    (second,) = [entry for entry in told if entry["state"] == "unknown"]
    assert (second["mac"], second["tap"]) == (clone.mac, clone.tap)
    assert f"guest {guest.name} has this MAC address already" in second["why"]
    works(lab, guest)


# --- by hand ---------------------------------------------------------------------------------------


def test_a_container_by_hand(lab: Lab) -> None:
    network = lab.network(1)
    lab.start(network)
    lab.guest(network)
    one = container(lab, network)
    speak(one)
    entry = listed(lab)[one.mac]
    assert (entry["state"], entry["tap"], entry["network"]) == ("unknown", one.tap, "net1")
    found = json.loads(lab.host.run(["loopnet", "doctor", "--json"], check=False).stdout)
    said = next(each for each in found if each["id"] == "unknown-nic")
    assert said["command"] == entry["command"]
    assert one.mac in said["what"]
    assert one.tap in said["what"]
    lab.host.sh(entry["command"])  # which is: loopnet reserve MAC ADDRESS
    one = settle(lab, one)
    assert is_bound(lab, one)
    works(lab, one)
    assert listed(lab)[one.mac]["state"] == "up"
    # A second device with that MAC address gets nowhere, and the first notices nothing.
    two = lab.guest(network, one.mac, admit=False)
    speak(two)
    assert "nothing to do" in loopnet(lab, "sync")
    told = json.loads(loopnet(lab, "list", "--json"))
    (second,) = [entry for entry in told if entry["state"] == "unknown"]
    assert (second["mac"], second["tap"]) == (two.mac, two.tap)
    assert f"the NIC at {one.tap} has this MAC address already" in second["why"]
    two.namespace.sh(f"ip address flush dev eth0; ip address add {one.address}/24 dev eth0")
    assert two.namespace.run(["ping", "-c1", "-W0.5", one.gateway], check=False).returncode != 0
    works(lab, one)
    # It ends with its device; one of the same name is another.
    lab.host.sh(
        f"ip link delete {one.tap}; ip link delete {two.tap}; ip link add {one.tap} type veth peer name spare0"
    )
    lab.host.sh(f"ip link set {one.tap} master {network.model.bridge} up")
    loopnet(lab, "sync")
    assert one.mac not in lab.rules()


def test_watch_lets_it_in_at_once(lab: Lab) -> None:
    network = lab.network(1)
    lab.start(network)
    loopnet(lab, "reserve", STRANGE_MAC, str(network.model.loop_address(50)))
    with lab.host.popen(["loopnet", "watch"]) as watch:
        try:
            time.sleep(2)  # it has looked at the host, and found nothing to do
            one = container(lab, network)
            speak(one)
            begin = time.monotonic()
            eventually(lambda: is_bound(lab, one))
            print(f"after {time.monotonic() - begin:.2f} s")
            one = settle(lab, one)
            works(lab, one)
            lab.host.sh(f"ip link delete {one.tap}")
            eventually(lambda: one.mac not in lab.rules())
        finally:
            watch.terminate()


HEARD = """
import socket, subprocess, sys; sys.path.insert(0, sys.argv[1])
from libvirt_loopnet.host.kernel.notify import Changes
asked = []
def is_news(bridge, mac):
    asked.append((bridge, mac))
    return mac == "02:00:00:00:00:02"
def speaks(mac):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind(("inside9", 0))
        wire.send(bytes.fromhex("ffffffffffff" + mac.replace(":", "") + "88b5") + bytes(50))
lines = "link add br9 type bridge\\nlink add port9 type veth peer name inside9\\nlink set port9 master br9"
for name in ("default", "all"):
    open(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "w").write("1")
with Changes(is_news) as changes:
    lines += "".join(f"\\nlink set {name} up" for name in ("br9", "port9", "inside9"))
    subprocess.run(["ip", "-batch", "-"], input=lines, text=True, check=True)
    while changes.wait(1):
        pass
    for mac in ("02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:02"):
        speaks(mac)
        print(changes.wait(2))
print(("br9", "02:00:00:00:00:01") in asked)
"""


def test_what_a_bridge_hears_is_told(lab: Lab) -> None:
    """Once for each MAC address, by the kernel; and nothing that is no news."""
    told = lab.host.run(["/usr/bin/python3", "-I", "-c", HEARD, str(CHECKOUT)]).stdout
    assert told.split() == ["False", "True", "False", "True"]


def test_no_guest_takes_what_is_kept_for_another(lab: Lab) -> None:
    """Neither one that is bound, nor one that is hot-plugged, nor one whose tap only libvirt knows."""
    network = lab.network(1)
    lab.start(network)
    bound, loose = lab.guest(network), lab.guest(network, bind=False)
    lxc = lab.guest(network, bind=False)
    lab.host.run(
        ["ip", "link", "set", lxc.tap, "address", "02:00:00:00:00:77"]
    )  # as a container's has no fe:…
    save_status(lab, "lxc", lxc, lxc.domain_xml)
    bridged = container(lab, network, "52:54:00:00:00:99")
    save_status(lab, "qemu", bridged, bridged_xml(bridged))
    address = str(network.model.loop_address(50))
    loopnet(lab, "reserve", STRANGE_MAC, address)
    for attacker in (bound, loose, lxc, bridged):
        speak(attacker._replace(number=50), STRANGE_MAC)
    loopnet(lab, "sync")
    assert f". {STRANGE_MAC} :" not in lab.rules()
    agrees(lab)
    for attacker in (bound, loose, lxc, bridged):
        speak(attacker._replace(number=50), STRANGE_MAC)
        assert "nothing to do" in loopnet(lab, "sync")
        length = network.model.guest_prefix.prefixlen
        mine = attacker._replace(number=50).address
        attacker.namespace.sh(
            "ip link set eth0 down\n"
            f"ip link set eth0 address {STRANGE_MAC}; ip link set eth0 up\n"
            f"ip address flush dev eth0; ip address add {mine}/{length} scope global dev eth0"
        )
        assert silent(lab, address)
        attacker.namespace.sh("ip link set eth0 down")
    # Whom it is for gets it all the same.
    one = container(lab, network)
    speak(one)
    loopnet(lab, "sync")
    works(lab, settle(lab, one))


# --- behind a guest --------------------------------------------------------------------------------

INSIDE = {
    "macvlan": "ip -n {g} link add link eth0 name mv0 address {mac} type macvlan mode bridge\n"
    "ip -n {g} link set mv0 name eth0 netns nest",
    "bridge": "ip -n {g} link add br0 address {own} type bridge forward_delay 0\n"
    "ip -n {g} address flush dev eth0; ip -n {g} link set eth0 master br0 up\n"
    "ip -n {g} link add v0 type veth peer name eth0 address {mac} netns nest\n"
    "ip -n {g} link set v0 master br0 up; ip -n {g} link set br0 up\n"
    "ip -n {g} address add {address} scope global dev br0; ip -n {g} route replace default via {gateway}",
}


@pytest.mark.parametrize("kind", list(INSIDE))
def test_behind_a_guest(lab: Lab, kind: str) -> None:
    """With an address of its own, while its guest runs; by no other's tap."""
    network = lab.network(1)
    lab.start(network)
    guest, other = lab.guest(network), lab.guest(network)
    lab.host.sh("ip netns add nest")
    length = network.model.guest_prefix.prefixlen
    lab.host.sh(
        INSIDE[kind].format(
            g=guest.tap.replace("vnet", "g"), mac=STRANGE_MAC, own=guest.mac,
            address=f"{guest.address}/{length}", gateway=guest.gateway,
        )
    )  # fmt: skip
    nested = LabGuest("nest", network, STRANGE_MAC, 60, guest.tap, lab.namespace("nest"))
    nested.namespace.sh(
        f"ip link set lo up; ip address add {nested.address}/{length} scope global dev eth0\n"
        f"ip link set eth0 up; ip route add default via {nested.gateway}\n"
        "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet"
        + ("\nip address delete 127.0.0.1/8 dev lo" if lab.mode == "native" else "")
    )
    assert silent(lab, nested.loop)
    nested.namespace.run(["ping", "-c1", "-W0.2", nested.gateway], check=False)
    told = listed(lab)[STRANGE_MAC]
    assert (told["state"], told["tap"]) == ("unknown", guest.tap)
    assert told["command"].endswith(f" --behind {guest.name}")
    loopnet(lab, "reserve", STRANGE_MAC, nested.loop, "--behind", guest.name)
    works(lab, nested)
    works(lab, guest)
    entry = listed(lab)[nested.mac]
    assert (entry["state"], entry["tap"]) == ("up", guest.tap)
    for own in (other.name, other.mac, "vm99"):
        loopnet(lab, "reserve", own, str(network.model.loop_address(61)), "--behind", guest.name, status=2)
    # Another guest can't take it, and it goes with its own.
    assert f'"{other.tap}" . {STRANGE_MAC} :' not in lab.rules()
    lab.destroy(guest)
    assert STRANGE_MAC not in lab.rules()
    agrees(lab)
    # Its guest starts again, with another tap.
    again = lab.guest(network, guest.mac, name=guest.name)
    assert f'"{again.tap}" . {STRANGE_MAC} :' in lab.rules()
    agrees(lab)
    assert guest_uuid(guest.name) in lab.path("/var/lib/libvirt-loopnet/net1.reservations").read_text()
    loopnet(lab, "reserve", STRANGE_MAC, str(network.model.loop_address(61)), "--behind", "nobody", status=1)
