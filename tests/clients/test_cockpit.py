"""Cockpit's page of virtual machines, in a real browser without a screen."""

from __future__ import annotations

import base64
import json
import os
import urllib.request
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.sandbox.packages import provide
from tests.sandbox.world import World, wait

pytestmark = pytest.mark.timeout(900)

BUS = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/sandbox/bus</listen>
  <policy context="default">
    <allow own="*"/><allow send_destination="*" eavesdrop="true"/><allow receive_sender="*"/><allow user="*"/>
  </policy>
</busconfig>
"""
"""A bus of the sandbox's own, where its only user may do all."""
SERVERS = """\
export DBUS_SYSTEM_BUS_ADDRESS=unix:path=/run/sandbox/bus HOME=/run/sandbox LC_ALL=C.UTF-8
dbus-daemon --config-file=/run/sandbox/bus.conf --fork
in_background() { setsid "$@" >>/run/sandbox/servers.log 2>&1 </dev/null & }
in_background libvirt-dbus --system
in_background dbus-run-session -- /usr/lib/cockpit/cockpit-ws --no-tls --address 127.0.0.1 --port 9090 \
    --local-session=cockpit-bridge
in_background chromedriver --port=9515
for port in 9090 9515; do
    for _ in $(seq 200); do curl -s -o /dev/null http://127.0.0.1:$port/ && continue 2; sleep 0.1; done
    cat /run/sandbox/servers.log >&2; exit 1
done
"""
PAGE = "http://127.0.0.1:9090/cockpit/@localhost/machines/index.html#/vm?name=vm1&connection=system"
BROWSER = {
    "capabilities": {
        "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {
                "args": ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,1400"]
            },
        }
    }
}


SCRIPT = """\
for (const button of document.querySelectorAll("button"))
    if (button.innerText == "Ignore") button.click();
return document.body.innerText;
"""


class Browser:
    """A browser in the sandbox, by way of its WebDriver."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._base = "http://127.0.0.1:9515/session"
        self._base += "/" + self.ask("", BROWSER)["sessionId"]

    def ask(self, what: str, body: Any = None) -> Any:
        """What the driver answers: POST with a body, else GET."""
        data = None if body is None else json.dumps(body).encode()

        def exchange() -> bytes:
            with urllib.request.urlopen(
                urllib.request.Request(self._base + what, data), timeout=120
            ) as answer:
                found: bytes = answer.read()
                return found

        return json.loads(self._world.host.call(exchange))["value"]

    def text(self) -> str:
        """All that the page shows, once what it says of this machine's missing KVM is ignored."""
        found: str = self.ask("/execute/sync", {"script": SCRIPT, "args": []})
        return found


@pytest.fixture
def browser(world: World) -> Iterator[Browser]:
    provide(world.sandbox, "cockpit-ws", "cockpit-machines", "libvirt-dbus")
    world.path("/run/sandbox/bus.conf").write_text(BUS)
    world.host.sh(SERVERS)
    made = Browser(world)
    yield made
    keep = os.environ.get("LOOPNET_SCREENSHOT")
    if keep:
        Path(keep).with_name("cockpit.png").write_bytes(base64.b64decode(made.ask("/screenshot")))


def test_address_of_a_guest(world: World, browser: Browser) -> None:
    world.start()
    world.boot("vm1")
    wait(lambda: "127.1.0.2/" in world.sandbox.virsh("domifaddr", "vm1"), "lease")
    browser.ask("/url", {"url": PAGE})
    wait(lambda: "127.1.0.2" in browser.text(), "address on the page", 90)
    assert "10.127.1." not in browser.text()
