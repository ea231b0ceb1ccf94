"""Turns Ctrl-C and SIGTERM into a request that a loop can poll, so that it saves before it ends."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

TRAINING_STOPS = (
    "stopping after the current train steps, with a checkpoint; press Ctrl-C again to stop at once "
    "without one"
)


@contextlib.contextmanager
def exiting_at_sigterm(code: int = 128 + signal.SIGTERM) -> Iterator[None]:
    """Lets SIGTERM raise `SystemExit(code)` within a `with` block, so that `finally` clauses run.

    Ray's own handler, which `ray.init` installs, aborts the process three seconds after SIGTERM,
    in the middle of whatever it does to end in order.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(code)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


class StopRequest:
    """True after the first Ctrl-C or SIGTERM; a second Ctrl-C raises KeyboardInterrupt at once."""

    def __init__(self, message: str = "") -> None:
        """`message` is printed at the first signal, because the loop may poll only later."""
        self._asked = False
        self._message = message
        self._previous: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __bool__(self) -> bool:
        return self._asked

    def __enter__(self) -> "StopRequest":
        # Python lets only the main thread set handlers, and only it receives signals.
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
        if self._message and not self._asked:
            # Not through a stream: the signal may have interrupted one of its writes.
            with contextlib.suppress(OSError):  # the terminal may be closed
                os.write(2, f"\n{self._message}\n".encode())
        self._asked = True
