"""After the last network has stopped, and after a start that failed, the host is as it was."""

from __future__ import annotations

import itertools
import json
import random
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from libvirt_loopnet import process
from libvirt_loopnet.host import linux
from libvirt_loopnet.planning.lo import plan_lo
from tests.sandbox import CHECKOUT, Namespace
from tests.sandbox.namespaces import PYTHON
from tests.sandbox.snapshot import Snapshot

from .lab import RUN, STATE, Lab, LabNetwork, bound_over, eventually
from .looking import assert_same, look
from .wire import LeakWatch, Prober, Servers, ask_tcp

CONFIGURATION = "/etc/libvirt-loopnet.conf"


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    on = getattr(request, "param", "all") == "all"
    with Lab(bridge_nf=on, ip_rule=on, rp_filter=on) as made:
        # Once, for what stays for good: directories of reservations, and of libvirt's run state.
        made.start(made.network(9))
        made.stop(made.network(9))
        yield made


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that failed must not make the others fail."""
    yield
    if "lab" in request.fixturenames:
        made = request.getfixturevalue("lab")
        made.clean()
        made.mode = "mapped"


@pytest.fixture
def prober(lab: Lab) -> Iterator[Prober]:
    """127.0.0.1 answers all along."""
    with Prober(lab.host) as running:
        yield running
    assert running.asked > 50
    assert (running.failed, running.errors) == (0, set())


# --- start and stop ------------------------------------------------------------------------------


both = pytest.mark.parametrize("lab", ["plain", "all"], indirect=True)


@both
@pytest.mark.parametrize("options", ["", 'lo = "keep"', 'names = "off"'])
@pytest.mark.parametrize("mode", ["mapped", "native"])
def test_stop_leaves_the_host_as_it_was(lab: Lab, prober: Prober, mode: str, options: str) -> None:
    lab.mode = mode
    if options:
        lab.path(CONFIGURATION).write_text(options + "\n")
    try:
        before = look(lab)
        network = lab.network(1)
        lab.start(network)
        with Servers() as servers:
            guests = [lab.guest(network), lab.guest(network)]
            servers.tcp(guests[1].namespace, ("0.0.0.0", 80))
            ask_tcp(lab.host, (guests[1].loop, 80))
        during = look(lab)
        assert ("127.0.0.1/16" in during["ip addr"]) == (options != 'lo = "keep"')
        assert ("vm" in during["/etc/hosts"]) == (options != 'names = "off"')
        lab.destroy(guests[0])  # net-destroy tells nothing of the other: its port is just gone
        lab.stop(network)
        lab.host.run(["ip", "link", "delete", guests[1].tap])
        assert_same(before, look(lab))
    finally:
        lab.path(CONFIGURATION).unlink(missing_ok=True)
        lab.mode = "mapped"


@both
@pytest.mark.parametrize("seed", range(2))
def test_networks_come_and_go_in_any_order(lab: Lab, prober: Prober, seed: int) -> None:
    chance = random.Random(seed)
    networks = [lab.network(1), lab.network(2, guest_prefix="10.127.1.0/24"), lab.network(3)]
    active: list[LabNetwork] = []
    seen: dict[frozenset[str], Snapshot] = {frozenset(): look(lab)}
    with LeakWatch(lab.lan, "lan0") as leaks:
        for step in range(9):
            network = chance.choice(networks if step < 6 else active or networks)
            if network in active:
                lab.stop(network)
                active.remove(network)
            else:
                lab.start(network)
                active.append(network)
            state = without_order(look(lab))
            names = frozenset(network.model.name for network in active)
            assert_same(without_order(seen.setdefault(names, state)), state)
            assert ("127.0.0.1/16" in state["ip addr"]) == bool(active)
        for network in active:
            lab.stop(network)
        assert_same(seen[frozenset()], look(lab))
        assert leaks.take() == []


def without_order(state: Snapshot) -> Snapshot:
    """Devices and routes are listed in the order in which they came, and files have a time."""
    changed = dict(state)
    for name in ("ip addr", "ip route show table all", "nft list ruleset", "more"):
        lines = (re.sub(r"^[0-9]+: | [0-9]+\.[0-9]{9,}", "", x) for x in state[name].splitlines())
        changed[name] = "\n".join(sorted(lines))
    return changed


def test_repeated_events_change_nothing(lab: Lab) -> None:
    """A restarted daemon repeats port-created; an administrator may repeat anything."""
    network = lab.network(1)
    lab.start(network)
    guest = lab.guest(network)
    before = look(lab)
    assert to_do(lab) == []
    lab.network_hook(network, "started")
    lab.network_hook(network, "port-created", port=guest.port_xml)
    lab.hook("qemu", guest.name, "start", guest.domain_xml)
    lab.hook("qemu", guest.name, "reconnect", guest.domain_xml)
    lab.network_hook(network, "updated")
    assert_same(before, look(lab))
    assert to_do(lab) == []
    lab.destroy(guest)
    gone = look(lab)
    lab.hook("qemu", guest.name, "stopped", guest.domain_xml)
    lab.network_hook(network, "port-deleted", port=guest.port_xml)
    assert_same(gone, look(lab))
    assert to_do(lab) == []
    lab.stop(network)
    stopped = look(lab)
    lab.network_hook(network, "stopped")
    assert_same(stopped, look(lab))
    assert lab.syslog().count("please report") == 0


def to_do(lab: Lab) -> list[str]:
    """What a thorough look at the host finds to be done."""
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1])\n"
        "from libvirt_loopnet import config\n"
        "from libvirt_loopnet.converge.apply import planned, survey\n"
        "from libvirt_loopnet.host.linux import Linux\n"
        "from libvirt_loopnet.addresses.store import Store\n"
        "host = Linux()\n"
        "desired = survey(host, Store(), config.load())\n"
        "print(json.dumps([str(step) for step in planned(host, desired, thorough=True)]))"
    )
    found: list[str] = json.loads(lab.host.python(code, str(CHECKOUT)))
    return found


def test_what_others_put_on_lo_survives(lab: Lab) -> None:
    """Also an address that comes while loopnet is up."""
    before = look(lab)
    network = lab.network(1)
    lab.host.sh("ip address add 127.0.0.53/8 dev lo; ip address add 10.9.9.9/32 dev lo")
    with_others = look(lab)
    lab.start(network)
    lab.host.sh("ip address add 127.7.7.7/32 dev lo")
    lab.stop(network)
    lab.host.sh("ip address delete 127.7.7.7/32 dev lo")
    assert_same(with_others, look(lab))
    lab.host.sh("ip address delete 127.0.0.53/8 dev lo; ip address delete 10.9.9.9/32 dev lo")
    assert_same(before, look(lab))


def test_rules_of_others_are_left_alone(lab: Lab) -> None:
    lab.host.run(["nft", "-f", "-"], input=(
        "add table bridge filter\n"
        "add chain bridge filter c { type filter hook forward priority 0; }\n"
        "add table ip nat\n"
        "add chain ip nat c { type nat hook postrouting priority 100; }\n"
        "add rule ip nat c counter masquerade\n"
        "add table inet loopnet\n"
        "add set inet loopnet s { type ipv4_addr; }\n"
        "add element inet loopnet s { 127.1.0.5 }\n"
        "add table ip6 loopnet2\n"
    ))  # fmt: skip
    try:
        before = look(lab)
        network = lab.network(1)
        lab.start(network)
        during = lab.rules()
        for line in before["nft list ruleset"].splitlines():
            assert line in during
        lab.stop(network)
        assert_same(before, look(lab))
    finally:
        lab.host.run(["nft", "flush", "ruleset"])


# --- failures ------------------------------------------------------------------------------------

ALWAYS_FAILS = "#!/bin/sh\necho 'Error: Could not process rule: Device or resource busy' >&2; exit 1\n"

# Runs each line of a batch by itself and refuses the one whose number is in /run/fake/fail, once.
IP_FAILS_ONCE = """\
#!/bin/sh
case $* in *-batch*) ;; *) exec /run/real/ip "$@" ;; esac
options=${*%-batch -}
number=0
while read -r line || [ -n "$line" ]; do
    number=$((number + 1))
    left=$(cat /run/fake/fail)
    echo $((left - 1)) >/run/fake/fail
    if [ "$left" = 1 ]; then
        printf 'RTNETLINK answers: Device or resource busy\\nCommand failed -:%s\\n' $number >&2
        exit 1
    fi
    /run/real/ip $options $line || { echo "Command failed -:$number" >&2; exit 1; }
