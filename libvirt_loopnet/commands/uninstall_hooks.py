"""``loopnet uninstall-hooks``: remove loopnet's hooks."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace

from ..daemon import hookfiles, leftover
from .install_hooks import tell_to_reload
from .shared.output import note
from .shared.privileges import require_root


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--root", metavar="DIR", default="", help="remove them below DIR instead of /")


def run(arguments: Namespace) -> int:
    root = os.path.abspath(arguments.root).rstrip("/") if arguments.root else ""
    if not root:
        require_root("uninstall-hooks")
    hookfiles.refuse_foreign(root)
    stay = [] if root else leftover.leave()
    removed = [driver for driver in hookfiles.DRIVERS if hookfiles.uninstall(driver, root)]
    for driver in removed:
        print(f"removed {hookfiles.path(driver, root)}")
    if not removed:
        print("nothing to do")
    elif not root:
        tell_to_reload()
    if stay:
        note(leftover.told(stay))
    return 0
