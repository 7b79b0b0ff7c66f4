"""What a test waits for, and a guest that must go on to answer meanwhile."""

from __future__ import annotations

import contextlib
import re
import time
from typing import Callable, Iterator, Set, TypeVar

T = TypeVar("T")


POLL_SECONDS = 0.01


def longer(pause: float) -> float:
    """Seconds to sleep after the next look: what takes long is looked for less often, as looks take the processor from
    what is waited for."""
    return min(pause * 1.3, 0.1)


def wait(condition: Callable[[], T], what: str, timeout: float = 60.0) -> T:
    """Polls until `condition` gives something true, and returns that; fails after `timeout`."""
    end, pause = time.monotonic() + timeout, POLL_SECONDS
    while not (found := condition()):
        assert time.monotonic() < end, f"no {what} after {timeout} s"
        time.sleep(pause)
        pause = longer(pause)
    return found


@contextlib.contextmanager
def no_ping_lost(address: str, read: Callable[[], str], stop: Callable[[], object]) -> Iterator[None]:
    """`address` is being pinged: `read` gives what ping has printed, `stop` ends it. No ping is lost meanwhile.

    Those under way at the end don't count: nobody waits for their answers.
    """

    def answered() -> Set[int]:
        return {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", read())}

    try:
        wait(answered, f"answer from {address}")
        yield
        last = max(answered())
        wait(lambda: max(answered()) > last, f"further answer from {address}")
    finally:
        stop()
    numbers = answered()
    lost = sorted(set(range(1, max(numbers))) - numbers)
    assert not lost, f"{len(lost)} pings of {max(numbers)} are lost: {lost[:20]}"
