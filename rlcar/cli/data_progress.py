"""The progress of a command that goes through a data set: share, rate and remaining time."""

import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from rlcar.cli.shared import say
from rlcar.runs.metrics import Rate
from rlcar.system import logs
from rlcar.system.console import make_console
from rlcar.system.when import EverySeconds

_LINE_EVERY_S = 10.0


class TransitionProgress:
    """Shows a bar on a terminal, and otherwise a line from time to time."""

    def __init__(self, what: str, total: int, done_before: int = 0):
        """`done_before` is the number of transitions that an earlier command did."""
        self._what, self._total = what, max(total, 1)
        self._done = done_before
        self._rate = Rate(window_s=60.0, clock=time.monotonic)
        self._should_print = EverySeconds(_LINE_EVERY_S)
        console = make_console(stderr=True)
        self._is_live = console.is_terminal and not logs.are_json()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            console=console,
            transient=True,
            disable=not self._is_live,
        )
        self._task = self._progress.add_task(what, total=self._total, text="")

    def update(self, done: int) -> None:
        """Shows that so many transitions are done."""
        self._rate.add(done - self._done)
        self._done = done
        rate = self._rate.per_s()
        text = f"{done:,} transitions, {rate:,.0f}/s"
        if self._is_live:
            self._progress.update(self._task, completed=min(done, self._total), text=text)
        elif self._should_print():
            left_s = (self._total - done) / rate if rate > 0 else float("inf")
            left = f", {max(left_s, 0):,.0f} s left" if left_s < float("inf") else ""
            say(f"{self._what}: {100 * done / self._total:.0f} %, {text}{left}")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()
