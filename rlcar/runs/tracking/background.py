"""Sends rows from a thread of its own, so that a slow tracker delays no training."""

import contextlib
import logging
import threading
from collections.abc import Sequence

from rlcar.runs.tracking.tracker import Row, Tracker
from rlcar.system import logs

logger = logging.getLogger(__name__)

_MOST_WAITING = 10_000  # rows; hours of an outage
_AT_ONCE = 20  # rows
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_CLOSE_S = 20.0  # in which the last rows must arrive


class BackgroundTracker:
    """Keeps the rows that the tracker has not taken yet, and tries again until it does.

    An error of the tracker is one line in the log. After very many rows the oldest are dropped.
    """

    def __init__(self, tracker: Tracker, first_pause_s: float = _FIRST_PAUSE_S):
        self.tracker, self._first_pause_s = tracker, first_pause_s
        self._changed = threading.Condition()
        self._waiting: list[Row] = []
        self._is_closing = False
        self._dropped = 0
        self._thread = threading.Thread(
            target=self._work, name=f"rlcar-{tracker.name}", daemon=True
        )
        self._thread.start()

    def write(self, row: Row) -> None:
        """Hands a row over; never blocks on the tracker."""
        with self._changed:
            self._waiting.append(row)
            if len(self._waiting) > _MOST_WAITING:
                del self._waiting[0]
                self._dropped += 1
            self._changed.notify()

    def close(self, is_finished: bool, within_s: float = _CLOSE_S) -> None:
        """Waits until all rows are sent, but not longer; says how many rows are missing."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(within_s)
        with self._changed:
            missing = len(self._waiting) + self._dropped
            self._waiting.clear()
        if missing:
            logs.announce(
                f"{missing:,} rows of metrics did not reach {self.tracker.name}; metrics.jsonl has "
                "all of them"
            )
        if not self._thread.is_alive():
            try:
                self.tracker.close(is_finished)
            except Exception as error:  # whatever a tracker raises, the training has succeeded
                logger.warning("%s: %s", self.tracker.name, _first_line(error))

    def _work(self) -> None:
        pause_s = self._first_pause_s
        while True:
            with self._changed:
                while not self._waiting and not self._is_closing:
                    self._changed.wait()
                if not self._waiting:
                    return
                rows = self._waiting[:_AT_ONCE]
            try:
                self.tracker.write(rows)
            except Exception as error:  # an outage may show as any error
                if pause_s == self._first_pause_s:
                    logger.warning(
                        "%s takes no metrics (%s): trying again", self.tracker.name,
                        _first_line(error),
                    )  # fmt: skip
                if self._pause(pause_s):
                    return
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                continue
            pause_s = self._first_pause_s
            self._forget(rows)

    def _pause(self, pause_s: float) -> bool:
        """Waits before the next try; returns whether there is no time for another one."""
        with self._changed:
            if self._is_closing:  # the try after the end of the training was the last one
                return True
            self._changed.wait_for(lambda: self._is_closing, pause_s)
        return False

    def _forget(self, rows: Sequence[Row]) -> None:
        with self._changed:
            for row in rows:  # the oldest may have been dropped meanwhile
                with contextlib.suppress(ValueError):
                    self._waiting.remove(row)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
