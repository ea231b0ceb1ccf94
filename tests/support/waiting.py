"""Waits for other threads and processes, with a time limit."""

import time
from collections.abc import Callable


def wait_until(is_so: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Waits until a condition holds; raises AssertionError after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline_s, f"the condition did not hold within {timeout_s} s"
        time.sleep(0.02)
