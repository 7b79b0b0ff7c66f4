"""Guests made by the tools people use: virt-install and what comes with it."""

from __future__ import annotations

import re
from typing import List, Sequence

from .domain import KERNEL_ARGUMENTS
from .guest import Guest
from .image import guest_image
from .sandbox import Sandbox

SECONDS = 120.0
"""What a tool may take on a busy machine."""


def tool(sandbox: Sandbox, *argv: str, check: bool = True) -> str:
    """Runs one of the tools, whose logs and caches go where nobody looks; what it prints."""
    done = sandbox.host.run(["env", "HOME=/run/sandbox", *argv], check=check, timeout=SECONDS)
    return done.stdout + done.stderr


def own_tmp(sandbox: Sandbox) -> None:
    """/tmp is the sandbox's from now on: what is there can be read, a checkout for one; what is written, goes."""
    sandbox.host.sh(OWN_TMP)


OWN_TMP = """\
mkdir -p /run/sandbox/tmp /run/sandbox/tmpwork
mount -t overlay -o lowerdir=/tmp,upperdir=/run/sandbox/tmp,workdir=/run/sandbox/tmpwork overlay /tmp
chmod 1777 /tmp
"""


def virt_install(sandbox: Sandbox, name: str, *arguments: str) -> None:
    """Makes a guest with the real virt-install, on network loopnet, and starts it.

    Emulated, with neither screen nor USB, to be quick; `arguments` are the rest of the command line.
    """
    tool(
        sandbox, "virt-install", "--name", name, "--virt-type", "qemu", "--network", "network=loopnet",
        "--osinfo", "linux2020", "--graphics", "none", "--noautoconsole",
        "--controller", "usb,model=none", *arguments,
    )  # fmt: skip


def imported(sandbox: Sandbox, name: str, *arguments: str, disk: str = "none") -> Guest:
    """A guest made by virt-install --import from the test guest's kernel, running."""
    image, base = guest_image(), f"/run/sandbox/guests/{name}"
    cmdline = f"{KERNEL_ARGUMENTS} guest.hostname={name}"
    sandbox.path(f"{base}.console").unlink(missing_ok=True)  # of an earlier guest of that name
    virt_install(
        sandbox, name, "--import", "--memory", "128", "--vcpus", "1", "--cpu", "qemu64,+rdrand", "--disk", disk,
        "--boot", f"kernel={image.kernel},initrd={image.initramfs},kernel_args={cmdline}",
        "--serial", f"pty,log.file={base}.console,log.append=on",
        "--serial", f"unix,path={base}.channel,mode=bind", *arguments,
    )  # fmt: skip
    return known(sandbox, name)


def known(sandbox: Sandbox, name: str, networks: Sequence[str] = ("loopnet",)) -> Guest:
    """The Guest that stands for a domain made by other hands."""
    return Guest(sandbox, name, networks, macs=macs_of(sandbox, name))


def macs_of(sandbox: Sandbox, name: str) -> List[str]:
    """The MAC addresses of a domain's NICs."""
    return re.findall(r"(?:\w\w:){5}\w\w", sandbox.virsh("domiflist", name))
