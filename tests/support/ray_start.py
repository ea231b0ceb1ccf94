"""Lets the processes that run tests start their Rays one after the other."""

import contextlib
import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO


class Turn:
    """What `in_turn` yields."""

    def __init__(self, file: IO[str]):
        self._file = file

    def end(self) -> None:
        """Lets the next process start its Ray before the block ends."""
        fcntl.flock(self._file, fcntl.LOCK_UN)


@contextlib.contextmanager
def in_turn() -> Iterator[Turn]:
    """Waits until no other process is inside such a block on this machine.

    Ray gives a node 30 s to start, which no setting changes, and two that start at once on two busy
    cores may need longer.
    """
    with (Path(tempfile.gettempdir()) / "rlcar-tests-start-ray.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield Turn(file)
