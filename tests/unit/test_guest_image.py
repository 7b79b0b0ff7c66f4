"""Kernels of Debian's relatives: where their modules are, and how they are compressed."""

from __future__ import annotations

import gzip
import lzma
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Callable, Dict

import pytest

from tests.sandbox import image
from tests.sandbox.cache import BuildError
from tests.sandbox.image import (
    CLOUD,
    kernel_file,
    modules_in_load_order,
    read_module,
    unpack_vmlinuz,
    without_signature,
)


def packed(data: bytes, *program: str) -> bytes:
    return subprocess.run(program, input=data, capture_output=True, check=True, timeout=10).stdout


def zstd(data: bytes) -> bytes:
    return packed(data, "zstd", "-q")


KINDS: Dict[str, Callable[[bytes], bytes]] = {
    ".ko": lambda data: data,
    ".ko.xz": lzma.compress,
    ".ko.gz": gzip.compress,
    ".ko.zst": zstd,
}


def module(depends: str) -> bytes:
    return b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0name=x\0"


def tree(root: Path, place: str, suffix: str, modules: Dict[str, str], builtin: str = "") -> Path:
    directory = root / place / "6.1.0-1-amd64"
    for name, depends in modules.items():
        path = directory / "kernel/drivers" / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(KINDS[suffix](module(depends)))
    (directory / "modules.builtin").write_text(builtin)
    return root


@pytest.mark.parametrize("place", ["lib/modules", "usr/lib/modules"])
@pytest.mark.parametrize("suffix", KINDS)
def test_modules_are_found_and_read(tmp_path: Path, place: str, suffix: str) -> None:
    if suffix == ".ko.zst" and not shutil.which("zstd"):
        pytest.skip("needs zstd")
    unpacked = tree(tmp_path, place, suffix, {"virtio_net": "net-failover", "net_failover": ""})
    found = modules_in_load_order(unpacked, ("virtio_net",))
    assert [path.name for path in found] == [f"net_failover{suffix}", f"virtio_net{suffix}"]
    assert read_module(found[0]) == module("")


def test_what_is_built_in_needs_no_module(tmp_path: Path) -> None:
    unpacked = tree(
        tmp_path, "usr/lib/modules", ".ko.xz", {"virtio_net": "virtio-pci"}, "kernel/drivers/virtio_pci.ko\n"
    )
    found = modules_in_load_order(unpacked, ("virtio_pci", "virtio_net"))
    assert [path.name for path in found] == ["virtio_net.ko.xz"]


def test_a_signature_is_left_out() -> None:
    signature = bytes(681)
    about = struct.pack(">5B3xI", 0, 0, 2, 0, 0, len(signature))
    assert without_signature(module("a") + signature + about + b"~Module signature appended~\n") == module(
        "a"
    )
    assert without_signature(module("a")) == module("a")


def test_a_module_that_is_nowhere(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="has no module e1000"):
        modules_in_load_order(tree(tmp_path, "lib/modules", ".ko", {"a": ""}), ("e1000",))


@pytest.mark.parametrize("place", ["boot/vmlinuz-6.1.0-1-amd64", "usr/lib/modules/7.2.13-amd64/vmlinuz"])
def test_the_kernel_itself(tmp_path: Path, place: str) -> None:
    with pytest.raises(BuildError, match="have none"):
        kernel_file(tmp_path)
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text("")
    assert kernel_file(tmp_path) == tmp_path / place


PVH = b"\x7fELF" + bytes(100) + struct.pack("<III4sQ", 4, 8, 18, b"Xen", 0x1000) + bytes(100)


def vmlinuz(payload: bytes) -> bytes:
    """As x86's boot protocol has it: three sectors of set-up, then the kernel's own unpacker, then what it unpacks."""
    setup = bytearray(3 * 512)
    setup[0x1F1] = 2
    setup[0x202:0x206] = b"HdrS"
    setup[0x248:0x250] = struct.pack("<II", 16, len(payload))
    return bytes(setup) + b"unpacker".ljust(16) + payload + b"rest"


@pytest.mark.parametrize("program", ["xz", "gzip", "zstd", "lz4"])
def test_what_qemu_starts_is_not_packed(program: str) -> None:
    if not shutil.which(program):
        pytest.skip(f"needs {program}")
    old_format = ["-l"] if program == "lz4" else []
    size = b"" if program == "gzip" else struct.pack("<I", len(PVH))
    assert unpack_vmlinuz(vmlinuz(packed(PVH, program, "-qc", *old_format) + size)) == PVH
    other = vmlinuz(packed(b"\x7fELF of Xen's own kind", program, "-qc", *old_format) + size)
    assert unpack_vmlinuz(other) == other


@pytest.mark.parametrize("payload", [b"", b"of no kind", b"\xfd7zXZ\0 it is not", b"\x1f\x8b it is not"])
def test_a_kernel_that_can_not_be_unpacked_stays_packed(payload: bytes) -> None:
    assert unpack_vmlinuz(vmlinuz(payload)) == vmlinuz(payload)
    assert unpack_vmlinuz(payload) == payload


DEBIAN = {
    "linux-image-cloud-amd64": "linux-image-cloud-amd64\n  Depends: linux-image-6.12.9-cloud-amd64\n",
    "linux-image-6.12.9-cloud-amd64": "linux-image-6.12.9-cloud-amd64\n  Depends: kmod\n",
}
UBUNTU = {
    "linux-image-virtual": "linux-image-virtual\n  Depends: linux-image-6.8.0-31-generic\n",
    "linux-image-6.8.0-31-generic": "x\n  Depends: kmod\n  Depends: linux-modules-6.8.0-31-generic\n",
}


SPLIT = {
    "linux-image-cloud-amd64": "linux-image-cloud-amd64\n  Depends: linux-image-7.2.13+deb14-cloud-amd64\n",
    "linux-image-7.2.13+deb14-cloud-amd64": "x\n  PreDepends: linux-base\n |Depends: dracut\n"
    "  Depends: linux-base-7.2.13+deb14-cloud-amd64\n  Depends: linux-binary-7.2.13+deb14-cloud-amd64\n"
    "  Depends: linux-modules-7.2.13+deb14-cloud-amd64\n",
}


@pytest.mark.parametrize(
    ("known", "packages"),
    [
        (
            SPLIT,
            [f"linux-{part}-7.2.13+deb14-cloud-amd64" for part in ("image", "base", "binary", "modules")],
        ),
        (DEBIAN, ["linux-image-6.12.9-cloud-amd64"]),
        (UBUNTU, ["linux-image-6.8.0-31-generic", "linux-modules-6.8.0-31-generic"]),
    ],
)
def test_packages_of_the_kernel(
    known: Dict[str, str], packages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def apt(*argv: str) -> str:
        if argv[-1] not in known:
            raise BuildError(f"{argv[-1]}: exit status 100\nE: No packages found")
        return known[argv[-1]]

    monkeypatch.setattr(image, "apt", apt)
    assert image._kernel_packages(CLOUD) == packages
    known = {}
    with pytest.raises(BuildError, match="apt-get update"):
        image._kernel_packages(CLOUD)