done
"""

# Lets checks and lists pass, and refuses the transaction whose number is in /run/fake/fail, once.
NFT_FAILS_ONCE = """\
#!/bin/sh
[ "$*" = '-f -' ] || exec /run/real/nft "$@"
left=$(cat /run/fake/fail)
echo $((left - 1)) >/run/fake/fail
[ "$left" = 1 ] && { echo 'Error: Could not process rule: No buffer space available' >&2; exit 1; }
exec /run/real/nft "$@"
"""


def assert_refused(result: subprocess.CompletedProcess[str], says: str) -> None:
    assert result.returncode == 1
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("libvirt-loopnet: ")
    assert says in lines[0]


@pytest.mark.parametrize("others", [0, 1])
def test_started_fails_at_any_line_of_ip(lab: Lab, others: int) -> None:
    """Wherever it stops, everything is undone: the bridge as well, which libvirt would leave."""
    other, network = lab.network(2), lab.network(1)
    if others:
        lab.start(other)
    before = look(lab)
    failures = 0
    with bound_over(lab, "/usr/sbin/ip", IP_FAILS_ONCE):
        for line in itertools.count(1):
            with_real_ip(lab, network)
            lab.path("/run/fake/fail").write_text(f"{line}\n")
            result = lab.network_hook(network, "started", check=False)
            if result.returncode == 0:
                break
            assert_refused(result, "Device or resource busy")
            failures += 1
            assert not lab.path("/sys/class/net/virbr1").exists()
            assert_same_but(before, look(lab), "/run/fake", "/run/real")
        lab.host.sh("echo 0 >/run/fake/fail; ip link delete virbr1")
        lab.network_hook(network, "stopped")
    assert failures >= (6 if others else 8)
    assert_same(before, look(lab))
    if others:
        lab.stop(other)


def with_real_ip(lab: Lab, network: LabNetwork) -> None:
    lab.path("/run/fake/fail").write_text("0\n")
    lab.make_bridge(network)


def assert_same_but(before: Snapshot, after: Snapshot, *paths: str) -> None:
    left = [line for line in after["more"].splitlines() if not any(path in line for path in paths)]
    assert_same(before, {**after, "more": "\n".join(left) + "\n"})


def test_started_fails_at_any_transaction_of_nft(lab: Lab) -> None:
    network = lab.network(1)
    before = look(lab)
    failures = 0
    with bound_over(lab, "/usr/sbin/nft", NFT_FAILS_ONCE):
        for number in itertools.count(1):
            lab.path("/run/fake/fail").write_text("0\n")
            lab.make_bridge(network)
            lab.path("/run/fake/fail").write_text(f"{number}\n")
            result = lab.network_hook(network, "started", check=False)
            if result.returncode == 0:
                break
            assert_refused(result, "nft refused the rules: Error: Could not process rule: No buffer")
            failures += 1
            assert_same_but(before, look(lab), "/run/fake", "/run/real")
        lab.path("/run/fake/fail").write_text("0\n")
        lab.remove_bridge(network)
        lab.network_hook(network, "stopped")
    assert failures >= 1
    assert_same(before, look(lab))


# A program of another's, between two of our steps.
NFT_IS_UNDONE = """\
#!/bin/sh
/run/real/nft "$@" || exit
[ "$*" != '-f -' ] || /run/real/nft 'delete table bridge loopnet' 2>&1 || true
"""


def test_started_fails_when_netlink_refuses(lab: Lab) -> None:
    """The kernel itself says no to the rules that the hook sends it."""
    network = lab.network(1)
    before = look(lab)
    with bound_over(lab, "/usr/sbin/nft", NFT_IS_UNDONE):
        lab.make_bridge(network)
        result = lab.network_hook(network, "started", check=False)
    assert_refused(result, "netfilter by netlink refused: No such file or directory")
    assert not lab.path("/sys/class/net/virbr1").exists()
    lab.network_hook(network, "stopped")
    assert_same(before, look(lab))


@pytest.mark.parametrize("jump", ["+4000d", "-4000d"])
def test_the_clock_jumps(lab: Lab, jump: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a guest's event and the moment in which libvirt has it in its files."""
    monkeypatch.setattr(lab, "starts", True)
    network, other = lab.network(1), lab.network(2)
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    jumped = [f"LD_PRELOAD={library}", f"FAKETIME={jump}", "FAKETIME_DONT_FAKE_MONOTONIC=1"]
    before = look(lab)
    lab.start(network)
    guest = lab.guest(network)
    lab.path(f"{RUN}/{network.model.name}/ports").rename(lab.path("/run/ports"))
    try:
        lab.environment = jumped
        assert lab.host.run(["env", *jumped, "date", "+%Y"]).stdout != lab.host.run(["date", "+%Y"]).stdout
        lab.start(other)  # makes all rules anew
        lab.host.run(["ping", "-c", "1", guest.loop])
        lab.network_hook(network, "updated")
        lab.environment = []
        lab.network_hook(network, "updated")
        lab.host.run(["ping", "-c", "1", guest.loop])
    finally:
        lab.environment = []
        lab.path("/run/ports").rename(lab.path(f"{RUN}/{network.model.name}/ports"))
    lab.destroy(guest)
    lab.stop(other)
    lab.stop(network)
    assert_same(before, look(lab))


