"""A host that is a guest: Debian with systemd and libvirt, off a disk of its own, emulated.

The checkout and what the innermost guest needs are not on that: a second disk brings them, as a tar archive.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Union

from tests.machines.guest import SystemGuest
from tests.machines.systems import system
from tests.sandbox import CHECKOUT, guest_image
from tests.sandbox.cache import command
from tests.sandbox.world import MAPPED, World

LEAF_INIT = """\
#!/bin/sh
export PATH=/bin:/sbin
ip link set lo up
ip link set eth0 up
echo hello from leaf >/www/index.html
httpd -p 80 -h /www
exec udhcpc -f -i eth0 -t 1000 -T 3 -s /sbin/dhcp-event </dev/null >/log 2>&1
"""
"""First process of a container whose root file system is that of the small test guest."""
LEAF_MAC = "52:54:00:aa:00:77"
LEAF = f"""\
<domain type='lxc'>
  <name>leaf</name>
  <memory unit='MiB'>64</memory>
  <os><type>exe</type><init>/leaf</init></os>
  <devices>
    <filesystem type='mount'><source dir='/srv/leaf'/><target dir='/'/></filesystem>
    <interface type='network'>
      <mac address='{LEAF_MAC}'/>
      <source network='loopnet'/>
    </interface>
    <console type='pty'/>
  </devices>
  <seclabel type='none'/>
</domain>
"""
LXC = "virsh -q -c lxc:///"
START_LEAF = f"""\
mkdir /srv/leaf
cd /srv/leaf
busybox cpio -idm <../initramfs 2>/dev/null
install -m 755 ../init leaf
{LXC} define ../leaf.xml
{LXC} start leaf
"""
"""The container, when what leaf_files() has is in /srv."""

Files = Mapping[str, Union[Path, str]]
"""Names in an archive; files to copy, or texts."""


def boot(world: World, directory: Path, files: Files, arguments: str = "") -> SystemGuest:
    """Boots the guest `inner` on the network loopnet, which is up; `files` are in an archive on /dev/vdb, `arguments`
    are further ones of its kernel.

    Its disks are written in `directory`. Raises BuildError, GuestError.
    """
    archive = directory / "payload"
    payload(archive, files)
    inner = SystemGuest(
        world.sandbox, "inner", [MAPPED.name], system("host"), overlay=directory / "disk", second=archive,
        arguments=arguments, memory_mib=1536, vcpus=2,
    )  # fmt: skip
    inner.start()
    inner.wait_boot()
    return inner


def leaf_files() -> Files:
    """What the container is made of, as files of payload()."""
    return {"initramfs": guest_image().initramfs, "leaf.xml": LEAF, "init": LEAF_INIT}


def checkout() -> Files:
    """What git tracks, tests apart, as files of payload()."""
    tracked = command(["git", "-C", str(CHECKOUT), "ls-files", "-z"]).split("\0")
    wanted = [name for name in filter(None, tracked) if not name.startswith("tests/")]
    return {f"checkout/{name}": CHECKOUT / name for name in wanted if (CHECKOUT / name).exists()}


def payload(path: Path, files: Files) -> None:
    """Writes the second disk, a tar archive of `files`: copies of a path's file, or the text itself."""
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            if isinstance(content, Path):
                archive.add(content, name)
                continue
            entry = tarfile.TarInfo(name)
            entry.size = len(content.encode())
            archive.addfile(entry, io.BytesIO(content.encode()))
    with path.open("ab") as file:  # a disk has whole sectors
        file.truncate(-(-path.stat().st_size // 4096) * 4096)
