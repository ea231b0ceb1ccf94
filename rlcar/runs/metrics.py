"""Running means and rates; writers of metrics.jsonl, TensorBoard files and the progress line."""

import json
import logging
import math
import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from rlcar.runs.metrics_file import drop_rows_after
from rlcar.system import heartbeat, logs
from rlcar.system.console import make_console
from rlcar.system.heartbeat import SignOfLife
from rlcar.system.when import EverySeconds

logger = logging.getLogger(__name__)

# Metrics of the progress line, in this order: name -> (label, format).
_FIELDS = {
    "rollout/env_steps_per_s": ("env/s", ".0f"),
    "learner/train_steps_per_s": ("train/s", ".1f"),
    "episode/reward": ("reward", ".2f"),
    "episode/lap_rate": ("laps", ".0%"),
    "episode/success_rate": ("success", ".0%"),
    "model/loss": ("model", ".3g"),
    "actor/loss": ("actor", ".3g"),
    "critic/loss": ("value", ".3g"),
    "rollout/weights_lag_updates": ("lag", ".1f"),
}

_PLAIN_LINE = re.compile(r"(\d+)/(\d+) env steps \(\d+%\), ETA (\S+)(?:  (.*))?")


class RunningMean:
    """The mean of the last `window` values."""

    def __init__(self, window: int) -> None:
        if window < 1:
            raise ValueError(f"RunningMean needs a window of at least 1 value, not {window}")
        self._values: deque[float] = deque(maxlen=window)

    def add(self, value: float) -> None:
        """Adds a value."""
        self._values.append(float(value))

    def mean(self) -> float:
        """Returns the mean; NaN before the first value."""
        return math.fsum(self._values) / len(self._values) if self._values else math.nan


