"""Two guests with the real keepalived: the address that they share moves when one ends, and the host reaches it."""

from __future__ import annotations

import re
import time
from typing import Iterator, List

import pytest

from tests.sandbox import Guest
from tests.sandbox.packages import provide
from tests.sandbox.world import World, wait

SHARED, LOOP = "10.127.1.99", "127.1.0.99"
INTERVAL = 1
PRIORITY = {"vm1": 150, "vm2": 100}
MASTER_DOWN = 3 * INTERVAL + (256 - PRIORITY["vm2"]) / 256 * INTERVAL
"""Seconds after the last advertisement in which the backup takes over: Master_Down_Interval of RFC 5798, 6.1."""
SLACK = 20.0
"""Seconds; emulated guests on a busy machine, one of which fetches and starts keepalived in between."""
PORT = 8080
CONFIGURATION = f"""\
vrrp_instance shared {{
    state BACKUP
    interface eth0
    virtual_router_id 51
    priority %d
    advert_int {INTERVAL}
    virtual_ipaddress {{
        {SHARED}/24
    }}
}}
"""


pytestmark = pytest.mark.usefixtures("cleaned")


@pytest.fixture
def archive(world: World) -> Iterator[str]:
    """Debian's keepalived with its libraries, at a URL for guests."""
    provide(world.sandbox, "keepalived")
    program = "/usr/sbin/keepalived"
    libraries = re.findall(r"(/\S+) \(0x", world.host.sh(f"ldd {program}"))
    assert any("/libc.so.6" in library for library in libraries)
    world.host.sh(
        "mkdir -p /run/sandbox/www/k; cd /run/sandbox/www/k\n"
        f"cp -L {program} {' '.join(libraries)} .; mkdir etc; cp -r /etc/keepalived etc\n"
        "tar -czf ../keepalived.tgz ."
    )
    with world.host.popen(["busybox", "httpd", "-f", "-p", str(PORT), "-h", "/run/sandbox/www"]) as server:
        try:
            yield f"http://10.127.1.1:{PORT}/keepalived.tgz"
        finally:
            server.kill()


def keepalived(guest: Guest, url: str) -> None:
    guest.run(f"mkdir -p /k /var/run; cd /k; wget -qO- {url} | tar xz; cp -r etc /", timeout=60)
    guest.run(f"cat >/etc/keepalived.conf <<END\n{CONFIGURATION % PRIORITY[guest.name]}END")
    guest.run(
        "cd /k; ./ld-linux-x86-64.so.2 --library-path /k ./keepalived --vrrp --dont-fork --log-console"
        " --use-file /etc/keepalived.conf --pid /run/k.pid --vrrp_pid /run/v.pid >/run/keepalived.log 2>&1 &"
    )


def holder(world: World) -> str:
    """Who answers the host at the loop address, '' for nobody."""
    done = world.host.run(["curl", "-sm", "2", f"http://{LOOP}/"], check=False)
    return done.stdout.removeprefix("hello from ").strip()


def moved(world: World, to: str) -> float:
    """Seconds until the host reaches it at the other guest."""
    begin = time.monotonic()
    wait(lambda: holder(world) == to, f"answer of {to}", MASTER_DOWN + SLACK)
    return time.monotonic() - begin


def test_the_address_moves(world: World, archive: str) -> None:
    world.start()
    guests: List[Guest] = world.boot("vm1", "vm2", memory_mib=256)
    one, two = guests
    for guest in guests:
        keepalived(guest, archive)
    try:
        wait(lambda: holder(world) == "vm1", "answer of vm1")
    except AssertionError:
        pytest.fail(
            "\n".join(guest.run("cat /run/keepalived.log; ip address show dev eth0") for guest in guests)
        )
    assert SHARED not in two.run("ip address show dev eth0")
    two.run(f"ping -c1 {SHARED}")

    one.run("kill $(cat /run/k.pid)")  # in good order: it says that it goes
    print(f"handed over after {moved(world, 'vm2'):.2f} s")
    one.run(f"ping -c1 {SHARED}")

    keepalived(one, archive)  # it has the higher priority, and takes it back
    print(f"taken back after {moved(world, 'vm1'):.2f} s")
    assert world.host.run(["loopnet", "plan"], check=False).stdout == "nothing to do\n"

    one.destroy()  # without a word
    print(f"taken over after {moved(world, 'vm2'):.2f} s of {MASTER_DOWN:.2f} advertised")
    assert SHARED in two.run("ip address show dev eth0")
