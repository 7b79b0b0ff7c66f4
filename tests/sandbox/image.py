"""The test guest's kernel and initramfs, made from Debian packages and kept in a cache.

Nothing is installed: packages are downloaded with `apt-get download` and unpacked into a temporary
directory. What ends up in the initramfs is busybox, a bare perl (for UDP), the virtio network
modules and the files in `rootfs/`.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import re
import stat
import struct
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import List, NamedTuple, Sequence, Tuple

from .apt import apt
from .cache import BuildError, built_once, cache_directory, check_room, command, command_bytes, reason
from .cpio import CpioWriter

ROOTFS = Path(__file__).with_name("rootfs")
PACKAGES = ("busybox-static", "perl-base", "libc6", "libcrypt1")
PROGRAMS = ("usr/bin/perl",)
LIBRARIES = (
    "libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "libcrypt.so.1", "libresolv.so.2",
    "libnss_files.so.2", "libnss_dns.so.2", "ld-linux-x86-64.so.2",
)  # fmt: skip
"""Perl's, and what a busybox of before glibc 2.34 needs to look up names."""
NEEDED_MIB = 500
"""What must be free to make an image: a generic kernel, packed and unpacked."""


class Kernel(NamedTuple):
    """Packages that depend on the latest kernel of their kind, the first that apt knows counts; modules to load."""

    packages: Tuple[str, ...]
    modules: Tuple[str, ...]


