"""Networks that are there already become loopnet's and come back, with their guests running."""

from __future__ import annotations

import os
import re
import signal
import time
from typing import Callable, Dict, Iterator, List, Tuple

import pytest

from tests.sandbox import INTERNET, Guest, Sandbox
from tests.sandbox.capture import Capture
from tests.sandbox.world import FORBIDDEN, wait

GUEST_LAN = "192.168.122."
STATIC = f"{GUEST_LAN}50"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    with Sandbox() as made, Capture(made.lan, "lan0") as capture:
        yield made
        assert capture.frames
        assert not capture.within(*FORBIDDEN)


@pytest.fixture(autouse=True)
def _cleaned(sandbox: Sandbox) -> Iterator[None]:
    yield
    for name in sandbox.virsh("list", "--name").split():
        sandbox.virsh("destroy", name)
    for name in sandbox.virsh("net-list", "--name").split():
        sandbox.virsh("net-destroy", name)
    sandbox.host.sh("rm -rf /var/lib/libvirt-loopnet")


def loopnet(sandbox: Sandbox, *arguments: str) -> str:
    return sandbox.host.run(["loopnet", *arguments], timeout=120).stdout


def definition(sandbox: Sandbox, name: str = "default") -> str:
    return sandbox.virsh("net-dumpxml", "--inactive", name)


def page(sandbox: Sandbox, address: str) -> str:
    command = ["curl", "-sS", "--max-time", "10", f"http://{address}/"]
    return sandbox.host.run(command, check=False).stdout.strip()


def says(sandbox: Sandbox, address: str, name: str) -> Callable[[], bool]:
    return lambda: page(sandbox, address) == f"hello from {name}"


def on_the_internet(guest: Guest) -> Callable[[], bool]:
    command = f"wget -qO- http://{INTERNET}/"
    return lambda: "hello from the internet" in guest.run(command, check=False, timeout=10)


def identity(guest: Guest) -> Tuple[str, str]:
    """Changes when the guest boots, or takes another address."""
    return guest.run("cat /proc/sys/kernel/random/boot_id"), guest.address()


def boot(sandbox: Sandbox, *guests: Guest) -> None:
    for guest in guests:
        guest.start()
    for guest in guests:
        guest.wait_boot()


def default_guests(sandbox: Sandbox) -> Dict[str, Guest]:
    """One guest that takes its address by DHCP, one that was given it by hand."""
    sandbox.virsh("net-start", "default")
    by_lease = sandbox.guest("lease", ["default"])
    by_hand = sandbox.guest("hand", ["default"], cmdline=f"guest.static={STATIC}/24,{GUEST_LAN}1")
    boot(sandbox, by_lease, by_hand)
    guests = {by_lease.wait_lease(): by_lease, STATIC: by_hand}
    for address, guest in guests.items():
        wait(says(sandbox, address, guest.name), f"{guest.name} at {address}")
        wait(on_the_internet(guest), f"internet in {guest.name}")
    return guests


def loop(address: str) -> str:
    return address.replace(GUEST_LAN, "127.1.0.")


def host_text(sandbox: Sandbox) -> List[str]:
    """What the host holds, without what a new bridge has anew: indices and counters."""
    commands = (
        "ip address | sed '/valid_lft/d; s/^[0-9]*: //'",
        "ip route show table all",
        "ip rule",
        "nft --stateless list ruleset",
        "cat /etc/hosts",
        "virsh net-list --all",
        "virsh net-dumpxml --inactive default",
        "virsh net-port-list default | wc -l",
    )
    return sorted("\n".join(map(sandbox.host.sh, commands)).splitlines())


def lan_takes_the_guest_prefix(sandbox: Sandbox) -> None:
    """The laptop joins a LAN that is 192.168.122.0/24 too, with the same router address."""
    sandbox.host.sh(f"ip address add {GUEST_LAN}77/24 dev uplink0")
    sandbox.lan.sh(f"ip address add {GUEST_LAN}1/32 dev lan0; ip route add {GUEST_LAN}77 dev lan0")


def lan_is_as_before(sandbox: Sandbox) -> None:
    sandbox.host.sh(f"ip address del {GUEST_LAN}77/24 dev uplink0")
    sandbox.lan.sh(f"ip address del {GUEST_LAN}1/32 dev lan0; ip route del {GUEST_LAN}77 dev lan0")


