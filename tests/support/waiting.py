"""Waiting for what other threads and processes do, with an end."""

import time
from collections.abc import Callable


def wait_until(is_so: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Waits for a condition; raises AssertionError when it does not come about."""
    deadline_s = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline_s, "it did not come about in time"
        time.sleep(0.02)
