"""Ctrl-C and SIGTERM as a question that a loop can ask, so that it can save before it ends."""

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Any

TRAINING = (
    "stopping after what is in hand, with a checkpoint; Ctrl-C again stops at once, without one"
)


class StopRequest:
    """True once the user or the operator asked to stop; a second Ctrl-C interrupts at once."""

    def __init__(self, answer: str = "") -> None:
        """`answer` is what the user is told at once, as the loop may be long in asking."""
        self._asked = False
        self._answer = answer
        self._previous: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return self._asked

    def __enter__(self) -> "StopRequest":
        # Only the main thread may set handlers; elsewhere nobody sends us signals.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self._answer and not self._asked:
            # Not through a stream, which the signal may have found in the middle of a write.
            with contextlib.suppress(OSError):  # the terminal may have gone
                os.write(2, f"\n{self._answer}\n".encode())
        self._asked = True