def test_running_guests_survive_there_and_back(sandbox: Sandbox) -> None:
    sandbox.virsh("net-autostart", "default")
    guests = default_guests(sandbox)
    before = {name: identity(guest) for name, guest in guests.items()}
    original, held = definition(sandbox), host_text(sandbox)

    waiting = loopnet(sandbox, "convert", "default")
    assert "hand" in waiting
    assert "lease" in waiting
    for address, guest in guests.items():  # nothing has happened to them yet
        assert says(sandbox, address, guest.name)()

    loopnet(sandbox, "convert", "default", "--restart")
    for address, guest in guests.items():
        wait(says(sandbox, loop(address), guest.name), f"{guest.name} at {loop(address)}")
        wait(on_the_internet(guest), f"internet in {guest.name}")
        assert identity(guest) == before[address]
        sandbox.host.sh(f"ping -q -c 1 {loop(address)}")
    assert ports(sandbox, "virbr0") == 2
    assert loopnet(sandbox, "list").count(" up\n") == 2
    assert "drift:  none" in loopnet(sandbox, "status")

    lan_takes_the_guest_prefix(sandbox)
    assert " dev uplink0 " in sandbox.host.sh(f"ip route get {GUEST_LAN}1")  # the LAN's router
    sandbox.host.sh(f"ping -q -c 1 {GUEST_LAN}1")
    for address, guest in guests.items():
        assert says(sandbox, loop(address), guest.name)()
        assert on_the_internet(guest)()
    lan_is_as_before(sandbox)

    loopnet(sandbox, "revert", "default", "--restart")
    for address, guest in guests.items():
        wait(says(sandbox, address, guest.name), f"{guest.name} at {address} again")
        wait(on_the_internet(guest), f"internet in {guest.name} again")
        assert identity(guest) == before[address]
        sandbox.host.sh(f"ping -q -c 1 {address}")
    assert ports(sandbox, "virbr0") == 2
    assert definition(sandbox) == original
    assert host_text(sandbox) == held
    assert "Autostart:      yes" in sandbox.virsh("net-info", "default")


def ports(sandbox: Sandbox, bridge: str) -> int:
    """How many taps the kernel has on a bridge; all bridges but libvirt's own must be gone."""
    assert "loopnet-" not in sandbox.host.sh("ip -oneline link show type bridge")
    return len(re.findall(rf" master {bridge} ", sandbox.host.sh("bridge link")))


def test_beside_a_watch(sandbox: Sandbox) -> None:
    """Both plug guests in, one after the other."""
    sandbox.virsh("net-start", "default")
    guests = [sandbox.guest(f"still{number}", ["default"], memory_mib=32) for number in range(3)]
    for guest in guests:
        guest.start(paused=True)
    watch = sandbox.host.popen(["loopnet", "watch"])
    try:
        for _ in range(3):
            loopnet(sandbox, "convert", "default", "--restart")
            assert ports(sandbox, "virbr0") == 3
            assert loopnet(sandbox, "list").count(" up\n") == 3
            loopnet(sandbox, "revert", "default", "--restart")
            assert ports(sandbox, "virbr0") == 3
    finally:
        watch.terminate()
        said = watch.communicate(timeout=20)[0]
    assert watch.returncode == 0
    assert "not repaired" not in said


def test_right_after_the_daemon_has_restarted(sandbox: Sandbox) -> None:
    """It takes commands before it has found its guests again, and says that they don't run."""
    sandbox.virsh("net-start", "default")
    for number in range(3):
        sandbox.guest(f"still{number}", ["default"], memory_mib=32).start(paused=True)
    for verb in ("convert", "revert"):
        sandbox.stop_libvirtd()
        sandbox.start_libvirtd(settled=False)
        loopnet(sandbox, verb, "default", "--restart")
        assert ports(sandbox, "virbr0") == 3


def test_a_guest_that_is_not_back_is_named(sandbox: Sandbox) -> None:
    """Whatever libvirt says: the command fails, and does it all when it is repeated."""
    sandbox.virsh("net-start", "default")
    guest = sandbox.guest("still", ["default"], memory_mib=32)
    guest.start(paused=True)
    hook = sandbox.path("/etc/libvirt/hooks/network.d/60-refuse")
    for verb in ("convert", "revert"):
        hook.write_text("#!/bin/sh\n[ \"$2\" != port-created ] || { echo 'not today' >&2; exit 1; }\n")
        hook.chmod(0o755)
        done = sandbox.host.run(["loopnet", verb, "default", "--restart"], check=False)
        hook.unlink()
        assert done.returncode == 4
        assert done.stderr.count("\n") == 1
        assert f"guest still ({guest.macs[0]})" in done.stderr
        assert "virsh shutdown still, then virsh start still" in done.stderr
        assert ports(sandbox, "virbr0") == 0
        loopnet(sandbox, verb, "default", "--restart")
        assert ports(sandbox, "virbr0") == 1
    assert "was not converted" in sandbox.host.run(["loopnet", "revert", "default"], check=False).stderr


