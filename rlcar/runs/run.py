"""Records one run in its folder: metrics, best policy, progress; and decides when to do what.

runs/<name>/config.json      all settings, resolved
            run.json         seed, commit, versions, start
            process.json     the process that trains it, or how the last one ended
            metrics.jsonl    one row for each log (and tensorboard/)
            tracking.json    what MLflow and Weights & Biases call the run, if they get it too
            checkpoints/     resumable saves
            best/            the policy with the best evaluation so far
            report.json      and its pictures, from the last evaluation
            reference.json   what the policy observed, did and earned in it
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from rlcar.config import Config, dump_config
from rlcar.errors import UserError, reason_of
from rlcar.rollout.compiled import Episodes
from rlcar.runs.completion import UNIMPROVED, expected_env_steps, is_at_its_end
from rlcar.runs.folders import find_save, is_same_folder, new_run_folder, require_run
from rlcar.runs.metrics import MetricsWriter, ProgressLine, Rate, RunningMean
from rlcar.runs.metrics_file import read_metrics
from rlcar.runs.patience import Patience
from rlcar.runs.tracking.open import open_tracking
from rlcar.storage import checkpoint
from rlcar.storage.mirror import Mirror
from rlcar.system import durable, heartbeat
from rlcar.system.lease import hold
from rlcar.system.provenance import commit
from rlcar.system.when import Every, EverySeconds
from rlcar.types import Evaluation, Outcomes, Weights

__all__ = [
    "Run",
    "find_save",
    "is_same_folder",
    "new_run_folder",
    "require_race",
    "require_run",
    "writing",
]

_LAG = "rollout/weights_lag_updates"  # only driving has it
STAYS_ABOVE = 0.9  # lap rate of the figures `*_to_90`
_DETERMINISTIC_ROWS = 1000  # at most, in a whole training

# Called with the figures of a training after each evaluation, once its checkpoint is complete. The
# training ends if it returns True.
EvaluationListener = Callable[[dict[str, float]], bool | None]


class Watcher(Protocol):
    """An observer that a run notifies at once of what happens."""

    def drove(self, episodes: Episodes) -> None:
        """Called when episodes have ended."""

    def wrote(self, env_steps: int, row: Mapping[str, float]) -> None:
        """Called after a row was written to metrics.jsonl."""

    def saved(self) -> None:
        """Called when a checkpoint is complete."""

    def diverged(self) -> None:
        """Called when a NaN or an infinity interrupts the training."""


class Run:
    """The record of a training in progress.

    Training loops report to it what happened, and ask it what is due."""

    def __init__(
        self,
        folder: Path,
        config: Config,
        resumed: checkpoint.Save | None = None,
        mirror: Mirror | None = None,
        watchers: Sequence[Watcher] = (),
    ):
        self.folder, self.config = folder, config
        self._mirror = mirror or Mirror(folder, "")
        resumed_steps = resumed.env_steps if resumed else 0
        self._held = contextlib.ExitStack()
        self._lease = self._held.enter_context(hold(folder))
        self._lease.begin()
        try:
            with writing(folder):
                self._tracking = self._held.enter_context(open_tracking(folder, config, commit()))
                self._writer = _open_folder(folder, config, resumed)
            best = checkpoint.latest_sound(folder / "best")
            before = _episodes_before(folder) if resumed else 0
            self._episodes = int(resumed.meta.get("episodes", before)) if resumed else 0
        except BaseException:
            self._held.close()
            raise
        self._before_s = float(resumed.meta["train_seconds"]) if resumed else 0.0
        self._start_s = time.monotonic()
        self._progress = ProgressLine(config.training.env_steps)
        best_cost = best.meta["metric"] if best else None
        self._best = float("inf") if best_cost is None else float(best_cost)
        self._cost: float | None = None  # of the latest evaluation
        self._patience = Patience.saved_in(resumed)
        self._outcomes: Outcomes | None = None  # of the latest evaluation
        self._watchers = watchers
        self._reward, self._successes = RunningMean(100), RunningMean(100)
        self._episode_steps = RunningMean(100)
        is_recorded = bool(config.data.folder)
        self._unknown = [_LAG] if is_recorded else []
        self._success_rate = "episode/lap_rate" if config.is_race else "episode/success_rate"
        if is_recorded or not config.is_race:  # until an episode says whether it was a success
            self._unknown.append(self._success_rate)
        self._env_rate, self._train_rate = Rate(), Rate()
        self._latest: dict[str, float] = {}
        self._logged = (-1, -1)
        self._driven_env_steps = resumed_steps
        self.should_log = self._log_cadence()
        self.should_save = EverySeconds(config.training.checkpoint_every_s)
        every = config.training.evaluate_every_env_steps
        self.should_evaluate = Every(every, next_at=(resumed_steps // every + 1) * every)

    def _log_cadence(self) -> Callable[[], bool]:
        """Logs by time, or by env steps if two runs must write the same rows."""
        training = self.config.training
        if not training.deterministic:
            return EverySeconds(training.log_every_s)
        period = max(1, training.env_steps // _DETERMINISTIC_ROWS)
        is_due = Every(period, next_at=(self._driven_env_steps // period + 1) * period)
        return lambda: is_due(self._driven_env_steps)

    def __enter__(self) -> "Run":
        self._progress.__enter__()
        self._lease.listen(self._progress.report)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lease.forget(self._progress.report)
        with self._held:  # released last, because another process may then write the same files
            try:
                self._progress.__exit__(kind, error, trace)
                with writing(self.folder):
                    self._writer.close()
            except UserError:
                if error is None:
                    raise
            if error is not None:
                self._held.__exit__(kind, error, trace)  # the lease records how the work ended

    @property
    def train_seconds(self) -> float:
        """Wall time of the training, including the time before a resumption."""
        return self._before_s + time.monotonic() - self._start_s

    @property
    def checkpoints(self) -> Path:
        """Folder of the resumable saves."""
        return self.folder / "checkpoints"

    def meta(self) -> dict[str, Any]:
        """Returns what each save records; raises HeldError if another process took the run over."""
        self._lease.check()
        return {
            "train_seconds": self.train_seconds,
            "metric": self._cost,
            "episodes": self._episodes,
            **self._patience.meta(),
        }

    def is_at_its_end(self, env_steps: int) -> bool:
        """Whether the training has reached its number of env steps or of episodes."""
        unimproved = self._patience.unimproved
        return is_at_its_end(self.config.training, env_steps, self._episodes, unimproved)

    def drove(self, episodes: Episodes) -> None:
        """Adds new env steps and the episodes that ended in them."""
        heartbeat.beat()
        self._env_rate.add(episodes.env_steps)
        self._driven_env_steps += episodes.env_steps
        for reward in episodes.reward:
            self._reward.add(float(reward))
        if episodes.is_success is not None and len(episodes.is_success):
            for is_success in episodes.is_success:
                self._successes.add(float(is_success))
            if self._success_rate in self._unknown:
                self._unknown.remove(self._success_rate)
        self._episodes += len(episodes.reward)
        for steps in episodes.steps:
            self._episode_steps.add(float(steps))
        for watcher in self._watchers:
            watcher.drove(episodes)

    def trained(self, updates: int, metrics: Mapping[str, float]) -> None:
        """Adds train steps and keeps their metrics for the next row."""
        heartbeat.beat()
        self._train_rate.add(updates)
        self._latest |= metrics
        self._forget_unknown()

    def log(self, env_steps: int, train_steps: int) -> None:
        """Writes one row and updates the progress line."""
        self._latest |= {
            "episode/reward": self._reward.mean(),
            self._success_rate: self._successes.mean(),
            "episode/length_env_steps": self._episode_steps.mean(),
            "episode/count": self._episodes,
            "rollout/env_steps_per_s": self._env_rate.per_s(),
            "learner/train_steps_per_s": self._train_rate.per_s(),
            "learner/train_steps": train_steps,
            "learner/rollbacks": self.config.training.rollbacks,
            **self._mirror.metrics(),
        }
        self._forget_unknown()
        self._progress.expect(
            expected_env_steps(
                self.config.training, env_steps, self._episodes, self._episode_steps.mean()
            )
        )
        self._progress.update(env_steps, self._latest)
        if self._logged == (env_steps, train_steps):
            return  # nothing new: a long wait must not fill the disk
        self._logged = (env_steps, train_steps)
        if self.is_at_its_end(env_steps):
            self._tracking.finished()
        # Each evaluation has a row of its own, so it appears in the file only once.
        row = {name: self._latest[name] for name in self._latest if "evaluation/" not in name}
        self._write_row(env_steps, row)

    def _forget_unknown(self) -> None:
        for name in self._unknown:
            self._latest.pop(name, None)

    def evaluated(self, env_steps: int, weights: Weights, evaluation: Evaluation) -> None:
        """Records an evaluation of `weights`, and saves them if they are the best so far.

        Without a cost the newest ones count as the best.
        """
        heartbeat.beat()
        self._cost, self._outcomes = evaluation.cost, evaluation.outcomes
        row = _outcome_metrics(evaluation) | evaluation.metrics
        if self.config.training.patience_evaluations:
            self._patience.evaluated(evaluation)
            row[UNIMPROVED] = self._patience.unimproved
        self._latest |= row
        self._write_row(env_steps, row)
        self._progress.update(env_steps, self._latest)
        if evaluation.cost is None or evaluation.cost < self._best:
            self._best = float("inf") if evaluation.cost is None else evaluation.cost
            meta = {**self.meta(), "train_steps": weights.version, "seed": self.config.seed}
            with heartbeat.stage("saving"):
                checkpoint.save(
                    self.folder / "best",
                    env_steps,
                    {"policy": weights.params},
                    config_json=dump_config(self.config),
                    meta=meta,
                )
            # Also keep the best until the newest checkpoint, for a training that is resumed there.
            resumable = checkpoint.latest(self.checkpoints)
            checkpoint.keep(self.folder / "best", 1, resumable.env_steps if resumable else None)

    def saved(self) -> None:
        """Deletes old checkpoints and requests a push to the storage, if there is one."""
        heartbeat.beat()
        self._lease.check()
        with writing(self.folder):
            checkpoint.keep(self.checkpoints, self.config.training.checkpoints_kept)
        self._mirror.push()
        for watcher in self._watchers:
            watcher.saved()

    def figures(self, env_steps: int) -> dict[str, float]:
        """Returns the latest evaluation, the speed of the training and its time so far.

        `outcomes/...` says how the episodes of the evaluation ended, if the environment tells.
        """
        evaluation = {name: value for name, value in self._latest.items() if "evaluation/" in name}
        outcomes = {} if self._outcomes is None else self._outcomes._asdict()
        return {
            **evaluation,
            **{f"outcomes/{name}": n for name, n in outcomes.items() if n is not None},
            "episode/count": self._episodes,
            "env_steps": env_steps,
            "rollout/env_steps_per_s": self._env_rate.per_s(),
            "learner/train_steps_per_s": self._train_rate.per_s(),
            "run/train_seconds": self.train_seconds,
        }

    def summary(self, env_steps: int) -> dict[str, float | None]:
        """Returns the figures of the whole training.

        `*_to_90` is when the lap rate reached `STAYS_ABOVE` without falling below it again."""
        since: Mapping[str, Any] | None = None
        for row in read_metrics(self.folder / "metrics.jsonl"):
            if "evaluation/lap_rate" in row:
                stays = row["evaluation/lap_rate"] >= STAYS_ABOVE
                since = (since or row) if stays else None
        return {
            "env_steps": env_steps,
            "train_seconds": round(self.train_seconds, 1),
            "env_steps_to_90": since["env_steps"] if since else None,
            "seconds_to_90": round(since["run/train_seconds"], 1) if since else None,
        }

    def _write_row(self, env_steps: int, row: Mapping[str, float]) -> None:
        self._lease.check()
        with writing(self.folder):
            written = {**row, "run/train_seconds": self.train_seconds}
            self._writer.write(env_steps, written)
        self._tracking.write(env_steps, written)
        for watcher in self._watchers:
            watcher.wrote(env_steps, row)


def _outcome_metrics(evaluation: Evaluation) -> dict[str, float]:
    """Returns what every environment reports of an evaluation, under the same names."""
    outcomes = evaluation.outcomes
    if outcomes is None:
        return {}
    metrics = {"evaluation/episode_reward": outcomes.mean_reward}
    if outcomes.successes is not None:
        metrics["evaluation/success_rate"] = outcomes.successes / outcomes.episodes
    return metrics


def _open_folder(folder: Path, config: Config, resumed: checkpoint.Save | None) -> MetricsWriter:
    """Writes config.json and run.json, and opens the metrics.

    Rows and saves later than the checkpoint are dropped, because training repeats them.
    """
    durable.replace_text(folder / "config.json", dump_config(config))
    if resumed is None:
        provenance = checkpoint.provenance(config.seed)
        durable.replace_text(folder / "run.json", json.dumps(provenance, indent=2) + "\n")
    start = resumed or checkpoint.Save(folder, 0, {})
    checkpoint.rewind(folder / "checkpoints", start)
    checkpoint.rewind(folder / "best", start)
    return MetricsWriter(folder, resume_env_steps=resumed.env_steps if resumed else 0)


def _episodes_before(folder: Path) -> int:
    rows = read_metrics(folder / "metrics.jsonl")
    return int(max((row.get("episode/count") or 0 for row in rows), default=0))


def require_race(folder: Path, config: Config) -> None:
    """Raises UserError for a run of another environment, which has no tracks."""
    if not config.is_race:
        raise UserError(f"{folder} is a run of {config.world_label}, which has no tracks")


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Raises an OSError of the block as UserError, which names the intact checkpoint."""
    try:
        yield
    except OSError as error:
        last = checkpoint.latest(folder / "checkpoints")
        rest = f"the last good checkpoint {last.path} is intact" if last else "no checkpoint exists"
        raise UserError(f"cannot write {folder}: {reason_of(error)}; {rest}") from error
