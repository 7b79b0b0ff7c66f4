"""libvirt's own test kit, with loopnet's hooks and a network of it up, says what it says without them.

LOOPNET_TCK is a checkout of libvirt-tck; it is no part of this project, and without it these tests are skipped.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Dict, List

import pytest

from tests.sandbox import Sandbox
from tests.sandbox.image import guest_image
from tests.sandbox.tools import own_tmp
from tests.sandbox.world import template

pytestmark = pytest.mark.timeout(3000)

SCRATCH = "/run/sandbox/tck"
SCRIPTS = (
    "networks/0*.t",
    "networks/3[0-5]0-*.t",
    "networks/400-*.t",
    "hooks/*.t",
    "domain/0*.t",
    "domain/10[01]-*.t",
    "domain/180-*.t",
)
"""Networks, hooks, and of domains what starts, ends or comes back; to plug NICs it wants a Fedora, downloaded."""
CONFIGURATION = f"""\
uri: qemu:///system
scratch_dir: {SCRATCH}
kernels:
  - arch: x86_64
    ostype:
      - hvm
    kernel: {{kernel}}
    initrd: {{initramfs}}
"""
SYSTEMCTL = """\
#!/bin/sh
# Stands for systemd's, which is not here: start, stop, restart, reload or status of libvirtd.
status() { kill -0 "$(cat /run/libvirtd.pid)" 2>/dev/null; }
stop() {
    kill "$(cat /run/libvirtd.pid)"
    for _ in $(seq 200); do status || return 0; sleep 0.1; done
}
start() {
    /usr/sbin/libvirtd --daemon --pid-file /run/libvirtd.pid
    for _ in $(seq 200); do virsh list >/dev/null 2>&1 && return; sleep 0.1; done
}
case $1 in
start | stop) $1 ;;
restart) stop; start ;;
reload) kill -HUP "$(cat /run/libvirtd.pid)" ;;
status) if status; then echo 'active (running)'; else echo 'inactive (dead)'; fi ;;
esac
"""


def results(sandbox: Sandbox, kit: Path) -> Dict[str, List[str]]:
    """script -> its lines of results, or what it died of."""
    image = guest_image()
    own_tmp(sandbox)  # the kit writes there
    sandbox.host.sh(f"rm -f /tmp/daemon.log /tmp/qemu.log; mkdir {SCRATCH}")
    sandbox.virsh("net-start", "default")
    configuration = CONFIGURATION.format(kernel=image.kernel, initramfs=image.initramfs)
    sandbox.path(f"{SCRATCH}/tck.yml").write_text(configuration)
    shim = sandbox.path(f"{SCRATCH}/systemctl")
    shim.write_text(SYSTEMCTL)
    shim.chmod(0o755)
    sandbox.host.sh(f"mount --bind {SCRATCH}/systemctl /usr/bin/systemctl")
    found = {}
    for script in sorted(path for pattern in SCRIPTS for path in (kit / "scripts").glob(pattern)):
        environment = ["env", f"LIBVIRT_TCK_CONFIG={SCRATCH}/tck.yml", "LIBVIRT_TCK_AUTOCLEAN=1"]
        command = shlex.join([*environment, "timeout", "240", "perl", f"-I{kit}/lib", str(script)])
        told = sandbox.host.run(["sh", "-c", f"{command} 2>&1"], check=False, timeout=300)
        lines = re.findall(r"^(?:not )?ok .*|^1\.\.0.*|^Bail out.*", told.stdout, re.MULTILINE)
        if not lines:
            lines = told.stdout.splitlines()[-3:]
        found[f"{script.parent.name}/{script.name}"] = [*lines, f"status {told.returncode}"]
    return found


@pytest.fixture
def kit() -> Path:
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    if not os.environ.get("LOOPNET_TCK"):
        pytest.skip("LOOPNET_TCK names no checkout of libvirt-tck")
    return Path(os.environ["LOOPNET_TCK"]).resolve()


def test_no_difference(kit: Path) -> None:
    with Sandbox(hooks=False) as plain:
        expected = results(plain, kit)
    with Sandbox() as sandbox:
        sandbox.host.run(["virsh", "-q", "net-define", "/dev/stdin"], input=template("loopnet"))
        sandbox.virsh("net-start", "loopnet")
        found = results(sandbox, kit)
        assert "loopnet" in sandbox.virsh("net-list", "--name")
    Path(os.environ.get("LOOPNET_TCK_REPORT", os.devnull)).write_text(json.dumps([expected, found], indent=1))
    assert found == expected
    good = [script for script, lines in found.items() if lines[-1] == "status 0"]
    assert len(good) > len(found) / 2, sorted(found.keys() - set(good))
