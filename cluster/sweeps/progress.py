"""The progress line of a sweep, its messages, and its reaction to a stop request."""

import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import cloudpickle, tune
from ray.exceptions import RayTaskError
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from cluster.sweeps.config import SweepConfig
from cluster.sweeps.history import History
from rlcar.system.console import make_console
from rlcar.system.durable import replacing
from rlcar.system.interrupt import StopRequest
from rlcar.system.regular_file import read_regular
from rlcar.system.when import EverySeconds

_FIGURES = (
    "env_steps",
    "pid",
    "rollout/env_steps_per_s",
    "learner/train_steps_per_s",
    "run/train_seconds",
    "diverged",
    "reason",
)


class SweepProgress(tune.Callback):
    """Writes the history, and shows the trials running and done, the best score and the ETA."""

    def __init__(
        self,
        sweep: SweepConfig,
        history: History,
        stop: StopRequest,
        *,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._sweep, self._history, self._stop = sweep, history, stop
        self._console = console or make_console(soft_wrap=True)
        self._clock, self._started_s = clock, clock()
        self._work_at_start: float | None = None
        self._is_stopping = False
        # Before Tune ended: it also marks interrupted trials as TERMINATED.
        self.statuses: dict[str, str] = {}
        self._should_print, self._should_repeat = (
            EverySeconds(10.0, clock),
            EverySeconds(60.0, clock),
        )
        self._printed = ""
        self._progress = Progress(
            BarColumn(bar_width=20),
            TextColumn("{task.fields[text]}", markup=False),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("sweep", total=1.0, text="")

    def setup(self, *args: object, **_: object) -> None:
        """Shows the progress line."""
        self._progress.start()

    def on_step_end(self, iteration: int, trials: list[Trial], **_: object) -> None:
        """Updates the progress line, and ends the sweep if it was asked to stop."""
        if self._stop and not self._is_stopping:
            self._is_stopping = True
            # On SIGUSR1, Tune saves everything and ends. `StopRequest` handles Ctrl-C, so that
            # messages are not printed twice.
            signal.raise_signal(signal.SIGUSR1)
        self.statuses = {str(trial): trial.status for trial in trials}
        work = self._work(trials)
        if self._work_at_start is None:
            self._work_at_start = work
        if self._console.is_terminal:
            self._progress.update(self._task, completed=work, text=self.line(trials))
        elif self._should_print():
            state = self._state(trials)
            if state != self._printed or self._should_repeat():
                self._printed = state
                self._print(self.line(trials))

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **_: object,
    ) -> None:
        """Adds the report of a trial to the history."""
        figures = {
            name: value
            for name, value in result.items()
            if name in _FIGURES or name.startswith("evaluation/")
        }
        self._history.add(str(trial), self._sweep.sample_of(trial.config), figures)

    def on_trial_recover(
        self, iteration: int, trials: list[Trial], trial: Trial, **_: object
    ) -> None:
        """Prints that a trial continues from its checkpoint after a failure."""
        left = trial.max_failures - trial.run_metadata.num_failures
        why = failure_of(trial)
        self._print(f"trial {trial} starts again ({why + '; ' if why else ''}{left} retries left)")

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **_: object
    ) -> None:
        """Prints that a trial has failed for good."""
        self._print(f"trial {trial} failed: {failure_of(trial)}")

    def on_experiment_end(self, trials: list[Trial], **_: object) -> None:
        """Removes the progress line."""
        self._progress.stop()
        if not self._is_stopping:
            self._print(self.line(trials))

    def line(self, trials: list[Trial]) -> str:
        """Returns the state of the sweep in one line."""
        return f"{self._state(trials)}, ETA {self._eta(self._work(trials))}"

    def _state(self, trials: list[Trial]) -> str:
        count = {status: 0 for status in (Trial.RUNNING, Trial.TERMINATED, Trial.ERROR)}
        for trial in trials:
            count[trial.status] = count.get(trial.status, 0) + 1
        parts = [
            f"{count[Trial.TERMINATED]}/{self._sweep.trials} trials done",
            f"{count[Trial.RUNNING]} running",
        ]
        if count[Trial.ERROR]:
            parts.append(f"{count[Trial.ERROR]} failed")
        scores = {
            str(trial): score.value
            for trial in trials
            if (score := self._history.score(str(trial), self._sweep.metric, self._sweep.direction))
        }
        if scores:
            choose = min if self._sweep.direction == "min" else max
            best = choose(scores, key=lambda name: scores[name])
            parts.append(f"best {self._sweep.metric} {scores[best]:.4g} (trial {best})")
        return ", ".join(parts)

    def _work(self, trials: list[Trial]) -> float:
        """Returns the share of all env steps that is done; a trial that ended counts completely."""
        limit, done = self._sweep.budget.env_steps, 0.0
        for trial in trials:
            curve = self._history.curves.get(str(trial), [])
            reached = min(curve[-1]["env_steps"], limit) if curve else 0
            done += limit if trial.is_finished() else reached
        return done / (limit * self._sweep.trials)

    def _eta(self, work: float) -> str:
        began = self._work_at_start if self._work_at_start is not None else work
        if work >= 1.0:
            return "0:00:00"
        if work <= began:
            return "-:--:--"
        left_s = (1.0 - work) * (self._clock() - self._started_s) / (work - began)
        minutes, seconds = divmod(math.ceil(left_s), 60)
        return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class SchedulerKeeper(tune.Callback):
    """Stores the state of ASHA, which Tune itself loses when a sweep is stopped."""

    def __init__(self, scheduler: TrialScheduler, path: Path):
        """Restores the state from `path`, if an interrupted sweep left one."""
        self._scheduler, self._path = scheduler, path
        self._can_keep = isinstance(scheduler, AsyncHyperBandScheduler)
        if self._can_keep and path.exists():
            scheduler.restore(str(path))

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **_: object,
    ) -> None:
        """Stores the state after each decision."""
        if self._can_keep:
            with replacing(self._path) as temporary:
                self._scheduler.save(str(temporary))


def failure_of(trial: Trial) -> str:
    """Returns the last failure of a trial in one line; empty if there was none."""
    # Tune copies it to the storage, but only later.
    path = Path(trial.pickled_error_file or "")
    if not path.is_file():
        return ""
    error = cloudpickle.loads(read_regular(path))
    if not isinstance(error, RayTaskError):
        return "its process died"
    return f"{type(error.cause).__name__}: {error.cause}".splitlines()[0]
