"""The real systemd-networkd on the host, with files that leave us alone or do not."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator

import pytest

from .lab import Lab, LabGuest, eventually
from .networkd import FILES, NETIF, RUN, prepare
from .wire import PATIENCE

UPLINK = "[Match]\nName=uplink0\n[Network]\nKeepConfiguration=yes\nLinkLocalAddressing=no\n"
LO = "[Match]\nName=lo\n[Network]\nAddress=127.0.0.1/8\n"
EVERYTHING = "[Match]\nName=*\n[Network]\nDHCP=yes\n"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        prepare(made)
        yield made


@contextlib.contextmanager
def networkd(lab: Lab, **files: str) -> Iterator[subprocess.Popen[str]]:
    """Runs it until the end of the block."""
    for name, text in files.items():
        lab.path(f"{FILES}/{name}.network").write_text(text)
    process = lab.host.popen(["unshare", "--mount", "sh", "-c", RUN])
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


def state(lab: Lab, dev: str) -> str:
    """Its word for what it does with a link."""
    index = lab.host.run(["cat", f"/sys/class/net/{dev}/ifindex"]).stdout.strip()
    lines = lab.host.run(["cat", f"{NETIF}/links/{index}"], check=False).stdout.splitlines()
    return next((line.partition("=")[2] for line in lines if line.startswith("ADMIN_STATE=")), "")


def findings(lab: Lab) -> dict[str, str]:
    found = json.loads(lab.host.run(["loopnet", "doctor", "--json"], check=False).stdout)
    return {each["id"]: each["what"] for each in found}


def reaches(lab: Lab, guest: LabGuest, patience: float = PATIENCE) -> bool:
    return lab.host.run(["ping", "-c1", f"-W{patience}", guest.loop], check=False).returncode == 0


def test_it_leaves_alone_what_no_file_matches(lab: Lab) -> None:
    with networkd(lab, uplink=UPLINK):
        network = lab.network(1)
        lab.start(network)
        guest = lab.guest(network)
        eventually(lambda: state(lab, "uplink0") == "configured")
        eventually(lambda: state(lab, "virbr1") == "unmanaged")
        assert reaches(lab, guest)
        assert not {"lo-managed", "bridge-managed", "drift"} & set(findings(lab))
        lab.stop(network)
        assert "127.0.0.1/8" in lab.host.run(["ip", "address", "show", "lo"]).stdout


def test_it_brings_the_8_back_on_lo(lab: Lab) -> None:
    network = lab.network(1)
    lab.start(network)
    guest = lab.guest(network)
    with networkd(lab, lo=LO):
        eventually(lambda: "127.0.0.1/8" in lab.host.run(["ip", "address", "show", "lo"]).stdout)
        assert reaches(lab, guest)
        found = findings(lab)
        assert found["lo-managed"].startswith("systemd-networkd")
        assert "drift" in found
        assert "ip address del 127.0.0.1/8 dev lo" in lab.host.run(["loopnet", "plan"], check=False).stdout
        lab.host.run(["loopnet", "sync"])
        assert lab.host.run(["loopnet", "plan"], check=False).returncode == 0
        assert reaches(lab, guest)
    lab.stop(network)
    assert "127.0.0.1/8" in lab.host.run(["ip", "address", "show", "lo"]).stdout


def test_the_doctor_names_the_file_that_matches_everything(lab: Lab) -> None:
    network = lab.network(1)
    lab.start(network)
    guest = lab.guest(network)
    with networkd(lab, everything=EVERYTHING):
        eventually(lambda: state(lab, "virbr1") in ("configuring", "configured"))
        eventually(lambda: not reaches(lab, guest, 1))
        assert findings(lab)["bridge-managed"].endswith(f"as {FILES}/everything.network matches it")
