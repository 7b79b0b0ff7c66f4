"""The real virt-manager, on a screen of its own: loopnet is offered like any network, and its addresses are shown."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Iterator

import pytest

from tests.sandbox.tools import own_tmp
from tests.sandbox.world import World, wait

CLICKS = Path(__file__).with_name("clicks.py")
SCREENSHOT = "/run/sandbox/screen.png"

SESSION = """\
Xvfb :1 -screen 0 1024x768x24 -nolisten tcp >/run/sandbox/xvfb.log 2>&1 &
for _ in $(seq 300); do [ -S /tmp/.X11-unix/X1 ] && break; sleep 0.1; done
openbox >/run/sandbox/openbox.log 2>&1 &
virt-manager --connect qemu:///system --no-fork $1 >/run/sandbox/virt-manager.log 2>&1 &
shift
/usr/bin/python3 -I "$@" || { cat /run/sandbox/*.log >&2; exit 1; }
"""
UNTIL_IT_RUNS = """\
for _ in $(seq 600); do virsh list --name --persistent --state-running | grep -q vm1 && exit 0; sleep 0.1; done
cat /run/sandbox/*.log >&2; exit 1
"""

ENVIRONMENT = {
    "HOME": "/run/sandbox/home",
    "XDG_RUNTIME_DIR": "/run/sandbox/home",
    "DISPLAY": ":1",
    "GSETTINGS_BACKEND": "memory",
    "GTK_MODULES": "gail:atk-bridge",
}


@pytest.fixture
def world() -> Iterator[World]:
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    with World() as made:
        own_tmp(made.sandbox)
        # X's sockets and locks are in /tmp, whoever's screen it is.
        made.host.sh("rm -rf /tmp/.X*; mkdir -p -m 700 /run/sandbox/home")
        made.start()
        yield made


def clicked(world: World, options: str, *what: str, then: str = "") -> str:
    """What clicks.py prints, in a session with virt-manager; ``then`` is done before the session ends."""
    environment = [f"{key}={value}" for key, value in ENVIRONMENT.items()]
    clicks = [options, str(CLICKS), SCREENSHOT, *what]
    session = ["dbus-run-session", "--", "sh", "-c", SESSION + then, "sh", *clicks]
    try:
        return world.host.run(["env", *environment, *session], timeout=240).stdout
    finally:
        picture, keep = world.path(SCREENSHOT), os.environ.get("LOOPNET_SCREENSHOT")
        if keep and picture.exists():
            path = Path(keep)
            shutil.copyfile(picture, path.with_name(f"{path.stem}-{what[0]}{path.suffix}"))


def test_wizard(world: World) -> None:
    clicked(world, "--show-domain-creator", "create", "vm1", then=UNTIL_IT_RUNS)
    assert wait(world.published, "published name") == {"vm1.loopnet": "127.1.0.2"}
    assert "loopnet" in world.sandbox.virsh("domiflist", "vm1")


def test_address_of_a_nic(world: World) -> None:
    """Its page of the guest's details; virt-manager finds the address in libvirt's leases."""
    (guest,) = world.boot("vm1")
    wait(lambda: "127.1.0.2/" in world.sandbox.virsh("domifaddr", "vm1"), "lease")
    assert (
        clicked(world, "--show-domain-editor vm1", "address", guest.macs[0]).splitlines()[-1] == "127.1.0.2"
    )
