"""What can't work is refused in one clear line, and nothing is changed by the attempt."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Callable, Dict, Iterator, List, Tuple

import pytest

from libvirt_loopnet.networks.dnsmasq_options import lease_option
from libvirt_loopnet.networks.parsing import dnsmasq_options, parse_network
from tests.sandbox.world import World, network_xml, template, wait

STORE = "/var/lib/libvirt-loopnet/loopnet.reservations"
CONFIGURATION = "/etc/libvirt-loopnet.conf"
NFT = "/usr/sbin/nft"


@pytest.fixture(autouse=True)
def _cleaned(world: World) -> Iterator[None]:
    yield
    world.clean()
    world.check_unchanged()


def one_line(printed: str) -> str:
    """Our line out of what virsh prints when a hook refuses."""
    _, found, line = printed.partition("libvirt-loopnet: ")
    assert found, printed
    assert "\n" not in line.strip(), printed
    assert "Traceback" not in line
    assert "report this" not in line
    return line.strip()


KILL = """\
#!/bin/sh
read -r caller </proc/$PPID/comm
[ "$caller" != python3 ] || [ ! -d /sys/class/net/virbr1 ] || kill -9 $PPID
exec /run/sandbox/ip "$@"
"""
"""In the place of ip: ends our hook as soon as there is a bridge."""


def hook_that_refuses(world: World) -> None:
    hook = world.path("/etc/libvirt/hooks/network.d/60-refuse")
    hook.write_text("#!/bin/sh\n[ $2 != started ]\n")
    hook.chmod(0o755)
    world.refusal("net-start", "loopnet")
    hook.unlink()


def hook_that_is_killed(world: World) -> None:
    world.path("/run/sandbox/kill").write_text(KILL)
    path = world.host.sh("readlink -f $(command -v ip)").strip()
    world.host.sh(
        f"cp {path} /run/sandbox/ip; chmod 755 /run/sandbox/kill; mount --bind /run/sandbox/kill {path}"
    )
    try:
        world.refusal("net-start", "loopnet")
    finally:
        world.host.sh(f"umount {path}")


@pytest.mark.parametrize("how", [hook_that_refuses, hook_that_is_killed])
def test_what_a_failed_start_has_left_is_no_obstacle(world: World, how: Callable[[World], None]) -> None:
    """libvirt 9.0 leaves bridge and dnsmasq where a hook fails at `started`, and knows nothing of them any more; 11.3
    takes them away."""
    world.define(template("loopnet"))
    how(world)
    major = int(world.host.sh("virsh --version").partition(".")[0])
    assert "virbr1" in world.host.sh("ip -br link") or major > 10
    assert world.active_networks() == []
    assert '"port-taken"' not in world.host.run(["loopnet", "doctor", "--json"], check=False).stdout
    world.sandbox.virsh("net-start", "loopnet")
    assert world.host.run(["loopnet", "plan"]).stdout == "nothing to do\n"


def test_a_pid_file_that_is_out_of_date_ends_nobody(world: World) -> None:
    """libvirt leaves them behind, and the number may be another network's dnsmasq's by now."""
    world.define(network_xml("other", "127.9.0.", "10.127.9."))
    world.sandbox.virsh("net-start", "other")
    world.define(template("loopnet"))
    world.host.sh("cp /run/libvirt/network/other.pid /run/libvirt/network/loopnet.pid")
    pid = world.path("/run/libvirt/network/other.pid").read_text().strip()
    world.sandbox.virsh("net-start", "loopnet")
    world.host.sh(f"kill -0 {pid}")
    assert world.path("/run/libvirt/network/loopnet.pid").read_text().strip() != pid


# --- other programs ---

SERVERS = {
    "dns": ("dnsmasq --conf-file=/dev/null", r"0\.0\.0\.0 port 53/(udp|tcp)"),
    "dns on our address": (
        "dnsmasq --conf-file=/dev/null --listen-address=127.1.0.254 --bind-interfaces",
        r"127\.1\.0\.254 port 53/(udp|tcp)",
    ),
    "dhcp": (
        "dnsmasq --conf-file=/dev/null -p 0 --dhcp-range=192.0.2.9,192.0.2.9",
        r"0\.0\.0\.0 port 67/udp",
    ),
}


@pytest.mark.parametrize("server", SERVERS)
def test_a_port_of_dnsmasq_is_taken(world: World, server: str) -> None:
    world.define(template("loopnet"))
    command, seen = SERVERS[server]
    world.host.sh(f"{command} --pid-file=/run/sandbox/server.pid")
    pid = world.path("/run/sandbox/server.pid").read_text().strip()
    try:
        line = one_line(world.refusal("net-start", "loopnet"))
        assert re.search(
            rf"dnsmasq \(process {pid}\) has {seen}, which its dnsmasq needs at 127.1.0.254", line
        )
        told = json.loads(world.host.run(["loopnet", "doctor", "--json"], check=False).stdout)
        found = [finding["what"] for finding in told if finding["id"] == "port-taken"]
        assert found
        assert all(re.fullmatch(rf"dnsmasq \(process {pid}\) has {seen}", what) for what in found)
    finally:
        world.host.sh(f"kill {pid}; while kill -0 {pid} 2>/dev/null; do sleep 0.05; done")
        world.path("/run/sandbox/server.pid").unlink(missing_ok=True)
    world.sandbox.virsh("net-start", "loopnet")
    assert '"port-taken"' not in world.host.run(["loopnet", "doctor", "--json"], check=False).stdout


def test_a_program_inside_the_loop_prefix_is_told_of(world: World) -> None:
    with world.listen("127.1.0.5") as server:
        port = server.getsockname()[1]
        world.start()
        assert f"has 127.1.0.5 port {port}/tcp, inside 127.1.0.0/24; nobody reaches it" in world.syslog()


# --- definitions ---


def changed(*changes: Tuple[str, str]) -> str:
    """The template, as network "bad", with `changes`."""
    text = network_xml("bad", "127.1.0.", "10.127.1.")
    for old, new in changes:
        assert old in text, f"the template has no {old}"
        text = text.replace(old, new)
    return text


GUESTS = "10.127.1.0/24"
"""The template's guest prefix."""


