"""Runs make's targets, or some tests, in fresh systems: python3 -m tests.fresh [ROOT …] [--targets 'demo check']

Each is a minimal root file system from the distribution's archive, which this machine's mirror is asked for,
entered by pivot_root in namespaces; it has git and make, and a clone of this checkout's HEAD in /root.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Iterator, List, Optional, Sequence

from tests.machines.bootstrap import SUITES, os_release, root
from tests.machines.machine import CommandError, Machine
from tests.sandbox.cache import BuildError, command, reason

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = ("git", "make", "ca-certificates")
"""What one needs to have a clone and to run make in it."""
ORIGIN, CLONE = "/srv/libvirt-loopnet.git", "/root/libvirt-loopnet"
CERTIFICATES = "/usr/local/share/ca-certificates"
"""Where an administrator puts those that the network needs, a proxy's say."""
TARGET_SECONDS = 7200.0
OLD_SECONDS = 86400.0
INSIDE = "LOOPNET_FRESH"
"""Set in such a system, whose own `make check` leaves this out."""


def fresh(suite: str, targets: Sequence[str], tests: str = "") -> Iterator[str]:
    """Runs targets in a fresh `suite`; a line for each that is done. Raises what tells why not.

    ``tests`` are those that `make tests` runs.
    """
    tree = root(suite, PACKAGES)
    _remove_old(tree.parent)
    with ExitStack() as stack:
        disk = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="disk-", dir=tree.parent)))
        machine = stack.enter_context(Machine(tree, boot=False, disk=disk, internet=True))
        machine.path(CERTIFICATES).mkdir(parents=True, exist_ok=True)
        for file in Path(CERTIFICATES).glob("*.crt"):
            machine.copy(file, f"{CERTIFICATES}/{file.name}")
        machine.run("update-ca-certificates")
        _clone(machine, disk)
        for target in targets:
            begin = time.monotonic()
            script = f"cd {CLONE}; export {INSIDE}=1; exec make {shlex.quote(target)}"
            script += f" TESTS={shlex.quote(tests)}" if tests else ""
            status = machine.show(script, timeout=TARGET_SECONDS)
            took = f"{time.monotonic() - begin:.0f} s"
            if status != 0:
                raise CommandError(f"make {target}: exit status {status} after {took}")
            yield f"make {target}: {took}"


def _remove_old(machines: Path) -> None:
    """What runs that were killed have left, half built or used."""
    for place in (*machines.glob("disk-*"), *machines.glob("build-*")):
        if time.time() - place.stat().st_mtime > OLD_SECONDS:
            shutil.rmtree(place, ignore_errors=True)


def _clone(machine: Machine, disk: Path) -> None:
    """A clone of this checkout's HEAD, made in the machine."""
    owner = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    os.environ.update(owner)  # also when root tests somebody else's checkout
    bare = disk / "origin.git"
    command(["git", "clone", "--quiet", "--bare", "--depth=1", f"file://{CHECKOUT}", str(bare)])
    shutil.copytree(bare, machine.path(ORIGIN))
    machine.run(f"git clone --quiet {ORIGIN} {CLONE}")
    changed = command(["git", "-C", str(CHECKOUT), "status", "--porcelain"]).splitlines()
    if changed:
        print(f"fresh: a clone has HEAD, without what is not committed ({len(changed)} files)", flush=True)


def _stop(number: int, frame: Optional[FrameType]) -> None:
    """SIGTERM as Ctrl-C: everything is taken away on the way out."""
    raise KeyboardInterrupt


def main(arguments: Optional[List[str]] = None) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(prog="fresh", description="README's two commands in fresh systems.")
    parser.add_argument("roots", nargs="*", metavar="ROOT", help=f"of {', '.join(SUITES)}; all by default")
    parser.add_argument("--targets", default="demo check", help="what make is to do there (%(default)s)")
    parser.add_argument("--tests", default="", help="run these tests there, and nothing else")
    options = parser.parse_args(arguments)
    targets = ["tests"] if options.tests else options.targets.split()
    unknown = [name for name in options.roots if name not in SUITES]
    if unknown:
        print(f"fresh: no system is called {unknown[0]!r}; there are {', '.join(SUITES)}", file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        print("fresh: needs root, for namespaces; try: sudo make check-fresh", file=sys.stderr)
        return 5
    if os.environ.get(INSIDE):
        print("fresh: this is a fresh system already; not once more in it")
        return 0
    lacking = next((tool for tool in ("apt-get", "mmdebstrap", "slirp4netns") if not shutil.which(tool)), "")
    if lacking == "apt-get":
        name = os_release("PRETTY_NAME") or "this machine"
        print(f"fresh: {name} has no {lacking}; try on Debian or one of its relatives", file=sys.stderr)
        return 4
    if lacking:
        print(f"fresh: {lacking} is missing; try: make check-fresh, which installs it", file=sys.stderr)
        return 4
    signal.signal(signal.SIGTERM, _stop)
    told: List[str] = []
    status = 0
    for suite in options.roots or SUITES:
        print(f"--- {suite}", flush=True)
        try:
            for line in fresh(suite, targets, options.tests):
                told.append(f"{suite}: {line}")
        except KeyboardInterrupt:
            print("\nfresh: interrupted; nothing of it is left", file=sys.stderr)
            return 130
        except (CommandError, BuildError, OSError, subprocess.SubprocessError) as error:
            status = 1
            why = reason(str(error)) if isinstance(error, BuildError) else str(error)
            told.append(f"{suite}: {why}")
            print(f"fresh: {suite}: {why}", file=sys.stderr, flush=True)
    print("\n".join(told))
    return status


if __name__ == "__main__":
    sys.exit(main())