def test_start_is_refused_without_nft(lab: Lab) -> None:
    """Before there is a bridge: the cleanest moment."""
    before = look(lab)
    with bound_over(lab, "/usr/sbin/nft", ""):
        lab.path("/run/fake/nft").chmod(0o644)
        result = lab.network_hook(lab.network(1), "start", check=False)
    assert_refused(result, "nft is not installed; install the package nftables")
    assert_same(before, look(lab))


def test_start_is_undone_when_nft_refuses(lab: Lab) -> None:
    network = lab.network(1)
    before = look(lab)
    with bound_over(lab, "/usr/sbin/nft", ALWAYS_FAILS):
        lab.network_hook(network, "start")
        lab.make_bridge(network)
        assert_refused(lab.network_hook(network, "started", check=False), "nft refused the rules")
    assert not lab.path("/sys/class/net/virbr1").exists()
    assert_same(before, look(lab))


def test_a_guest_is_refused_when_nft_refuses(lab: Lab) -> None:
    network = lab.network(1)
    before = look(lab)
    lab.start(network)
    guest = lab.guest(network)
    other = guest._replace(name="other", mac="52:54:00:aa:00:ee", tap="vnet77")
    during = look(lab)
    with bound_over(lab, "/usr/sbin/nft", ALWAYS_FAILS):
        result = lab.network_hook(network, "port-created", port=other.port_xml, check=False)
        assert_refused(result, "nft refused the rules")
        # One that runs already goes on running.
        lab.create_port(guest)
        lab.hook("qemu", guest.name, "reconnect", guest.domain_xml)
        lab.network_hook(network, "port-deleted", port=guest.port_xml)
        lab.hook("qemu", guest.name, "stopped", guest.domain_xml)
    for part in ("ip addr", "ip route show table all", "nft list ruleset"):
        assert during[part] == look(lab)[part]
    lab.destroy(guest)
    lab.stop(network)
    assert_same(before, look(lab))


