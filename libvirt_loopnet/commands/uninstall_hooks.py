"""``loopnet uninstall-hooks``: libvirt runs us no more."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace

from ..daemon import hookfiles, runstate
from .install_hooks import RELOAD
from .shared.output import note
from .shared.privileges import require_root


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--root", metavar="DIR", default="", help="as with install-hooks")


def run(arguments: Namespace) -> int:
    root = os.path.abspath(arguments.root).rstrip("/") if arguments.root else ""
    if not root:
        require_root("uninstall-hooks")
    hookfiles.refuse_foreign(root)
    removed = [driver for driver in hookfiles.DRIVERS if hookfiles.uninstall(driver, root)]
    for driver in removed:
        print(f"removed {hookfiles.path(driver, root)}")
    if not removed:
        print("nothing to do")
    elif not root:
        _tell()
    return 0


def _tell() -> None:
    note(f"a running daemon must be told: {RELOAD}")
    names = [network.name for network in runstate.active_networks()]
    if names:
        note(f"still active: {', '.join(names)}; when they are stopped: loopnet cleanup")
