"""A fork gets what a start gets."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.sandbox import CommandError, Namespace

from .forks import Forked
from .lab import Lab

TOLD = """
import json, os, signal, sys
print("an error", file=sys.stderr)
print(json.dumps({
    "arguments": sys.argv,
    "environment": dict(os.environ),
    "directory": os.getcwd(),
    "mask": os.umask(0),
    "session": os.getsid(0) == os.getpid() == os.getpgid(0),
    "namespaces": {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in sorted(os.listdir("/proc/self/ns"))},
    "files": sorted(os.listdir("/proc/self/fd")),
    "signals": {number: str(signal.getsignal(number)) for number in range(1, signal.NSIG)},
    "stdin": sys.stdin.read(),
    "text": [sys.stdin.encoding, sys.stdout.encoding, sys.stderr.errors, sys.getfilesystemencoding()],
    "name": open("/proc/self/comm").read(),
}))
sys.exit(3)
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


def test_the_same_as_a_start(lab: Lab) -> None:
    assert isinstance(lab.host, Forked)
    where = lab.host.environment
    forked = lab.host.fork(TOLD, ["-c", "a", "b c"], where, "<x/>\n", check=False)
    started = Namespace(lab._holder, where).run(
        ["/usr/bin/python3", "-I", "-c", TOLD, "a", "b c"], input="<x/>\n", check=False
    )
    for done in (forked, started):
        assert (done.returncode, done.stderr) == (3, "an error\n")
    assert json.loads(forked.stdout) == json.loads(started.stdout)


def test_it_ends_at_its_time_limit(lab: Lab) -> None:
    code = "import sys, time; print('begun', flush=True); time.sleep(60)"
    with pytest.raises(CommandError, match=r"not done in 0.5 s\nbegun"):
        lab.host.python(code, timeout=0.5)


def test_what_it_raises_is_told(lab: Lab) -> None:
    with pytest.raises(CommandError, match="ZeroDivisionError"):
        lab.host.python("1 / 0")