CLOUD = Kernel(("linux-image-cloud-amd64", "linux-image-virtual"), ("virtio_pci", "virtio_net"))
"""Small, and boots soon. Debian's, Ubuntu's."""
GENERIC = Kernel(
    ("linux-image-amd64", "linux-image-generic"),
    ("virtio_pci", "virtio_net", "e1000", "e1000e", "8139cp", "vmxnet3"),
)
"""Knows the NICs that QEMU has besides virtio."""
COMPRESSED = {".ko": "none", ".xz": "xz", ".gz": "gzip", ".zst": "zstd"}
"""How the last suffix of a module's file says it is compressed: Debian 13 has .ko.xz, Ubuntu .ko.zst."""
SIGNED = b"~Module signature appended~\n"
MAGIC = {b"\xfd7zXZ\0": "xz", b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\x02\x21\x4c\x18": "lz4"}
"""How what is in a vmlinuz begins."""


@dataclass(frozen=True)
class GuestImage:
    """What a guest boots: paths of the kernel and of the initramfs."""

    kernel: Path
    """For QEMU alone: not packed, as to unpack it takes an emulated processor a third of a second."""
    vmlinuz: Path
    """As it is in the package, for firmware and boot loaders."""
    initramfs: Path


def guest_image(kernel: Kernel = CLOUD) -> GuestImage:
    """The guest image; made when the cache has none by this recipe (some 10 seconds).

    Raises BuildError, in one line, when packages cannot be had or kept.
    """
    cache = cache_directory()
    try:
        made = built_once("guest", _recipe(kernel), lambda directory: _build(kernel, directory))
    except (BuildError, OSError) as error:
        check_room(cache, NEEDED_MIB)
        raise BuildError(f"no guest image in {cache}: {reason(str(error))}") from error
    return GuestImage(made / "kernel", made / "vmlinuz", made / "initramfs")


def unpack_kernel(target: Path, kernel: Kernel = CLOUD) -> None:
    """Unpacks the packages that the guest image's kernel and its modules are from."""
    for package in _download(kernel):
        if package.name.startswith("linux-"):
            command(["dpkg-deb", "--extract", str(package), str(target)])


def _recipe(kernel: Kernel) -> str:
    """Changes whenever anything does that decides what an image contains."""
    digest = hashlib.sha256(repr(kernel).encode())
    code = (Path(__file__), Path(__file__).with_name("cpio.py"))
    sources = [*code, *(path for path in sorted(ROOTFS.rglob("*")) if path.is_file())]
    for path in sources:
        digest.update(f"{path.name} {stat.S_IMODE(path.stat().st_mode)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _build(kernel: Kernel, directory: Path) -> Path:
    unpacked, result = directory / "unpacked", directory / "result"
    result.mkdir()
    for package in _download(kernel):
        command(["dpkg-deb", "--extract", str(package), str(unpacked)])
    vmlinuz = kernel_file(unpacked).read_bytes()
    (result / "vmlinuz").write_bytes(vmlinuz)
    (result / "kernel").write_bytes(unpack_vmlinuz(vmlinuz))
    with (result / "initramfs").open("wb") as file, CpioWriter(file) as archive:
        _write_initramfs(archive, unpacked, kernel)
    return result


def _download(kernel: Kernel) -> List[Path]:
    """The packages as files; they stay in the cache with a list of them, so a new recipe needs no network."""
    directory = cache_directory() / "packages"
    directory.mkdir(exist_ok=True)
    listed = directory / f"{kernel.packages[0]}.list"
    if not (listed.is_file() and all((directory / name).is_file() for name in listed.read_text().split())):
        try:
            _download_now(kernel, directory, listed)
        except BuildError:
            # Old package lists name files that the mirror no longer has.
            apt("apt-get", "update", "-q")
            _download_now(kernel, directory, listed)
    return [directory / name for name in listed.read_text().split()]


def _download_now(kernel: Kernel, directory: Path, listed: Path) -> None:
    with tempfile.TemporaryDirectory(dir=directory) as name:
        # _apt, the user apt would switch to, cannot write into root's cache directory.
        sandbox = ["-o", "APT::Sandbox::User=root"]
        apt("apt-get", "download", "-q", *sandbox, *_kernel_packages(kernel), *PACKAGES, directory=name)
        files = sorted(Path(name).glob("*.deb"))
        names = Path(name) / "list"
        names.write_text("\n".join(path.name for path in files))
        for path in files:
            path.rename(directory / path.name)
        names.rename(listed)


def _kernel_packages(kernel: Kernel) -> List[str]:
    """The kernel's own package, and those of its parts where they are apart (Ubuntu, Debian after 13)."""
    for package in kernel.packages:
        found = re.search(r"Depends: (linux-image-[0-9]\S+)", _depends(package))
        if found:
            apart = re.findall(r"Depends: (linux-(?:base|binary|modules)-[0-9]\S+)", _depends(found.group(1)))
            return [found.group(1), *apart]
    raise BuildError(
        f"apt knows none of {', '.join(kernel.packages)}; run apt-get update, on Debian or one of its relatives"
    )


def _depends(package: str) -> str:
    """What apt says that ``package`` depends on; nothing if it does not know it."""
    try:
        return apt("apt-cache", "depends", "--important", package)
    except BuildError as error:
        if "No packages found" in str(error):
            return ""
        raise


def _write_initramfs(archive: CpioWriter, unpacked: Path, kernel: Kernel) -> None:
    for name in ("dev", "etc", "proc", "root", "run", "sys", "tmp"):
        archive.directory(name)
    # The kernel opens it for init before init could mount anything on /dev.
    archive.character_device("dev/console", 5, 1)

    busybox = next(unpacked.glob("*bin/busybox"), unpacked / "usr/bin/busybox")
    archive.file("bin/busybox", busybox.read_bytes(), 0o755)
    applets = command([str(busybox), "--list"]).split()
    for applet in applets:
        if applet != "busybox":
            archive.symlink(f"bin/{applet}", "busybox")

    for name in PROGRAMS:
        archive.file(f"bin/{Path(name).name}", (unpacked / name).read_bytes(), 0o755)
    for library in LIBRARIES:
        path = next(path for path in unpacked.rglob(library) if path.is_file())
        folder = "lib64" if library.startswith("ld-") else "lib"
        archive.file(f"{folder}/{library}", path.read_bytes(), 0o755)

    write_modules(archive, modules_in_load_order(unpacked, kernel.modules))

    for path in sorted(ROOTFS.rglob("*")):
        if path.is_file() and not (path.parent.name == "bin" and path.name in applets):
            mode = 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644
            archive.file(str(path.relative_to(ROOTFS)), path.read_bytes(), mode)


def write_modules(archive: CpioWriter, modules: Sequence[Path]) -> None:
    """Put modules below lib/modules, uncompressed, and the order to load them in beside them."""
    for module in modules:
        content = without_signature(read_module(module))
        archive.file(f"lib/modules/{_module_name(module)}.ko", content, 0o644)
    order = "".join(f"{_module_name(module)}.ko\n" for module in modules)
    archive.file("lib/modules/order", order.encode(), 0o644)


def kernel_file(unpacked: Path) -> Path:
    """The kernel itself: in /boot, or beside its modules (Debian after 13)."""
    for pattern in ("boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz"):
        found = list(unpacked.glob(pattern))
        if len(found) == 1:
            return found[0]
    raise BuildError("the kernel's packages have none, or several")


def unpack_vmlinuz(vmlinuz: bytes) -> bytes:
    """The kernel in it, an ELF file that QEMU starts (PVH); ``vmlinuz`` itself if it has none, or no way to unpack it.

    Where that is: Documentation/arch/x86/boot.rst of Linux.
    """
    if vmlinuz[0x202:0x206] != b"HdrS":
        return vmlinuz
    sectors, (offset, length) = vmlinuz[0x1F1], struct.unpack_from("<II", vmlinuz, 0x248)
    begin = (sectors + 1) * 512 + offset
    payload = vmlinuz[begin : begin + length]
    kind = next((kind for magic, kind in MAGIC.items() if payload.startswith(magic)), "none")
    try:
        # After all but gzip's follows the size, in four bytes.
        kernel = decompressed(kind, payload if kind == "gzip" else payload[:-4])
    except (BuildError, OSError, EOFError, lzma.LZMAError, zlib.error):
        return vmlinuz
    starts = (struct.pack("<III", 4, size, 18) + b"Xen\0" for size in (4, 8))  # PHYS32_ENTRY of xen/elfnote.h
    return kernel if kernel.startswith(b"\x7fELF") and any(start in kernel for start in starts) else vmlinuz


def module_directory(unpacked: Path) -> Path:
    """Where the kernel's modules are: lib/modules/VERSION, or below usr where /usr is merged."""
    for place in ("lib/modules", "usr/lib/modules"):
        found = sorted((unpacked / place).glob("*/kernel"))
        if found:
            return found[0].parent
    raise BuildError("the kernel's package has no modules")


def modules_in_load_order(unpacked: Path, names: Sequence[str]) -> List[Path]:
    """Module files, each after those it depends on; what is built in needs none.

    The dependencies are in the modules themselves; modules.dep is only made at installation.
    """
    directory = module_directory(unpacked)
    paths = [path for path in directory.rglob("*.ko*") if path.suffix in COMPRESSED]
    files = {_module_name(path).replace("-", "_"): path for path in paths}
    listed = directory / "modules.builtin"
    built_in = listed.read_text().split() if listed.is_file() else []
    present = {_module_name(Path(line)).replace("-", "_") for line in built_in}
    order: List[Path] = []

    def add(name: str) -> None:
        path = files.get(name.replace("-", "_"))
        if path is None:
            if name.replace("-", "_") in present:
                return
            raise BuildError(f"the kernel has no module {name}")
        match = re.search(rb"\0depends=([^\0]*)\0", read_module(path))
        for dependency in match.group(1).decode().split(",") if match else []:
            if dependency:
                add(dependency)
        if path not in order:
            order.append(path)

    for name in names:
        add(name)
    return order


def _module_name(path: Path) -> str:
    return path.name.partition(".ko")[0]


def read_module(path: Path) -> bytes:
    """The module itself: busybox' insmod hands it to the kernel as it is. Raises BuildError."""
    return decompressed(COMPRESSED[path.suffix], path.read_bytes())


def without_signature(module: bytes) -> bytes:
    """To check signatures takes an emulated processor a good part of the guest's start, and nobody asks for them.

    What stands behind a module: struct module_signature of Linux's module_signature.h.
    """
    if not module.endswith(SIGNED):
        return module
    end = len(module) - len(SIGNED)
    (length,) = struct.unpack_from(">I", module, end - 4)
    return module[: end - 12 - length]


def decompressed(kind: str, data: bytes) -> bytes:
    """What is in ``data``, as packed by a program of that name. Raises BuildError."""
    if kind == "xz":
        return lzma.decompress(data)
    if kind == "gzip":
        return gzip.decompress(data)
    if kind in ("zstd", "lz4"):
        return command_bytes([kind, "-dcq"], data=data)
    return data
