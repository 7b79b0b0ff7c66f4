"""What a test waits for, and a guest that must go on to answer meanwhile."""

from __future__ import annotations

import contextlib
import re
import time
from typing import Callable, Iterator, Set, TypeVar

POLL_SECONDS = 0.03

T = TypeVar("T")


def wait(condition: Callable[[], T], what: str, timeout: float = 60.0) -> T:
    """Polls until `condition` gives something true, and returns that; fails after `timeout`."""
    end = time.monotonic() + timeout
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"no {what} after {timeout} s"
        time.sleep(POLL_SECONDS)


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
