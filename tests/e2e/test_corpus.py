"""Every network of libvirt's own tests that can be rewritten is defined and started by libvirtd."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Dict, Iterator, List

import pytest

from libvirt_loopnet.errors import InputError
from libvirt_loopnet.model import Network
from libvirt_loopnet.networks.rewrite import rewrite_network
from tests.golden.corpus import corpus, network_files
from tests.sandbox import Sandbox


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    with Sandbox() as made:
        for tftp_root in ("/run/sandbox/tftp", "/var/lib/tftproot"):
            made.host.sh(f"mkdir -p {tftp_root}")
        yield made


def rewritten() -> Dict[bytes, List[Path]]:
    """Definition of libvirt's -> files that hold it; those that differ in UUID alone count once."""
    found: Dict[bytes, List[Path]] = {}
    for path in network_files(corpus()):
        try:
            rewrite_network(path.read_bytes())
        except InputError:
            continue
        plain = re.sub(rb"<uuid>.*?</uuid>\s*", b"", path.read_bytes())
        found.setdefault(plain, []).append(path)
    return found


def complaint(sandbox: Sandbox, xml: bytes, network: Network, *, ours: bool) -> str:
    """What libvirt says against a definition, or against its start; '' if it runs."""
    name = network.name
    define = ["virsh", "-q", "net-define", "--validate", "/dev/stdin"]
    done = sandbox.host.run(define, input=xml.decode(), check=False)
    if done.returncode:
        return done.stderr
    try:
        wrong = sandbox.host.run(["virsh", "-q", "net-start", name], check=False).stderr
        if ours and not wrong:
            check_running(sandbox, network)
        return wrong
    finally:
        sandbox.virsh("net-destroy", name, check=False)
        sandbox.virsh("net-undefine", name, check=False)


def check_running(sandbox: Sandbox, network: Network) -> None:
    """The host has its address, dnsmasq serves the guest prefix."""
    bridge = sandbox.virsh("net-info", network.name).split()[-1]
    addresses = sandbox.host.sh(f"ip -4 -o address show dev {bridge}")
    assert f" {network.loop_address(network.host)}/" in addresses
    assert "dnsmasq" in sandbox.host.sh("ss -Hulnp sport = :67")


def test_every_rewritten_network_starts(sandbox: Sandbox) -> None:
    sandbox.virsh("net-undefine", "default")
    failed, started = [], 0
    for xml, paths in rewritten().items():
        result = rewrite_network(xml)
        wrong = complaint(sandbox, result.xml, result.network, ours=True)
        if not wrong:
            started += 1
        elif not complaint(sandbox, xml, result.network, ours=False):
            failed.append(f"{paths[0]}: {wrong}")
        else:  # libvirt does not take the original either
            print(f"{paths[0].name}: {wrong.strip().splitlines()[-1]}")
    assert not failed, "\n".join(failed)
    assert started > 20
    print(f"{started} started")