def address(text: str, length: int = 24) -> str:
    """The template with another address of the host's, hence another loop prefix."""
    return changed(("address='127.1.0.254' netmask='255.255.255.0'", f"address='{text}' prefix='{length}'"))


SECOND_IP = ("<ip ", "<ip address='192.0.2.1' prefix='24'/><ip ")

BAD: Dict[str, Tuple[str, str]] = {
    # what is wrong: (definition, what the line must say)
    "outside 127/8": (address("192.168.0.254"), r"192\.168\.0\.0/24.*127\.0\.0\.0/8"),
    "inside 127.0/16": (address("127.0.0.254"), r"127\.0\.0\.0/24.*127\.0\.0\.0/16"),
    "too long": (address("127.1.0.2", 30), r"/30.*/29"),
    "too short": (address("127.1.0.254", 8), r"127\.0\.0\.0/8 .*/9|127\.0\.0\.0/16"),
    "host bits": (changed((GUESTS, "10.127.1.5/24")), r"10\.127\.1\.5/24.*host bits"),
    "other length": (changed((GUESTS, "10.127.0.0/16")), r"differ in length"),
    "no prefix": (changed((GUESTS, "many")), r"'many'.*ADDRESS/LENGTH"),
    "multicast": (changed((GUESTS, "224.0.0.0/24")), r"224\.0\.0\.0"),
    "mapped in 127/8": (changed((GUESTS, "127.9.0.0/24")), r"127\.9\.0\.0/24.*native"),
    "native, two prefixes": (changed(("'mapped'", "'native'")), r"native.*127\.1\.0\.0/24"),
    "mode unknown": (changed(("'mapped'", "'bridged'")), r"'bridged'.*mapped or native"),
    "gateway is host": (changed(("gateway='1'", "gateway='254'")), r"gateway.*254"),
    "gateway outside": (changed(("gateway='1'", "gateway='255'")), r"gateway '255'.*1 to 254"),
    "gateway no number": (changed(("gateway='1'", "gateway='first'")), r"gateway 'first'"),
    "attribute unknown": (changed(("gateway='1'", "getaway='1'")), r"'getaway'"),
    "forward mode": (changed(("mode='open'", "mode='nat'")), r"'open'.*'nat'"),
    "two addresses": (changed(SECOND_IP), r"2 IPv4"),
    "name": (changed((">bad<", ">bad name<")), r"'bad name'"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_definition(world: World, what: str) -> None:
    definition, says = BAD[what]
    world.define(definition)
    name = "bad name" if what == "name" else "bad"
    line = one_line(world.refusal("net-start", name))
    assert re.search(says, line), line
    assert name not in world.active_networks()
    assert unfit(world, name) == [line]
    world.check_unchanged()


def unfit(world: World, name: str) -> List[str]:
    """Why a network can't start as it is defined, in doctor's words."""
    told = json.loads(world.host.run(["loopnet", "doctor", "--json"], check=False).stdout)
    return [it["what"] for it in told if it["consequence"] == f"network {name} can't start as it is defined"]


def test_bridge_name_too_long(world: World) -> None:
    world.define(changed(("<bridge ", "<bridge name='sixteen-letters-' ")))
    world.refusal("net-start", "bad")
    world.check_unchanged()


@pytest.mark.parametrize("number", range(7))
def test_dnsmasq_option_missing(world: World, number: int) -> None:
    network = parse_network(template("loopnet").replace("loopnet<", "bad<").encode())
    assert network
    options = [option for option in dnsmasq_options(network) if option != lease_option("bad")]
    assert len(options) == 7, "test as many as there are"
    line = f"<dnsmasq:option value='{options[number]}'/>"
    world.define(changed((line, "")))
    line = one_line(world.refusal("net-start", "bad"))
    assert options[number] in line
    assert unfit(world, "bad") == [line]


def test_overlap_with_a_running_network(world: World) -> None:
    world.start()
    world.still("vm1")
    rules = world.host.sh("nft --stateless list ruleset")
    text = address("127.1.255.254", 16).replace(GUESTS, "10.127.0.0/16")
    old, new = "10.127.1.0,static,255.255.255.0", "10.127.0.0,static,255.255.0.0"
    world.define(text.replace(old, new))
    line = one_line(world.refusal("net-start", "bad"))
    assert re.search(r"127\.1\.0\.0/16.*overlaps 127\.1\.0\.0/24.*loopnet", line)
    assert world.host.sh("nft --stateless list ruleset") == rules
    assert list(world.published()) == ["vm1.loopnet"]


def test_address_of_the_host_is_in_the_way(world: World) -> None:
    world.host.sh("ip address add 127.1.0.9/32 dev lo")
    try:
        world.define(template("loopnet"))
        line = one_line(world.refusal("net-start", "loopnet"))
        assert re.search(r"127\.1\.0\.9 on lo.*ip address del", line)
    finally:
        world.host.sh("ip address del 127.1.0.9/32 dev lo")


# --- a host that can't ---


@contextlib.contextmanager
def instead_of_nft(world: World, script: str) -> Iterator[None]:
    """Puts a shell script in nft's place; with "" something that can't be executed."""
    world.host.sh(f"cp {NFT} /run/sandbox/nft")
    fake = world.path("/run/sandbox/fake")
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755 if script else 0o644)
    world.host.sh(f"mount --bind /run/sandbox/fake {NFT}")
    try:
        yield
    finally:
        world.host.sh(f"umount {NFT}; rm /run/sandbox/fake")


FAULTS: Dict[str, Tuple[str, str]] = {
    # what nft does: (script, what the line must say)
    "can't be run": ("", r"nft is not installed.*nftables"),
    "refuses": ("echo 'Error: no such luck' >&2; exit 1", r"no such luck"),
    "checks, then refuses": (
        'case "$*" in *-c*) exec /run/sandbox/nft "$@" ;; esac\necho "Error: changed my mind" >&2; exit 1',
        r"changed my mind",
    ),
}


OPEN = """\
<network>
  <name>open</name>
  <forward mode='open'/>
  <bridge name='virbr7'/>
  <ip address='192.168.177.1' netmask='255.255.255.0'/>
</network>
"""


@pytest.mark.parametrize("fault", FAULTS)
def test_nft_that(world: World, fault: str) -> None:
    script, says = FAULTS[fault]
    world.define(template("loopnet"))
    with instead_of_nft(world, script):
        line = one_line(world.refusal("net-start", "loopnet"))
        assert re.search(says, line), line
        assert "loopnet" not in world.active_networks()
        unaffected(world)
    world.check_unchanged()
    world.sandbox.virsh("net-start", "loopnet")


def test_network_stops_without_nft_and_sync_finishes(world: World) -> None:
    world.start()
    world.still("vm1")
    with instead_of_nft(world, ""):
        world.sandbox.virsh("net-destroy", "loopnet")
        assert world.published() == {}
    wait(lambda: "loopnet sync" in world.syslog(), "that in the log")
    world.sandbox.virsh("destroy", "vm1")
    world.host.run(["loopnet", "sync"])
    world.check_unchanged()


def unaffected(world: World) -> None:
    """A network and a guest that are not loopnet's come and go; libvirt itself needs no nft for this one."""
    world.define(OPEN)
    world.sandbox.virsh("net-start", "open")
    world.still("stranger", ["open"]).destroy()
    world.sandbox.virsh("net-destroy", "open")
    world.sandbox.virsh("net-undefine", "open")


def garbage(world: World) -> None:
    world.path(STORE).write_bytes(b"\0\xff garbage\n")


def cut_short(world: World) -> None:
    text = world.path(STORE).read_text()
    world.path(STORE).write_text(text[: len(text) // 2])


@pytest.mark.parametrize("spoil", [garbage, cut_short])
def test_reservations_are_spoiled(world: World, spoil: Callable[[World], None]) -> None:
    world.start()
    world.still("vm1")
    saved = world.path(STORE).read_bytes()
    spoil(world)
    spoiled = world.path(STORE).read_bytes()
    try:
        world.sandbox.guest("vm2", memory_mib=32)
        line = one_line(world.refusal("start", "vm2", "--paused"))
        assert STORE in line
        assert world.path(STORE).read_bytes() == spoiled
        assert list(world.published()) == ["vm1.loopnet"]
        unaffected(world)
        # libvirtd asks anew for vm1: it must live on
        world.sandbox.kill_libvirtd()
        world.sandbox.start_libvirtd()
        assert world.running_guests() == ["vm1"]
        world.sandbox.virsh("destroy", "vm1")
        world.sandbox.virsh("net-destroy", "loopnet")
        assert STORE in one_line(world.refusal("net-start", "loopnet"))
        world.check_unchanged()
    finally:
        world.path(STORE).write_bytes(saved)


def test_configuration_is_broken(world: World) -> None:
    world.define(template("loopnet"))
    world.path(CONFIGURATION).write_text('# mine\nnames = "off\n')
    line = one_line(world.refusal("net-start", "loopnet"))
    assert line.startswith(f"{CONFIGURATION}:2: ")
    unaffected(world)


def test_configuration_breaks_while_a_network_runs(world: World) -> None:
    world.start()
    world.still("vm1")
    world.path(CONFIGURATION).write_text("nmaes = off\n")
    world.sandbox.kill_libvirtd()
    world.sandbox.start_libvirtd()
    assert world.running_guests() == ["vm1"]
    world.sandbox.virsh("destroy", "vm1")
    world.sandbox.virsh("net-destroy", "loopnet")
    assert world.published() == {}
    world.path(CONFIGURATION).unlink()
    world.check_unchanged()


def test_pool_is_full(world: World) -> None:
    text = network_xml("tiny", "127.9.0.", "10.127.9.")
    for old, new in (
        ("address='127.9.0.254' netmask='255.255.255.0'", "address='127.9.0.6' prefix='29'"),
        ("10.127.9.0/24", "10.127.9.0/29"),
        ("255.255.255.0", "255.255.255.248"),
    ):
        text = text.replace(old, new)
    world.define(text)
    world.sandbox.virsh("net-start", "tiny")
    for number in range(1, 5):
        world.still(f"vm{number}", ["tiny"])
    assert sorted(world.published().values()) == [f"127.9.0.{n}" for n in (2, 3, 4, 5)]
    world.sandbox.guest("vm5", ["tiny"], memory_mib=32)
    line = one_line(world.refusal("start", "vm5", "--paused"))
    assert re.search(r"tiny: all 4 addresses of 127\.9\.0\.0/29.*loopnet release", line)
    assert len(world.published()) == 4
    world.sandbox.virsh("destroy", "vm3")
    world.host.run(["loopnet", "release", "vm3"])
    world.sandbox.virsh("start", "vm5", "--paused")
    wait(lambda: world.published().get("vm5.tiny") == "127.9.0.4", "the address set free")