class Rate:
    """Counts per second over the last `window_s` seconds, or since the start when that is less."""

    def __init__(self, window_s: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        if not window_s > 0.0:
            raise ValueError(f"Rate needs a window longer than 0 s, not {window_s}")
        self._window_s = window_s
        self._clock = clock
        self._started_s = clock()
        self._events: deque[tuple[float, float]] = deque()  # (when, count)

    def add(self, count: float) -> None:
        """Adds `count` events since the last call."""
        self._events.append((self._clock(), count))
        self._forget(self._events[-1][0])

    def per_s(self) -> float:
        """Returns the current rate; 0 before any time has passed."""
        now_s = self._clock()
        self._forget(now_s)
        elapsed_s = min(self._window_s, now_s - self._started_s)
        return sum(count for _, count in self._events) / elapsed_s if elapsed_s > 0.0 else 0.0

    def _forget(self, now_s: float) -> None:
        while self._events and self._events[0][0] <= now_s - self._window_s:
            self._events.popleft()


def first_non_finite(metrics: Mapping[str, Any]) -> str | None:
    """Returns the name of the first metric that is NaN or infinite."""
    return next((name for name, value in metrics.items() if not math.isfinite(value)), None)


class MetricsWriter:
    """Writes one row at a time to `<folder>/metrics.jsonl` and `<folder>/tensorboard`.

    `time_s` continues from the last row that is kept. With `resume_env_steps`, later rows are
    dropped first, so that no counter decreases; otherwise rows are appended.
    """

    def __init__(
        self,
        folder: Path,
        resume_env_steps: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from rlcar.runs.tensorboard_file import TensorBoardFile

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.jsonl"
        last_s = drop_rows_after(path, resume_env_steps) if path.exists() else 0.0
        self._clock = clock
        self._started_s = clock() - last_s
        self._file = path.open("a", encoding="utf-8")
        self._tensorboard = TensorBoardFile(folder / "tensorboard")
        if resume_env_steps is not None:
            self._tensorboard.start_again(resume_env_steps + 1)

    def write(self, env_steps: int, metrics: Mapping[str, Any]) -> None:
        """Writes a row of scalars; a value that is not finite becomes null in the file."""
        row: dict[str, Any] = {
            "env_steps": int(env_steps),
            "time_s": round(self._clock() - self._started_s, 3),
        }
        taken = row.keys() & metrics.keys()
        if taken:
            raise ValueError(
                f"a metric cannot be called {min(taken)!r}: every row has a column of that name"
            )
        drawn: dict[str, float] = {}
        for name, value in metrics.items():
            scalar = float(value)
            row[name] = scalar if math.isfinite(scalar) else None
            if math.isfinite(scalar):
                drawn[name] = scalar
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()
        self._tensorboard.write(int(env_steps), drawn)

    def close(self) -> None:
        """Flushes and closes both files; may be called twice."""
        try:
            self._file.close()
        finally:
            self._tensorboard.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class ProgressLine:
    """Shows a progress bar with the main metrics; without a terminal, a plain line now and then."""

    def __init__(
        self,
        total_env_steps: int,
        *,
        console: Console | None = None,
        plain_every_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console or make_console()
        self._total, self._is_end_known = total_env_steps, True
        self._env_steps: int | None = (
            None  # None until the first update, as a resumed run does not start at 0
        )
        self._rate = Rate(window_s=60.0, clock=clock)
        self._should_print = EverySeconds(plain_every_s, clock)
        self._fields: dict[str, float] = {}
        self._is_line_due = False
        self._progress = Progress(
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            console=self._console,
            disable=not self._console.is_terminal or logs.are_json(),
        )
        self._task = self._progress.add_task("train", total=total_env_steps, text="")
        self._plain_every_s, self._clock = plain_every_s, clock
        self._printed_s = clock()

    @property
    def _is_live(self) -> bool:
        # Checked each time, because the terminal may close during the training.
        return self._console.is_terminal and not logs.are_json()

    def expect(self, total_env_steps: int | None) -> None:
        """Changes the number of env steps at the end; None says that it is not known yet."""
        self._is_end_known = total_env_steps is not None
        self._total = total_env_steps or self._total
        # Not through `Progress.update`, which would forget the rate with each change.
        (task,) = self._progress.tasks
        task.total = total_env_steps

    def update(self, env_steps: int, fields: Mapping[str, Any]) -> None:
        """Shows the newest values of the metrics in `_FIELDS`; missing ones keep their values."""
        if self._env_steps is not None:
            self._rate.add(env_steps - self._env_steps)
        self._env_steps = env_steps
        self._fields |= {name: float(fields[name]) for name in _FIELDS if name in fields}
        self._is_line_due = True
        if self._is_live:
            self._progress.update(self._task, completed=env_steps, text=self._text())
        elif self._should_print():
            self._print_line()

    def report(self, sign_of_life: SignOfLife) -> None:
        """Prints the line again if it is overdue, so that a log shows that its process is alive.

        A log without new lines then means that the process has died.
        """
        is_overdue = self._clock() - self._printed_s >= 2 * self._plain_every_s
        if is_overdue and not self._is_live:
            self._print_line(sign_of_life)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()
        if self._is_line_due and not self._is_live:
            self._print_line()

    def _print_line(self, sign_of_life: SignOfLife | None = None) -> None:
        reported = sign_of_life or heartbeat.sign_of_life()
        self._is_line_due, self._printed_s = False, self._clock()
        done = self._env_steps or 0
        is_waiting = reported.silent_s >= self._plain_every_s
        if logs.are_json():
            counters = {"env_steps": done, "total_env_steps": self._total}
            numbers = {name: value for name, value in self._fields.items() if math.isfinite(value)}
            waits = (
                {"stage": reported.stage, "silent_s": round(reported.silent_s)}
                if is_waiting
                else {}
            )
            logger.info("progress", extra={"fields": {**counters, **numbers, **waits}})
            return
        eta = self._eta(self._total - done)
        head = f"{done}/{self._total} env steps ({done / self._total:.0%}), ETA {eta}"
        parts = [head, self._text()]
        if is_waiting:
            parts.append(f"stage {reported.stage}  silent {reported.silent_s:.0f}s")
        # Without wrapping: one report is one line, whatever width the log seems to have.
        text = "  ".join(part for part in parts if part)
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _eta(self, env_steps_left: int) -> str:
        per_s = self._rate.per_s()
        if per_s <= 0.0 or not self._is_end_known:
            return "-:--:--"
        minutes, seconds = divmod(round(max(0, env_steps_left) / per_s), 60)
        return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"

    def _text(self) -> str:
        parts = []
        for name, (label, form) in _FIELDS.items():
            value = self._fields.get(name, math.nan)
            if not math.isnan(value):
                parts.append(f"{label} {value:{form}}")
        return "  ".join(parts)


class PlainProgress(NamedTuple):
    """A parsed plain progress line."""

    env_steps: int
    total_env_steps: int
    eta: str
    text: str  # the rest of the line
    metrics: dict[str, float]  # the values of the rest, by metric names
    signs: SignOfLife = SignOfLife(heartbeat.WORKING, 0.0)  # when the line was printed


def read_progress_line(line: str) -> PlainProgress | None:
    """Parses a plain line of ProgressLine; returns None for any other line."""
    found = _PLAIN_LINE.fullmatch(line.rstrip())
    if found is None:
        return None
    done, total, eta, text = found.groups(default="")
    names = {label: name for name, (label, _) in _FIELDS.items()}
    metrics = {}
    signs = SignOfLife(heartbeat.WORKING, 0.0)
    if waiting := re.search(r"stage (\S+)  silent (\d+)s$", text):
        signs = SignOfLife(waiting[1], float(waiting[2]))
        text = text[: waiting.start()].rstrip()
    for label, value in re.findall(r"(\S+) (\S+)", text):
        if label in names:
            number = float(value.removesuffix("%"))
            metrics[names[label]] = number / 100 if value.endswith("%") else number
    return PlainProgress(int(done), int(total), eta, text, metrics, signs)
