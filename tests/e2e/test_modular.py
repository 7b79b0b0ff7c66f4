"""libvirt's modular daemons, started by who connects, and both backends of libvirt's own firewall rules.

Two networks of ours and libvirt's default one, each with a guest, under daemons that come and go. `make
check-modular` runs most other end-to-end tests with these daemons, too.
"""

from __future__ import annotations

import json
import signal
import time
from typing import Dict, Iterator, NamedTuple, Union

import pytest

from tests.e2e import test_convert
from tests.machines.libvirt import built
from tests.sandbox import CHECKOUT, INTERNET, Guest, Sandbox
from tests.sandbox.libvirtd import MODULAR
from tests.sandbox.namespaces import PYTHON
from tests.sandbox.world import MAPPED, NATIVE, World, template, wait

pytestmark = pytest.mark.timeout(1800)  # whichever is first, it builds them, beside others

DAEMONS = ("virtqemud", "virtnetworkd", "virtproxyd")
HOOKED = DAEMONS[:2]
"""Those that run hooks."""
IDLE = 1
"""Seconds after which a daemon without work ends."""
LOOP = {"mapped": "127.1.0.2", "native": "127.2.0.2"}
NETWORKS = (MAPPED.name, NATIVE.name)
UP = dict.fromkeys(LOOP, "up")
DEFAULT = "192.168.122."


Where = Union[World, Sandbox]


class Lit(NamedTuple):
    world: World
    guests: Dict[str, Guest]
    backend: str


@pytest.fixture(scope="module", params=["iptables", "nftables"])
def lit(request: pytest.FixtureRequest) -> Iterator[Lit]:
    with World(daemons=MODULAR, firewall_backend=request.param) as world:
        world.start(MAPPED)
        world.start(NATIVE)
        world.sandbox.virsh("net-start", "default")
        guests = {
            "mapped": world.sandbox.guest("mapped", [MAPPED.name]),
            "native": world.sandbox.guest("native", [NATIVE.name], cmdline=NATIVE.cmdline),
            "other": world.sandbox.guest("other", ["default"]),
        }
        for guest in guests.values():
            guest.start()
        for guest in guests.values():
            guest.wait_boot()
            guest.wait_lease()
        yield Lit(world, guests, request.param)


def need_binding(world: Where) -> None:
    """Skips where Python's libvirt module is for a newer libvirt than the one that is built, and does not load it."""
    done = world.host.run([PYTHON, "-I", "-c", "import libvirt"], check=False)
    if "LIBVIRT_" in done.stderr and "not found" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])


def running(world: Where) -> Dict[str, int]:
    """Daemon -> its process."""
    listed = world.host.sh("ps -e -o pid=,comm=").splitlines()
    found = {name: int(pid) for pid, name in (line.split(None, 1) for line in listed)}
    return {name: pid for name, pid in found.items() if name in DAEMONS}


def connect(world: Where) -> None:
    """To each daemon, so that it runs; virtproxyd is for old clients."""
    for daemon, uri in zip(DAEMONS, ("qemu:///system", "network:///system", "qemu:///system?mode=legacy")):
        world.host.run(["virsh", "-q", "-c", uri, "net-list"])
        assert daemon in running(world)


def check_all(lit: Lit) -> None:
    """Every guest is reached and reaches; nothing that looks at the host finds fault with it."""
    world = lit.world
    check_ours(lit)
    assert world.page(lit.guests["other"].address()) == "hello from other\n"
    for guest in lit.guests.values():
        assert guest.run(f"wget -qO- http://{INTERNET}/").startswith("hello from the internet")
    assert world.resolve("mapped.loopnet") == [LOOP["mapped"]]
    listed = json.loads(world.host.sh("loopnet list --json"))
    assert {entry["name"]: entry["state"] for entry in listed if entry["network"] in NETWORKS} == UP
    assert world.host.run(["loopnet", "plan"], check=False).stdout == "nothing to do\n"


