"""Cockpit's page of virtual machines, in a real browser without a screen."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.sandbox.packages import provide
from tests.sandbox.world import World, wait

pytestmark = pytest.mark.timeout(900)

BUS = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <policy context="default">
    <allow own="*"/><allow send_destination="*" eavesdrop="true"/><allow receive_sender="*"/><allow user="*"/>
  </policy>
</busconfig>
"""
"""A bus of the sandbox's own, where its only user may do all."""
SERVER = """\
mkdir -p /run/dbus
dbus-daemon --config-file=/run/sandbox/bus.conf --fork
setsid libvirt-dbus --system >/run/sandbox/libvirt-dbus.log 2>&1 </dev/null &
setsid dbus-run-session -- /usr/lib/cockpit/cockpit-ws --no-tls --address 127.0.0.1 --port 9090 \\
    --local-session=cockpit-bridge >/run/sandbox/cockpit.log 2>&1 </dev/null &
for _ in $(seq 200); do curl -s -o /dev/null http://127.0.0.1:9090/ && exit 0; sleep 0.1; done
cat /run/sandbox/*.log >&2; exit 1
"""
PAGE = "http://127.0.0.1:9090/cockpit/@localhost/machines/index.html#/vm?name=vm1&connection=system"
SCREENSHOT = "/run/sandbox/page.png"


def browsed(world: World, *what: str) -> str:
    """What the browser prints of the page, given the time to fill it."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,1600", "--timeout=30000"]
    home = ["env", "HOME=/run/sandbox", "LC_ALL=C.UTF-8"]
    return world.host.run([*home, "chromium", *options, *what, PAGE], timeout=180).stdout


def test_address_of_a_guest(world: World) -> None:
    provide(world.sandbox, "cockpit-ws", "cockpit-machines", "libvirt-dbus")
    world.path("/run/sandbox/bus.conf").write_text(BUS)
    world.host.sh(SERVER)
    world.start()
    world.boot("vm1")
    wait(lambda: "127.1.0.2/" in world.sandbox.virsh("domifaddr", "vm1"), "lease")
    try:
        text = re.sub(r"<[^>]*>", " ", browsed(world, "--dump-dom"))
        assert "127.1.0.2" in text, text[-3000:] + world.path("/run/sandbox/cockpit.log").read_text()[-2000:]
        assert "10.127.1." not in text
    finally:
        keep = os.environ.get("LOOPNET_SCREENSHOT")
        if keep:
            browsed(world, f"--screenshot={SCREENSHOT}")
            shutil.copyfile(world.path(SCREENSHOT), Path(keep).with_name("cockpit.png"))
