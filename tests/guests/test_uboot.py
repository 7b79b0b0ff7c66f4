"""U-Boot, one more IP stack: its DHCP client gets a script by TFTP, which pings and gets more."""

from __future__ import annotations

import re
import struct
import time
import zlib
from typing import Dict, Iterator, NamedTuple

import pytest

from tests.sandbox.netboot import NETWORK_BOOT, NetGuest, bootable
from tests.sandbox.world import MAPPED, NATIVE, Kind, World, wait

pytestmark = pytest.mark.timeout(900)

FIRMWARE = "    <loader readonly='yes' type='rom'>/usr/lib/u-boot/qemu-x86/u-boot.rom</loader>\n"
SCRIPT = """\
if ping ${gatewayip}; then
    tftpboot 0x2000000 data
    tftpboot 0x3000000 data
    if cmp.b 0x2000000 0x3000000 ${filesize}; then
        tftpboot 0x4000000 right
    fi
fi
tftpboot 0x4000000 done
"""
DATA = bytes(range(256)) * 1000
TFTP = "/run/sandbox/tftp"


class UbootGuest(NetGuest):
    """A guest whose firmware is U-Boot; of virtio it knows nothing here, so it has an e1000."""

    def xml(self) -> str:
        text = super().xml().replace(NETWORK_BOOT, FIRMWARE)
        return text.replace("<model type='virtio'/>\n", "<model type='e1000'/>\n  <rom enabled='no'/>\n")


def script_image(script: str) -> bytes:
    """A script as U-Boot takes it: the legacy image format (include/image.h), type 6, without load address."""
    body = script.encode()
    data = struct.pack(">II", len(body), 0) + body

    def header(checksum: int) -> bytes:
        return struct.pack(
            ">7I4B32s", 0x27051956, checksum, int(time.time()), len(data), 0, 0, zlib.crc32(data),
            5, 3, 6, 0, b"loopnet",
        )  # fmt: skip

    return header(zlib.crc32(header(0))) + data


class Booted(NamedTuple):
    """A world with a guest that came from it; `sent` is what TFTP sent to whom."""

    kind: Kind
    sent: Dict[str, str]
    given: list[str]


@pytest.fixture(scope="module", params=[MAPPED, NATIVE], ids=["mapped", "native"])
def booted(request: pytest.FixtureRequest) -> Iterator[Booted]:
    kind = request.param
    with World() as world:
        world.path(TFTP).mkdir(mode=0o755)
        files = {"boot.scr.uimg": script_image(SCRIPT), "data": DATA, "right": b"right", "done": b"done"}
        for name, content in files.items():
            world.path(f"{TFTP}/{name}").write_bytes(content)
        world.define(bootable(world, kind, TFTP, "boot.scr.uimg"))
        world.sandbox.virsh("net-start", kind.name)
        guest = UbootGuest(world.sandbox, "vm1", [kind.name], memory_mib=512)
        guest.define()
        guest.start()
        wait(lambda: f"sent {TFTP}/done" in world.syslog(), "word from U-Boot", timeout=600)
        sent = dict(re.findall(rf"dnsmasq-tftp\[\d+\]: sent {TFTP}/(\S+) to (\S+)", world.syslog()))
        yield Booted(kind, sent, re.findall(r"DHCPACK\(\S+\) (\S+) ", world.syslog()))


def test_it_has_its_lease(booted: Booted) -> None:
    assert set(booted.given) == {f"{booted.kind.guest}2"}


def test_it_got_its_files(booted: Booted) -> None:
    """`right` was asked for when the gateway had answered ping, and both copies of the data were the same."""
    everything = ("boot.scr.uimg", "data", "right", "done")
    assert booted.sent == dict.fromkeys(everything, f"{booted.kind.transit}2")