def check_ours(lit: Lit) -> None:
    """The host reaches the guests of our networks: libvirt's own may suffer while libvirt makes its rules anew."""
    for name, address in LOOP.items():
        assert lit.world.page(address) == f"hello from {name}\n"


def test_they_are_built() -> None:
    """First of all, as it takes minutes once."""
    assert {path.name for path in (built() / "sbin").iterdir()} >= {*DAEMONS, "libvirtd"}


def test_first_light(lit: Lit) -> None:
    check_all(lit)
    assert lit.world.page(LOOP["mapped"], "cgi-bin/peer") == f"{MAPPED.host}\n"
    assert lit.guests["mapped"].resolve("internet.example") == [INTERNET]
    assert not lit.world.path("/run/libvirtd.pid").exists()


def test_libvirts_rules_are_of_the_backend(lit: Lit) -> None:
    """Or nothing here would be tested with both."""
    tables = lit.world.host.sh("nft list tables; nft list table ip filter 2>/dev/null || true")
    assert ("table ip libvirt_network" in tables) == (lit.backend == "nftables")
    assert ("LIBVIRT_FWI" in tables) == (lit.backend == "iptables")


def test_doctor(lit: Lit) -> None:
    assert lit.world.host.sh("loopnet doctor") == "nothing is in the way\n"


def test_networks_are_apart(lit: Lit) -> None:
    """Beside libvirt's own, which has its guests reached by the host and by no others."""
    ours, other = lit.guests["mapped"], lit.guests["other"]
    for guest, target in (
        (ours, other.address()),
        (other, "127.1.0.2"),
        (other, "247.1.0.2"),
        (other, "10.127.1.2"),
    ):
        printed = guest.run(f"udp send {target} 7 hello 1; echo status $?")
        assert printed.split()[-1] in ("1", "2"), target


def test_a_published_port(lit: Lit) -> None:
    """For the LAN, and for a guest of libvirt's own network."""
    world, host = lit.world, lit.world.sandbox.host_address
    fetch = f"curl -sS --max-time 20 http://{host}:8080/"
    assert world.sandbox.lan.run(fetch.split(), check=False).returncode != 0
    world.host.sh("loopnet publish mapped 8080:80")
    try:
        assert world.sandbox.lan.sh(fetch) == "hello from mapped\n"
        assert lit.guests["other"].run(f"wget -qO- http://{host}:8080/") == "hello from mapped\n"
        assert world.host.sh("loopnet doctor") == "nothing is in the way\n"
    finally:
        world.host.sh("loopnet unpublish mapped 8080:80")


@pytest.mark.parametrize("daemon", DAEMONS)
def test_guests_go_on_without(lit: Lit, daemon: str) -> None:
    """Each daemon by itself, while the others run; the next who connects, or systemd, starts it again."""
    world = lit.world
    connect(world)
    before = running(world)
    for number in (signal.SIGTERM, signal.SIGKILL):
        end(world, daemon, number)
        check_ours(lit)
        connect(world)
        check_ours(lit)
    check_all(lit)
    after = running(world)
    assert {name for name in DAEMONS if after[name] == before[name]} == {*DAEMONS} - {daemon}


def end(world: World, daemon: str, number: int) -> None:
    process = running(world)[daemon]
    world.host.sh(f"kill -{number} {process}")
    wait(lambda: running(world).get(daemon) != process, f"end of {daemon}")


def test_a_nic_is_plugged_in_and_out(lit: Lit) -> None:
    """When the daemon that tells of ports has to be started for it."""
    world, guest = lit.world, lit.guests["native"]
    world.sandbox.stop_libvirtd()
    world.sandbox.start_libvirtd(settled=False)
    assert "virtnetworkd" not in running(world)
    mac = guest.attach_nic(MAPPED.name)
    assert guest.wait_lease(1) == "10.127.1.3"
    assert world.page("127.1.0.3") == "hello from native\n"
    guest.detach_nic(mac)
    wait(lambda: "native.loopnet" not in world.published(), "end of the name")
    world.host.sh(f"loopnet release {mac}")
    check_all(lit)