def test_stop_goes_on_after_errors(lab: Lab) -> None:
    """Teardown takes away what it can, says what it could not, and is finished by the next event."""
    network = lab.network(1)
    before = look(lab)
    lab.start(network)
    lab.remove_bridge(network)
    with bound_over(lab, "/usr/sbin/nft", ALWAYS_FAILS):
        result = lab.network_hook(network, "stopped")
    assert (result.stdout, result.stderr) == ("", "")
    eventually(lambda: "nft refused the rules" in lab.syslog().splitlines()[-1])
    assert "loopnet sync" in lab.syslog().splitlines()[-1]
    assert "127.0.0.1/8" in look(lab)["ip addr"]
    lab.network_hook(network, "stopped")
    assert_same(before, look(lab))


# --- lo, alone -----------------------------------------------------------------------------------

LOCALHOST = "127.0.0.1/8"
EXTRA = ["127.0.0.53/8", "127.5.5.5/32", "10.9.9.9/32", "127.0.0.99/8 label lo:1"]


@pytest.fixture(scope="module")
def bare() -> Iterator[Namespace]:
    """A namespace with nothing but lo."""
    with Lab() as made:
        made.host.sh("ip netns add bare")
        namespace = made.namespace("bare")
        namespace.sh("ip link set lo up")
        yield namespace


def ip_batch(lines: Sequence[str]) -> str:
    result = process.run(["ip", "-batch", "-"], "\n".join(lines).encode())
    assert result.status == 0, result.stderr
    return result.stdout.decode()


def lo_now() -> str:
    """Addresses in their order, and all that the kernel made of them."""
    return ip_batch(["address show dev lo", "route show table local", "route show table main"])


def change_lo(shrink: bool, active: bool = False) -> list[str]:
    observed = linux.Linux().observe(())
    lines = plan_lo(observed.lo, observed.routes, shrink, active)
    # As many batches as lines: at every moment in between 127.0.0.1 must be there.
    for line in lines:
        assert ip_batch([line, "route get 127.0.0.1"]).startswith("local 127.0.0.1"), line
    return lines


