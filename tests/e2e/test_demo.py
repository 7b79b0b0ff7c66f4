"""`make demo` as a user runs it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Dict, List, Optional

import pytest

from tests.sandbox import CHECKOUT

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")

SECONDS = 180


def demo(checkout: Path = CHECKOUT, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["/usr/bin/python3", "-m", "tests.demo"],
        cwd=checkout,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def told(process: subprocess.Popen[str], typed: Optional[str] = None) -> str:
    try:
        return process.communicate(typed, timeout=SECONDS)[0]
    finally:
        process.kill()


def test_demo_with_a_shell_at_the_end() -> None:
    process = demo(LOOPNET_DEMO_SHELL="1")
    text = told(process, "virsh net-list --name; virsh list --name; hostname\n")
    assert process.returncode == 0, text
    assert "\x1b" not in text, "colour is for terminals"
    story, _, shell = text.partition("A shell on the laptop")
    for line in ("$ virsh net-start loopnet", "hello from vm1", "nft list ruleset: identical"):
        assert line in story
    assert "All as claimed" in story
    for line in ("loopnet", "vm1", "laptop"):
        assert line in shell.splitlines()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_when_interrupted(number: signal.Signals) -> None:
    process = demo(LOOPNET_DEMO_SHELL="")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Domain 'vm1' started"):
            break
    inside = descendants(process.pid)
    assert any("qemu" in name for name in inside.values())
    process.send_signal(number)
    text = told(process)
    assert process.returncode == 130, text
    assert text.splitlines()[-1] == "demo: interrupted; nothing of it is left"
    end = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in inside) and time.monotonic() < end:
        time.sleep(0.02)
    assert [pid for pid in inside if Path(f"/proc/{pid}").exists()] == []


def descendants(pid: int) -> Dict[int, str]:
    """All processes below one: number -> name."""
    parents: Dict[int, List[int]] = {}
    names: Dict[int, str] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        parents.setdefault(int(rest.split()[1]), []).append(int(entry.name))
        names[int(entry.name)] = name
    found: Dict[int, str] = {}
    new = [pid]
    while new:
        new = [child for parent in new for child in parents.get(parent, [])]
        found.update((child, names[child]) for child in new)
    return found


def checkout_with(tmp_path: Path, network_hook: str) -> Path:
    """A copy of the checkout whose network hook says ``network_hook``; '' for none."""
    for name in ("hooks", "libvirt_loopnet", "xml-templates", "tests"):
        shutil.copytree(CHECKOUT / name, tmp_path / name)
    hook = tmp_path / "hooks" / "network"
    if network_hook:
        hook.write_text(network_hook)
    else:
        hook.unlink()
    return tmp_path


def test_what_is_not_as_claimed_fails_the_demo(tmp_path: Path) -> None:
    """The hook does only what dnsmasq needs to start: the network is up, and lo as before."""
    options = "/var/lib/libvirt/dnsmasq/loopnet.loopnet-dnsmasq"
    process = demo(checkout_with(tmp_path, f"#!/bin/sh\n: >>{options}\n"))
    text = told(process)
    assert process.returncode == 1, text
    assert text.splitlines()[-1] == "demo: not so: lo makes room: it keeps 127.0.0.0/16"


def test_without_its_hook_a_network_does_not_start(tmp_path: Path) -> None:
    """Rather than come up as one whose guests get nothing: dnsmasq misses what the hook lays out."""
    process = demo(checkout_with(tmp_path, ""))
    text = told(process)
    assert process.returncode == 1, text
    assert "demo: virsh net-start loopnet: exit status 1" in text