def test_the_network_restarts_under_a_watch(lit: Lit) -> None:
    """The watch plugs the guest in, by whatever daemons that takes."""
    need_binding(lit.world)
    world = lit.world
    watch = world.host.popen(["loopnet", "watch"])
    try:
        world.sandbox.virsh("net-destroy", MAPPED.name)
        world.sandbox.virsh("net-start", MAPPED.name)
        answers = ["curl", "-sm", "1", f"http://{LOOP['mapped']}/"]
        wait(lambda: world.host.run(answers, check=False).stdout == "hello from mapped\n", "guest")
        world.host.sh("ip route flush table local proto 127")
        wait(lambda: world.host.run(["loopnet", "plan"], check=False).returncode == 0, "routes")
    finally:
        watch.terminate()
        said = watch.communicate(timeout=20)[0]
    assert watch.returncode == 0
    assert "plugged in again" in said
    check_all(lit)


def test_convert_and_revert_under_running_guests(lit: Lit) -> None:
    """libvirt's rules for the network go, whatever backend they are of, and come back."""
    need_binding(lit.world)
    sandbox = lit.world.sandbox
    other = lit.guests["other"]
    address = other.address()
    rules = libvirts_rules(lit)
    assert "virbr0" in rules
    sandbox.host.sh("loopnet convert default --restart")
    assert "virbr0" not in libvirts_rules(lit)
    loop = address.replace(DEFAULT, "127.3.0.")
    wait(test_convert.says(sandbox, loop, "other"), f"other at {loop}")
    wait(test_convert.on_the_internet(other), "internet")
    sandbox.host.sh("loopnet revert default --restart")
    wait(test_convert.says(sandbox, address, "other"), f"other at {address}")
    wait(test_convert.on_the_internet(other), "internet again")
    assert libvirts_rules(lit) == rules
    check_all(lit)


def libvirts_rules(lit: Lit) -> str:
    tables = (
        "ip libvirt_network" if lit.backend == "nftables" else "ip filter; nft --stateless list table ip nat"
    )
    return lit.world.host.sh(f"nft --stateless list table {tables}")


# --- daemons that come and go by themselves ---


@pytest.fixture(scope="module")
def idle() -> Iterator[World]:
    """Whose daemons end soon when there is nothing for them to do."""
    with World(daemons=MODULAR) as world:
        world.sandbox.stop_libvirtd()
        world.sandbox.daemons.timeout = IDLE
        world.sandbox.start_libvirtd()
        yield world


def wait_only(world: World, *daemons: str) -> None:
    """Until no others run, and then for as long as it takes to see that these go on."""
    wait(lambda: {*running(world)} <= {*daemons}, f"end of all but {daemons}")
    time.sleep(2 * IDLE)
    assert {*running(world)} == {*daemons}


def test_nothing_of_ours_wakes_daemons_or_keeps_them(idle: World) -> None:
    """libvirt itself keeps those whose networks are up and whose guests run."""
    watch = idle.host.popen(["loopnet", "watch"])
    try:
        connect(idle)
        wait_only(idle)
        idle.host.sh("loopnet list; loopnet status; loopnet plan; loopnet sync; loopnet doctor")
        assert not running(idle)
        idle.start()
        guest = idle.still("vm1")
        wait_only(idle, "virtqemud", "virtnetworkd")
        idle.host.sh("nft flush chain ip loopnet input")
        wait(lambda: idle.host.run(["loopnet", "plan"], check=False).returncode == 0, "rules")
        guest.destroy()
        wait_only(idle, "virtnetworkd")
        idle.sandbox.virsh("net-destroy", "loopnet")
        wait_only(idle)
    finally:
        watch.terminate()
        watch.communicate(timeout=20)
    assert watch.returncode == 0


