"""The real virt-manager, on a screen of its own: loopnet is offered like any network, and chosen."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.sandbox.world import World, wait

WIZARD = Path(__file__).with_name("wizard.py")
SCREENSHOT = "/run/sandbox/wizard.png"

SESSION = """\
Xvfb :1 -screen 0 1024x768x24 -nolisten tcp >/run/sandbox/xvfb.log 2>&1 &
for _ in $(seq 300); do [ -S /tmp/.X11-unix/X1 ] && break; sleep 0.1; done
openbox >/run/sandbox/openbox.log 2>&1 &
virt-manager --connect qemu:///system --no-fork --show-domain-creator >/run/sandbox/virt-manager.log 2>&1 &
/usr/bin/python3 -I "$1" vm1 "$2" || { cat /run/sandbox/*.log >&2; exit 1; }
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


def test_wizard() -> None:
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    with World() as world:
        world.start()
        # X's sockets and locks are in /tmp, whoever's screen it is.
        world.host.sh("mount -t tmpfs -o mode=1777 tmpfs /tmp; mkdir -p -m 700 /run/sandbox/home")
        environment = [f"{key}={value}" for key, value in ENVIRONMENT.items()]
        session = ["dbus-run-session", "--", "sh", "-c", SESSION, "sh", str(WIZARD), SCREENSHOT]
        try:
            world.host.run(["env", *environment, *session], timeout=240)
        finally:
            picture, keep = world.path(SCREENSHOT), os.environ.get("LOOPNET_SCREENSHOT")
            if keep and picture.exists():
                shutil.copyfile(picture, keep)
        assert wait(world.published, "published name") == {"vm1.loopnet": "127.1.0.2"}
        assert "loopnet" in world.sandbox.virsh("domiflist", "vm1")
