"""Times whole programs, one after the other, from where they run.

Started inside a sandbox by `time_programs`: entering namespaces would take longer than what is
timed. Reads a JSON object from standard input and prints a list; see there.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tests.sandbox import Namespace

PYTHON = "/usr/bin/python3"
ENVIRONMENT = {"LC_ALL": "C", "PATH": "/run/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
"""Nearly empty, as libvirt's hooks have it."""
PIPE_SIZE = 1 << 20
SET_PIPE_SIZE = 1031  # fcntl.F_SETPIPE_SZ, which Python 3.9 lacks


class Program(NamedTuple):
    """What to run; ``stdin`` is the path, inside the sandbox, of what it gets there by a pipe."""

    argv: Sequence[str]
    stdin: str = "/dev/null"


def time_programs(
    host: Namespace, programs: Sequence[Program], *, best_of: int, cpu: bool = False
) -> list[float]:
    """Seconds that each program took: the best of as many runs one after the other.

    Others disturb a run of some milliseconds much, or not at all. ``cpu`` asks for the processor
    time of program and children, which they disturb least. A program that fails is an error.
    """
    request = json.dumps({"programs": programs, "best_of": best_of, "cpu": cpu})
    script = str(Path(__file__).resolve())
    answer = host.run([PYTHON, "-I", script], input=request, timeout=600).stdout
    return [float(seconds) for seconds in json.loads(answer)]


def _time(argv: list[str], data: bytes, cpu: bool) -> float:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, SET_PIPE_SIZE, PIPE_SIZE)
    os.write(writer, data)
    os.close(writer)
    actions = [
        (os.POSIX_SPAWN_DUP2, reader, 0),
        (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
    ]
    started = time.perf_counter()
    pid = os.posix_spawnp(argv[0], argv, ENVIRONMENT, file_actions=actions)
    _, status, usage = os.wait4(pid, 0)
    took = time.perf_counter() - started
    os.close(reader)
    if status:
        sys.exit(f"{' '.join(argv)}: wait status {status}")
    return usage.ru_utime + usage.ru_stime if cpu else took


def main() -> None:
    request = json.load(sys.stdin)
    found = []
    for argv, stdin in request["programs"]:
        data = Path(stdin).read_bytes()
        found.append(min(_time(argv, data, request["cpu"]) for _ in range(request["best_of"])))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
