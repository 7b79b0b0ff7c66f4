"""Runs targets in a child process that has no rights, little memory and little time for each input."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import pwd
import random
import resource
import signal
import struct
import sys
import time
import traceback
from collections.abc import Sequence
from importlib import import_module
from multiprocessing.connection import Connection
from types import FrameType
from typing import NamedTuple

from libvirt_loopnet.cli import VERBS

from .mutate import Mutator
from .seeds import Seeds
from .targets import Target

SECONDS = 2.0
"""Of CPU for one input: other work on the machine is no fault of ours."""
STUCK = 60.0
"""Of real time, should the input be stuck in C, where no signal helps."""
MEMORY = 512 << 20
"""Bytes that the child may take beyond what it has at its beginning."""
ENOUGH = 25
"""Different faults."""


class TooSlowError(BaseException):
    """Not an Exception, so that nothing under test swallows it."""


class Failure(NamedTuple):
    """An input that did not hold what targets.py asks for."""

    target: str
    number: int
    data: bytes
    why: str
    where: str
    """Where in the code; failures alike in this are one."""


class Report(NamedTuple):
    """What a run came to."""

    done: int
    accepted: dict[str, tuple[int, int]]
    """Target -> (inputs, of these accepted)."""
    slowest: float
    failures: list[Failure]


class Plan(NamedTuple):
    """Which inputs: those of ``seed``, up to ``inputs`` and ``seconds``, from number ``first`` on."""

    seed: str
    inputs: int
    seconds: float
    targets: Sequence[Target]
    first: int = 0


def make(plan: Plan, seeds: Seeds, index: int) -> tuple[Target, bytes]:
    """Input number ``index``: the same for the same seed, targets and seed files."""
    chance = random.Random(f"{plan.seed}/{index}")
    target = chance.choices(plan.targets, [each.share for each in plan.targets])[0]
    return target, target.make(Mutator(chance), seeds)


def run(plan: Plan, seeds: Seeds) -> Report:
    """All inputs of ``plan``, in a child."""
    shared = mmap.mmap(-1, 8)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_work, args=(plan, seeds, shared, theirs), daemon=True)
    child.start()
    theirs.close()
    try:
        return _listen(plan, seeds, shared, ours)
    finally:
        child.kill()
        child.join()


def _listen(plan: Plan, seeds: Seeds, shared: mmap.mmap, ours: Connection) -> Report:
    failures: list[Failure] = []
    last, since = -1, time.monotonic()
    while True:
        if ours.poll(1.0):
            try:
                message = ours.recv()
            except EOFError:
                failures.append(_lost(plan, seeds, _number(shared), "the process died"))
                return Report(_number(shared), {}, 0.0, failures)
            if isinstance(message, Report):
                return message._replace(failures=failures)
            failures.append(message)
            if len(failures) >= ENOUGH:
                return Report(_number(shared), {}, 0.0, failures)
        now = _number(shared)
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > STUCK:
            failures.append(_lost(plan, seeds, now, f"stuck for {STUCK:g} s"))
            return Report(now, {}, 0.0, failures)


def _number(shared: mmap.mmap) -> int:
    number: int = struct.unpack_from("Q", shared)[0]
    return number


def _lost(plan: Plan, seeds: Seeds, index: int, why: str) -> Failure:
    target, data = make(plan, seeds, index)
    return Failure(target.name, index, data, why, why)


# --- the child


def _work(plan: Plan, seeds: Seeds, shared: mmap.mmap, theirs: Connection) -> None:
    for verb in VERBS:  # while the files can be read by all means
        import_module(f"libvirt_loopnet.commands.{verb.module}")
    _give_up_rights()
    used = int(open("/proc/self/statm").read().split()[0]) * mmap.PAGESIZE  # noqa: SIM115
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    signal.signal(signal.SIGPROF, _too_slow)
    known: set[str] = set()
    counts = {target.name: [0, 0] for target in plan.targets}
    end, slowest, index = time.monotonic() + plan.seconds, 0.0, plan.first
    while index < plan.first + plan.inputs and time.monotonic() < end:
        struct.pack_into("Q", shared, 0, index)
        target, data = make(plan, seeds, index)
        begin = time.process_time()
        accepted, failure = check(target, index, data)
        slowest = max(slowest, time.process_time() - begin)
        counts[target.name][0] += 1
        counts[target.name][1] += accepted
        if failure and failure.where not in known:
            known.add(failure.where)
            theirs.send(failure)
        index += 1
    accepted_of = {name: (count[0], count[1]) for name, count in counts.items()}
    theirs.send(Report(index - plan.first, accepted_of, slowest, []))


def _give_up_rights() -> None:
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.setgroups([])
        os.setresgid(nobody.pw_gid, nobody.pw_gid, nobody.pw_gid)
        os.setresuid(nobody.pw_uid, nobody.pw_uid, nobody.pw_uid)
    os.environ["HOME"] = "/nonexistent"
    os.environ.pop("XDG_RUNTIME_DIR", None)
    os.chdir("/")


def _too_slow(_signal: int, _frame: FrameType | None) -> None:
    raise TooSlowError(f"more than {SECONDS:g} s of CPU")


def check(target: Target, index: int, data: bytes) -> tuple[bool, Failure | None]:
    """Whether the input was accepted, and what was wrong."""
    try:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            return target.check(data), None
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except (Exception, TooSlowError) as error:
        frames = traceback.extract_tb(sys.exc_info()[2])
        where = " < ".join(f"{os.path.basename(f.filename)}:{f.lineno}" for f in reversed(frames[1:]))
        if isinstance(error, TooSlowError):
            where = f"too slow: {target.name}"  # wherever that was
        why = f"{type(error).__name__}: {error}"[:1000]
        return False, Failure(
            target.name, index, data, f"{why}\n  at {where[:300]}", f"{target.name} {where}"
        )


def replay(target: Target, data: bytes) -> Failure | None:
    """The same for one input, in a child as well; None if all is right with it."""
    alone = target._replace(make=lambda _mutator, _seeds: data)
    report = run(Plan("", 1, STUCK, (alone,)), Seeds([], [], [], [], False))
    return report.failures[0] if report.failures else None