def test_restarted_guests_keep_their_addresses(sandbox: Sandbox) -> None:
    guests = default_guests(sandbox)
    loopnet(sandbox, "convert", "default", "--restart")
    for guest in guests.values():
        guest.destroy()
    boot(sandbox, *guests.values())
    for address, guest in guests.items():
        wait(says(sandbox, loop(address), guest.name), f"{guest.name} at {loop(address)}")
    loopnet(sandbox, "revert", "default", "--restart")


CLONE = """<network>
  <name>{name}</name>
  <forward mode='nat'/>
  <ip address='192.168.77.1' netmask='255.255.255.0'>
    <dhcp>
      <range start='192.168.77.2' end='192.168.77.99'/>
      <host mac='{mac}' name='db' ip='192.168.77.10'/>
    </dhcp>
  </ip>
</network>
"""


def test_two_clones_side_by_side(sandbox: Sandbox) -> None:
    """Same prefix, same addresses: libvirt itself would refuse to start the second."""
    guests: Dict[str, Guest] = {}
    for name in ("first", "second"):
        guests[name] = sandbox.guest(f"{name}-db", [name])
        xml = CLONE.format(name=name, mac=guests[name].macs[0])
        sandbox.host.run(["virsh", "-q", "net-define", "/dev/stdin"], input=xml)
        loopnet(sandbox, "convert", name)
        sandbox.virsh("net-start", name)
    boot(sandbox, *guests.values())
    for loop_address, guest in zip(("127.1.0.10", "127.2.0.10"), guests.values()):
        assert guest.wait_lease() == "192.168.77.10"
        wait(says(sandbox, loop_address, guest.name), f"{guest.name} at {loop_address}")
        assert on_the_internet(guest)()


@pytest.mark.parametrize("after", [0.15, 0.3, 0.45, 0.6, 0.9, 1.3])
def test_killed_convert_leaves_one_definition_and_can_be_reverted(sandbox: Sandbox, after: float) -> None:
    sandbox.virsh("net-start", "default")
    guest = sandbox.guest("still", ["default"], memory_mib=32)
    guest.start(paused=True)
    original = definition(sandbox)
    process = sandbox.host.popen(["loopnet", "convert", "default", "--restart"])
    time.sleep(after)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(1)  # libvirtd goes on with what it was told
    now = definition(sandbox)
    assert now == original or "<loopnet:network" in now
    if now != original:
        loopnet(sandbox, "convert", "default", "--restart")
        assert re.search(r"still +still.default +default .* up", loopnet(sandbox, "list"))
    reverted = sandbox.host.run(["loopnet", "revert", "default", "--restart"], check=False)
    assert reverted.returncode == 0 or "was not converted" in reverted.stderr
    assert definition(sandbox) == original
    assert "default" in sandbox.virsh("net-list", "--name")
    assert len(sandbox.virsh("net-port-list", "default").split()) == 1
    guest.destroy()


BAD = {
    "bridge": "<network><name>bad</name><forward mode='bridge'/><bridge name='br0'/></network>",
    "isolated": "<network><name>bad</name><dns><forwarder addr='192.0.2.1'/></dns>"
    "<ip address='10.5.0.1' prefix='24'/></network>",
}


@pytest.mark.parametrize("xml", BAD.values(), ids=BAD.keys())
def test_refusal_is_one_line_and_leaves_libvirt_alone(sandbox: Sandbox, xml: str) -> None:
    sandbox.host.run(["virsh", "-q", "net-define", "/dev/stdin"], input=xml)
    before = definition(sandbox, "bad")
    done = sandbox.host.run(["loopnet", "convert", "bad", "--restart"], check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert definition(sandbox, "bad") == before
    sandbox.virsh("net-undefine", "bad")


def test_unknown_network(sandbox: Sandbox) -> None:
    for verb in ("convert", "revert"):
        done = sandbox.host.run(["loopnet", verb, "absent"], check=False)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
