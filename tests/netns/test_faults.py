"""The hook is killed at every step; the next look brings the host to what it should be.

In place of /usr/sbin/nft and ip stands a script, in the sandbox's own mount namespace, that kills its
caller at the n-th call that changes something: before the tool runs, after it, or, for ip's batches, after k of its
lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Callable

import pytest

from tests.netns.lab import Lab, LabGuest, LabNetwork, eventually
from tests.netns.looking import look
from tests.netns.wire import Prober, Servers, ask_tcp
from tests.sandbox import CHECKOUT

TOOL = """#!/bin/sh
# {name}, until it is its turn to be the fault; for the hook only, not for the lab
real=/dev/shm/fault/real/{name}
read -r caller </proc/$PPID/comm
[ "$caller" = python3 ] || exec $real "$@"
read -r left mode lines scope </dev/shm/fault/plan
case "$scope $mode {name} $*" in
"changes lines nft"*) exec $real "$@" ;; # nft does all that it is given or nothing
calls* | *" nft -f -" | *" ip -batch -") ;;
*) exec $real "$@" ;;
esac
echo $((left - 1)) "$mode" "$lines" "$scope" >/dev/shm/fault/plan
[ "$left" = 0 ] || exec $real "$@"
case $mode in
stop) pkill -TERM -f ' watch$'; exec $real "$@" ;;
after) $real "$@" ;;
lines) head -n "$lines" | $real "$@" ;;
esac
kill -9 $PPID
"""
CHANGES, CALLS = "changes", "calls"
"""What counts: calls of the tools that change something, or all."""
MOST_CHANGES = 12
Event = Callable[[], object]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(bridge_nf=True, ip_rule=True, rp_filter=True) as made:
        made.start(made.network(9))
        made.stop(made.network(9))
        made.host.sh("mkdir -p /dev/shm/fault/real; cp -L /usr/sbin/nft /usr/sbin/ip /dev/shm/fault/real/")
        disarm(made)
        for name in ("nft", "ip"):
            tool = made.path(f"/dev/shm/fault/{name}")
            tool.write_text(TOOL.format(name=name))
            tool.chmod(0o755)
            made.host.sh(f"mount --bind /dev/shm/fault/{name} $(readlink -f /usr/sbin/{name})")
        yield made


@pytest.fixture(autouse=True)
def clean(lab: Lab) -> Iterator[None]:
    yield
    disarm(lab)
    lab.clean()
    lab.host.run(["loopnet", "sync"], check=False)


def arm(lab: Lab, call: int, mode: str, lines: int = 0, scope: str = CHANGES) -> None:
    lab.path("/dev/shm/fault/plan").write_text(f"{call} {mode} {lines} {scope}\n")


def disarm(lab: Lab) -> None:
    arm(lab, -1, "never")


def struck(lab: Lab) -> bool:
    """Was the call reached at which the fault waits?"""
    return int(lab.path("/dev/shm/fault/plan").read_text().split()[0]) < 0


def faults() -> Iterator[tuple[str, int]]:
    yield "before", 0
    yield "after", 0
    for lines in (1, 3):
        yield "lines", lines


def calls(lab: Lab, event: Event) -> int:
    """How often ``event`` calls the tools."""
    many = 1000
    arm(lab, many, "never", scope=CALLS)
    event()
    left = int(lab.path("/dev/shm/fault/plan").read_text().split()[0])
    disarm(lab)
    return many - left


def strike_everywhere(lab: Lab, event: Event, recover: Event) -> int:
    """Run ``event`` once for each place where it can be killed; ``recover`` follows each time."""
    count = 0
    for mode, lines in faults():
        for call in range(MOST_CHANGES):
            arm(lab, call, mode, lines)
            event()
            hit = struck(lab)
            disarm(lab)
            recover()
            if not hit:
                break
            count += 1
        else:
            pytest.fail(f"{mode}: there are more than {MOST_CHANGES} changes")
    return count


def plan(lab: Lab) -> str:
    return lab.host.run(["loopnet", "plan"], check=False).stdout


def sync(lab: Lab) -> None:
    lab.host.run(["loopnet", "sync"])
    planned = lab.host.run(["loopnet", "plan"], check=False)
    assert planned.returncode == 0, planned.stdout


def test_started(lab: Lab) -> None:
    """libvirt gives the network up, but leaves the bridge; all of ours goes with the next look."""
    before = look(lab)
    network = lab.network(1)

    def start() -> None:
        lab.network_hook(network, "start", check=False)
        lab.make_bridge(network)
        lab.network_hook(network, "started", check=False)

    def recover() -> None:
        lab.remove_bridge(network)
        lab.network_hook(network, "stopped", check=False)
        sync(lab)
        assert look(lab) == before

    with Prober(lab.host) as prober:
        assert strike_everywhere(lab, start, recover) >= 6
    assert not prober.errors


def test_started_beside_another(lab: Lab) -> None:
    first, second = lab.network(1), lab.network(2)
    lab.start(first)
    guest = lab.guest(first)
    before = look(lab)

    def start() -> None:
        lab.network_hook(second, "start", check=False)
        lab.make_bridge(second)
        lab.network_hook(second, "started", check=False)

    def recover() -> None:
        lab.remove_bridge(second)
        lab.network_hook(second, "stopped", check=False)
        sync(lab)
        assert look(lab) == before
        answers(lab, guest)

    with Prober(lab.host) as prober:
        assert strike_everywhere(lab, start, recover) >= 6
    assert not prober.errors


def test_stopped(lab: Lab) -> None:
    network = lab.network(1)
    before = look(lab)

    def start_and_stop() -> None:
        plan = lab.path("/dev/shm/fault/plan").read_text()
        disarm(lab)
        lab.start(network)
        lab.path("/dev/shm/fault/plan").write_text(plan)
        lab.remove_bridge(network)
        lab.network_hook(network, "stopped", check=False)

    def recover() -> None:
        sync(lab)
        lab.host.run(["loopnet", "cleanup"])
        assert look(lab) == before

    with Prober(lab.host) as prober:
        assert strike_everywhere(lab, start_and_stop, recover) >= 6
    assert not prober.errors


@pytest.fixture
def running(lab: Lab) -> tuple[LabNetwork, LabGuest]:
    network = lab.network(1)
    lab.start(network)
    return network, lab.guest(network)


def test_ports(lab: Lab, running: tuple[LabNetwork, LabGuest]) -> None:
    """A guest that is there keeps its connection, whatever happens to the hook of another."""
    network, neighbour = running
    guest = lab.guest(network)

    def replug() -> None:
        lab.hook("qemu", guest.name, "start", guest.domain_xml, check=False)
        lab.network_hook(network, "port-deleted", port=guest.port_xml, check=False)
        lab.network_hook(network, "port-created", port=guest.port_xml, check=False)
        lab.hook("qemu", guest.name, "start", guest.domain_xml, check=False)

    def recover() -> None:
        answers(lab, neighbour)
        lab.network_hook(network, "port-created", port=guest.port_xml)
        sync(lab)
        answers(lab, guest)

    assert strike_everywhere(lab, replug, recover) >= 6


SPOIL = "nft flush ruleset; ip route flush table local proto 127; ip address add 127.0.0.1/8 dev lo"
NOTHING = "nothing to do\n"


def test_sync(lab: Lab, running: tuple[LabNetwork, LabGuest]) -> None:
    _, guest = running

    def mend() -> None:
        plan = lab.path("/dev/shm/fault/plan").read_text()
        disarm(lab)
        lab.host.sh(SPOIL)
        lab.path("/dev/shm/fault/plan").write_text(plan)
        lab.host.run(["loopnet", "sync"], check=False)

    def recover() -> None:
        sync(lab)
        answers(lab, guest)

    with Prober(lab.host) as prober:
        assert strike_everywhere(lab, mend, recover) >= 8
    assert not prober.errors


@pytest.mark.parametrize("verb", ["publish", "unpublish"])
def test_publish(lab: Lab, running: tuple[LabNetwork, LabGuest], verb: str) -> None:
    """What is stored comes before what is done, and the next look opens or closes the port accordingly; who lives to
    tell that a port can't be opened forgets it."""
    _, guest = running
    with Servers() as servers:
        servers.tcp(guest.namespace, ("0.0.0.0", 80))
        lab.host.run(["loopnet", "publish", guest.name, "8080:80"])
        last = calls(lab, lambda: lab.host.run(["loopnet", "unpublish", guest.name, "--all"])) - 1
        for strike in (("before", 0), ("before", last // 2), ("after", last // 2), ("before", last)):
            if verb == "unpublish":
                lab.host.run(["loopnet", "publish", guest.name, "8080:80"])
            arm(lab, strike[1], strike[0], scope=CALLS)
            told = lab.host.run(["loopnet", verb, guest.name, "8080:80"], check=False).returncode == 4
            assert struck(lab), strike
            disarm(lab)
            sync(lab)
            stored = "8080:80" in lab.host.run(["loopnet", "list"]).stdout
            if strike[1]:  # the first call is a look, before anything is stored
                assert stored == (verb == "publish" and not told)
            if stored:
                ask_tcp(lab.lan, (lab.host_address, 8080))
                lab.host.run(["loopnet", "unpublish", guest.name, "--all"])
            with pytest.raises(ConnectionRefusedError):
                ask_tcp(lab.lan, (lab.host_address, 8080))
            answers(lab, guest)


def answers(lab: Lab, guest: LabGuest) -> None:
    lab.host.run(["ping", "-c", "1", guest.loop])


def test_watch_ends_what_it_has_begun(lab: Lab, running: tuple[LabNetwork, LabGuest]) -> None:
    """It is stopped, as by an upgrade, at every call: what is to be repaired is repaired as a whole, or not at all."""
    seen = set()
    for call in range(MOST_CHANGES):
        lab.host.sh(SPOIL)
        before = plan(lab)
        arm(lab, call, "stop")
        with lab.host.popen(["loopnet", "watch"]) as watch:
            eventually(lambda: watch.poll() is not None or plan(lab) == NOTHING, 20)
            hit = struck(lab)
            disarm(lab)
            watch.terminate()
            watch.wait(10)
        seen.add(plan(lab))
        assert seen <= {before, NOTHING}, (call, seen - {before})
        sync(lab)
        if not hit:
            break
    assert seen == {before, NOTHING}


LOST_MESSAGES = """
import subprocess, sys; sys.path.insert(0, sys.argv[1])
from libvirt_loopnet.host.kernel.notify import Changes
def ip(*lines):
    subprocess.run(["ip", "-batch", "-"], input="\\n".join(lines), text=True, check=True)
with Changes(lambda bridge, mac: True) as changes:
    print(changes.wait(0.2))
    flood = [f"address {verb} 10.99.{n}.1/32 dev lo" for n in range(250) for verb in ("add", "del")]
    for _ in range(40):
        ip(*flood)
    drops = [int(line.split()[8]) for line in list(open("/proc/self/net/netlink"))[1:]]
    print(sum(drops) > 0, changes.wait(10))
    while changes.wait(0.5):
        pass
    ip("address add 10.99.0.1/32 dev lo")
    print(changes.wait(10))
"""


def test_watch_loses_messages_but_no_change(lab: Lab) -> None:
    """ENOBUFS: twenty thousand changes in a burst, more than a socket's buffer holds."""
    heard = lab.host.run(["/usr/bin/python3", "-I", "-c", LOST_MESSAGES, str(CHECKOUT)]).stdout
    assert heard.split() == ["False", "True", "True", "True"]