def check_lo(addresses: Sequence[str]) -> None:
    """From these addresses to a /16 and back: nothing lost, nothing else, nothing to do twice."""
    ip_batch(["address flush dev lo", *(f"address add {address} dev lo" for address in addresses)])
    before = lo_now()
    assert change_lo(shrink=True)
    during = lo_now()
    assert change_lo(shrink=True) == []
    assert lo_now() == during
    assert "127.0.0.1/16" in during
    assert "127.0.0.1/8" not in during
    for address in addresses:
        if address != LOCALHOST:
            assert f"inet {address.split()[0]} " in during
    for inside in ("127.0.0.1", "127.0.0.53", "127.5.5.5", "127.200.0.1"):
        assert ip_batch([f"route get {inside}"]).startswith(f"local {inside}")
    assert change_lo(shrink=False)
    # Where another /8 came first, 127.0.0.1 was its secondary: it is again, but maybe the first.
    first = next(address for address in addresses if "/8" in address)
    order = str if first == LOCALHOST else sorted_lines
    assert order(lo_now()) == order(before)
    assert change_lo(shrink=False) == []


def sorted_lines(text: str) -> str:
    return "\n".join(sorted(text.splitlines()))


@pytest.mark.parametrize("promote", [False, True])
def test_lo_comes_back_exactly(bare: Namespace, promote: bool) -> None:
    """Its other addresses in all orders, secondaries, labels, with promote_secondaries or not."""
    bare.sh(f"echo {int(promote)} >/proc/sys/net/ipv4/conf/all/promote_secondaries")
    orders = list(itertools.permutations([LOCALHOST, *EXTRA]))
    subsets = [(LOCALHOST,), *((LOCALHOST, extra) for extra in EXTRA)]
    for addresses in [*subsets, *random.Random(1).sample(orders, 16)]:

        def check(chosen: Sequence[str] = addresses) -> None:
            check_lo(chosen)

        bare.call(check)


@pytest.mark.parametrize("address", ["127.0.0.1/16", "127.0.0.1/32", "127.0.0.2/8"])
def test_an_administrators_lo_is_left_alone(bare: Namespace, address: str) -> None:
    """But for the route that keeps local what no network claims."""

    def check() -> None:
        ip_batch(["address flush dev lo", f"address add {address} dev lo"])
        before = lo_now()
        assert all(line.startswith("route add local 127.0.0.0/8 ") for line in change_lo(shrink=True))
        assert change_lo(shrink=True, active=True) == []
        assert before.splitlines()[:3] == lo_now().splitlines()[:3]
        change_lo(shrink=False)
        assert lo_now() == before

    bare.call(check)


def test_reservations_are_for_good(lab: Lab) -> None:
    network = lab.network(1)
    lab.start(network)
    guest = lab.guest(network)
    lab.destroy(guest)
    lab.stop(network)
    kept = lab.path(f"{STATE}/net1.reservations").read_text()
    assert f" {guest.mac} " in kept
    lab.start(network)
    again = lab.guest(network, mac=guest.mac, name=guest.name)
    assert again.number == guest.number
    lab.destroy(again)
    lab.stop(network)


def test_python_is_the_systems() -> None:
    """The hooks run by it, whatever runs the tests."""
    assert PYTHON == "/usr/bin/python3"


def test_clones_come_and_go_by_themselves(lab: Lab) -> None:
    """Guests with the same MAC address on two networks."""
    first, second = lab.network(1), lab.network(2, guest_prefix="10.127.1.0/24")
    lab.start(first)
    lab.start(second)
    one = lab.guest(first)
    lab.destroy(lab.guest(second, mac=one.mac))  # reserved from now on
    alone = lab.rules()
    for bind in (True, False):
        twin = lab.guest(second, mac=one.mac, bind=bind)
        assert [step for step in to_do(lab) if bind] == []
        lab.destroy(twin)
        assert to_do(lab) == []
        assert lab.rules() == alone
    twin = lab.guest(second, mac=one.mac)
    lab.destroy(one)
    assert to_do(lab) == []
    with Servers() as servers:
        servers.tcp(twin.namespace, ("0.0.0.0", 80))
        assert ask_tcp(lab.host, (twin.loop, 80))[0] == "127.2.0.254"
    lab.destroy(twin)
    lab.stop(first)
    lab.stop(second)
