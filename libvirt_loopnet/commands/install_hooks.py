"""``loopnet install-hooks``: let libvirt run loopnet's hooks."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace

from ..daemon import hookfiles, leftover, running
from .shared.output import note
from .shared.privileges import require_root


def tell_to_reload() -> None:
    """Say by which command daemons that run learn of hooks that came or went."""
    command = running.reload_command()
    if command:
        note(f"tell the running daemon: {command}")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--root", metavar="DIR", default="", help="install them below DIR instead of /")


def run(arguments: Namespace) -> int:
    root = os.path.abspath(arguments.root).rstrip("/") if arguments.root else ""
    if not root:
        require_root("install-hooks")
    hookfiles.refuse_foreign(root)
    source = hookfiles.sources()
    texts = {driver: hookfiles.text(source, driver) for driver in hookfiles.DRIVERS}
    changed = [driver for driver in texts if hookfiles.install(driver, texts[driver], root)]
    for driver in changed:
        print(f"installed {hookfiles.path(driver, root)}")
    if not root:
        leftover.forget()
    if not changed:
        print("nothing to do")
    elif not root:
        tell_to_reload()
    if _others_can_write():
        note(f"users other than root can write to {hookfiles.PACKAGE}, and so run code as root")
    return 0


def _others_can_write() -> bool:
    status = os.stat(os.path.join(hookfiles.PACKAGE, "libvirt_loopnet"))
    return status.st_uid != 0 or bool(status.st_mode & 0o022)
