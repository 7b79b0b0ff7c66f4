"""Two more IP stacks: OVMF's gets GRUB by DHCP and TFTP, and GRUB's own gets files by DHCP and HTTP."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path
from typing import Dict, Iterator, NamedTuple

import pytest

from tests.sandbox.netboot import NETWORK_BOOT, NetGuest, WebServer, bootable
from tests.sandbox.world import MAPPED, NATIVE, Kind, World, wait

pytestmark = pytest.mark.timeout(900)

FIRMWARE = """\
    <loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>
    <nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'>{nvram}</nvram>
    <boot dev='network'/>
"""
RANDOM = "    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>\n"
"""Newer OVMF has no network without."""
GRUB = """\
net_bootp
configfile (http,{server})/grub.cfg
"""
CONFIG = """\
if hashsum --hash sha256 --prefix (http,{server}) --check (http,{server})/sums; then
    cat (http,{server})/right
else
    cat (http,{server})/wrong
fi
"""
MODULES = (
    "normal", "configfile", "efinet", "net", "http", "hashsum", "gcry_sha256", "cat", "test",
)  # fmt: skip
DATA = bytes(range(256)) * 1000


class UefiGuest(NetGuest):
    """A guest with OVMF and no option ROM: the network stack is the firmware's own."""

    def xml(self) -> str:
        text = super().xml().replace(NETWORK_BOOT, FIRMWARE.format(nvram=f"{self._base}.nvram"))
        return text.replace("<model type='virtio'/>\n", "<model type='virtio'/>\n  <rom enabled='no'/>\n")


class Booted(NamedTuple):
    """A world with a guest that came from it."""

    world: World
    kind: Kind
    server: WebServer


def grub(path: Path, script: str) -> None:
    """Writes GRUB with `script` in it, as an EFI program."""
    config = path.with_suffix(".cfg")
    config.write_text(script)
    subprocess.run(
        ["grub-mkimage", "-O", "x86_64-efi", "-p", "/", "-c", str(config), "-o", str(path), *MODULES],
        check=True, timeout=120,
    )  # fmt: skip


@pytest.fixture(scope="module", params=[MAPPED, NATIVE], ids=["mapped", "native"])
def booted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    kind = request.param
    files: Dict[str, object] = {
        "/grub.cfg": CONFIG.format(server=kind.gateway).encode(),
        "/sums": f"{hashlib.sha256(DATA).hexdigest()}  data\n".encode(),
        "/data": DATA,
    }
    with World() as world, WebServer(world.host, files) as server:
        tftp = world.path("/run/sandbox/tftp")
        tftp.mkdir(mode=0o755)
        made = tmp_path_factory.mktemp("grub") / "grub.efi"
        grub(made, GRUB.format(server=kind.gateway))
        (tftp / "grub.efi").write_bytes(made.read_bytes())
        world.define(bootable(world, kind, "/run/sandbox/tftp", "grub.efi"))
        world.sandbox.virsh("net-start", kind.name)
        guest = UefiGuest(world.sandbox, "vm1", [kind.name], memory_mib=512, devices=RANDOM)
        guest.define()
        guest.start()
        wait(lambda: server.who("/right") or server.who("/wrong"), "word from GRUB", timeout=600)
        yield Booted(world, kind, server)
        guest.destroy()
        world.sandbox.virsh("undefine", guest.name, "--nvram")


def test_the_firmware_got_grub_by_tftp(booted: Booted) -> None:
    sent = re.findall(r"dnsmasq-tftp\[\d+\]: sent \S+/grub.efi to (\S+)", booted.world.syslog())
    assert set(sent) == {f"{booted.kind.transit}2"}


def test_grub_got_files_by_http(booted: Booted) -> None:
    assert booted.server.who("/wrong") == []
    for file in ("grub.cfg", "sums", "data", "right"):
        assert set(booted.server.who(f"/{file}")) == {f"{booted.kind.transit}2"}


def test_each_had_the_address_of_its_own(booted: Booted) -> None:
    """Firmware, then GRUB: both asked for an address, and were given the guest's."""
    given = re.findall(r"DHCPACK\(\S+\) (\S+) ", booted.world.syslog())
    assert given == [f"{booted.kind.guest}2"] * 2