def test_a_reservation_needs_no_daemon(idle: World) -> None:
    """Nor does the next start of the guest miss it."""
    wait(lambda: not running(idle), "end of all daemons")
    idle.host.sh("loopnet reserve vm1 127.1.0.9")
    assert not running(idle)
    idle.sandbox.virsh("net-start", "loopnet")
    idle.still("vm1")
    assert idle.published() == {"vm1.loopnet": "127.1.0.9"}


# --- hooks that come and go while daemons run ---

RELOAD = "tell the running daemon: systemctl reload virtnetworkd virtqemud\n"
RELOADED = "Reloaded virtnetworkd\nReloaded virtqemud\n"


@pytest.fixture
def bare() -> Iterator[Sandbox]:
    """Without our hooks."""
    with Sandbox(daemons=MODULAR, hooks=False) as sandbox:
        yield sandbox


def hooks(sandbox: Sandbox, verb: str) -> str:
    """What the verb says on standard error."""
    done = sandbox.host.run(["loopnet", verb])
    assert "/etc/libvirt/hooks/network.d/50-loopnet" in done.stdout
    return done.stderr


def test_hooks_come_while_daemons_run(bare: Sandbox) -> None:
    """They are named by those who say what to do, and told by what tells them."""
    host = bare.host
    connect(bare)
    assert hooks(bare, "install-hooks").endswith(RELOAD)
    found = json.loads(host.run(["loopnet", "doctor", "--json"], check=False).stdout)
    unseen = {finding["what"]: finding["command"] for finding in found if finding["id"] == "hook-unseen"}
    assert unseen == {
        f"{name} was started before the hooks were installed": f"kill -HUP {running(bare)[name]}"
        for name in HOOKED
    }
    host.run(["virsh", "-q", "net-define", "/dev/stdin"], input=template("loopnet"))
    assert "loopnet-dnsmasq" in host.run(["virsh", "net-start", "loopnet"], check=False).stderr

    told = host.run([str(CHECKOUT / "packaging/reload-libvirt")]).stdout
    assert told == RELOADED
    bare.virsh("net-start", "loopnet")
    bare.guest("vm1", memory_mib=32).start(paused=True)
    assert " up\n" in host.sh("loopnet list")
    bare.virsh("destroy", "vm1")
    bare.virsh("net-destroy", "loopnet")
    assert hooks(bare, "uninstall-hooks").endswith(RELOAD)


def test_daemons_of_others_are_not_named(bare: Sandbox) -> None:
    """A user's, for the session, and one in a container; and where none runs, none has to be told."""
    host, stranger = bare.host, "/run/sandbox/libvirtd"
    host.sh(f"cp /bin/sleep {stranger}; chmod 755 /run/sandbox {stranger}")
    others = [
        host.popen([*prefix, stranger, "300"])
        for prefix in (
            ["setpriv", "--reuid=65534", "--clear-groups"],
            ["unshare", "--pid", "--fork", "--kill-child"],
        )
    ]
    wait(lambda: host.sh("ps -e -o comm=").split().count("libvirtd") == 2, "processes")
    connect(bare)
    assert hooks(bare, "install-hooks").endswith(RELOAD)
    assert host.run([str(CHECKOUT / "packaging/reload-libvirt")]).stdout == RELOADED
    bare.stop_libvirtd()
    assert "must be told" not in hooks(bare, "uninstall-hooks")
    for other in others:
        assert other.poll() is None
        other.kill()
        other.wait(10)


def test_messages_name_the_daemons(bare: Sandbox) -> None:
    """Also while none runs, by their sockets; virtproxyd's are called as libvirtd's."""
    need_binding(bare)
    unknown = ["loopnet", "convert", "nobody"]
    assert "virsh net-list --all" in bare.host.run(unknown, check=False).stderr
    bare.path("/etc/libvirt/virtqemud.conf").write_text("nonsense\n")
    bare.host.sh(f"kill {' '.join(map(str, running(bare).values()))}")
    wait(lambda: not running(bare), "end of all daemons")
    done = bare.host.run(unknown, check=False)
    assert done.returncode == 4
    assert done.stderr.endswith("see: systemctl status virtnetworkd virtqemud\n")
