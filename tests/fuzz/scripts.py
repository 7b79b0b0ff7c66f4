"""Whole hooks, as libvirt runs them: sh, Python and all, as root, in a sandbox without libvirt.

A hook that refuses must leave the host as it was; what one that went through has done must be gone after
``stopped``, with the same XML.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence

from tests.sandbox import Sandbox
from tests.sandbox.snapshot import Snapshot, differences, snapshot

from .mutate import Mutator
from .runner import Failure
from .seeds import Seeds

NETWORK = ("start", "started", "updated", "stopped", "port-created", "port-deleted", "plugged", "unplugged")
GUEST = ("start", "reconnect", "migrate", "restore")
UNSEEN = ("prepare", "release", "attach", "")
SECONDS = 15.0
"""For one hook; one that waits for our lock gives up after ten."""
CONFIG = 'move = [ "default:a\'b", "loopnet:c&d" ]\n'


class _Hooks:
    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.refused = 0
        self.before = self.look()

    def look(self) -> Snapshot:
        return snapshot(self.sandbox)

    def run(self, driver: str, arguments: Sequence[str], stdin: bytes) -> str:
        """Runs one hook; what is wrong with it, '' if nothing."""
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile("w+", errors="replace") as errors:
            given.write(stdin)
            given.seek(0)
            program = f"/etc/libvirt/hooks/{driver}.d/50-loopnet"
            process = self.sandbox.host.popen(
                ["timeout", "-s", "KILL", str(SECONDS), program, *arguments],
                stdin=given.fileno(),
                stderr=errors.fileno(),
            )
            process.communicate()
            errors.seek(0)
            self.refused += process.returncode == 1
            return _judge(process.returncode, errors.read(), arguments)

    def changed(self) -> str:
        """What is not as it was, as a diff; '' if all is."""
        return differences(self.before, self.look())


def _judge(status: int, text: str, arguments: Sequence[str]) -> str:
    allowed = (0, 1) if len(arguments) >= 2 else (0, 2)
    if status not in allowed:
        return f"exit status {status}: {text[-500:]}"
    if len(text.splitlines()) > 1 or "Traceback" in text or "please report" in text:
        return f"not one line for users: {text[-500:]}"
    if (status == 0) != (text == ""):
        return f"exit status {status}, and says {text[-500:]!r}"
    return ""


def run(seed: str, inputs: int, seeds: Seeds) -> list[Failure]:
    """As many inputs, in a sandbox of their own; prints what was done."""
    failures: list[Failure] = []
    with Sandbox(libvirtd=False) as sandbox:
        sandbox.path("/etc/libvirt-loopnet.conf").write_text(CONFIG)
        hooks = _Hooks(sandbox)
        for index in range(inputs):
            driver, arguments, data = make(seed, index, seeds)
            wrong = hooks.run(driver, arguments, data)
            if driver == "network" and len(arguments) > 1:
                wrong = wrong or hooks.run("network", [arguments[0], "stopped", "end", "-"], data)
            changed = hooks.changed()
            if wrong or changed:
                failures.append(_failure(index, driver, arguments, data, wrong or changed))
            if changed:
                hooks.before = hooks.look()
    print(f"fuzz: {inputs} whole hooks, {hooks.refused} refused")
    return failures


def make(seed: str, index: int, seeds: Seeds) -> tuple[str, list[str], bytes]:
    """Input number ``index``: which hook, its arguments, its standard input."""
    chance = random.Random(f"{seed}/script/{index}")
    mutator = Mutator(chance)
    driver = chance.choice(("network", "network", "qemu"))
    operation = chance.choice(NETWORK if driver == "network" else GUEST)
    name = chance.choice(
        ("loopnet", "vm1", "-x", "a b", "\u65e5\u672c", "\udcff", "$(id)", "x" * 300, "a\nb")
    )
    arguments = [name, operation, "begin", "-"]
    if chance.random() < 0.1:
        arguments = [*arguments[: chance.randrange(4)], chance.choice(UNSEEN)]
    data = mutator.xml(seeds.own if driver == "network" else seeds.domains)
    return driver, arguments, data


def _failure(index: int, driver: str, arguments: Sequence[str], data: bytes, why: str) -> Failure:
    why = f"{driver} {list(arguments)}: {why[:1500]}"
    return Failure("script", index, data, why, why)
