"""What a training exports to Prometheus: one table for every way in which it is exported.

A training exports these metrics at a port of its own (`rlcar.runs.exporter`), or through Ray, which
prefixes `ray_` to each name (`cluster.training.prometheus`). The scrape configurations in
`deploy/monitoring` remove that prefix, so that alert rules and dashboards know one name.
"""

import contextlib
import math
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from rlcar.config import Config
from rlcar.runs import stage_note
from rlcar.runs.metric_table import METRICS
from rlcar.runs.stage_note import StageNote
from rlcar.system import heartbeat
from rlcar.system.host_metrics import HOST, Exported, host_values

if TYPE_CHECKING:
    from rlcar.rollout.compiled import Episodes

REWARD_BOUNDS = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]
LENGTH_BOUNDS = [25.0, 50.0, 100.0, 200.0, 300.0, 400.0, 600.0, 800.0, 1000.0, 2000.0, 5000.0]
TICK_S = 5.0  # between two exports of what changes by itself: time, memory, disk

_NAMES = {
    "episode/reward": "rlcar_episode_reward_mean",
    "episode/lap_rate": "rlcar_lap_rate",
    "evaluation/lap_rate": "rlcar_evaluation_lap_rate",
    "actor/exploration_probability": "rlcar_exploration_rate",
    "critic/value": "rlcar_value_estimate",
    "optimizer/gradient_norm": "rlcar_gradient_norm",
    "rollout/env_steps_per_s": "rlcar_env_steps_per_second",
    "learner/train_steps_per_s": "rlcar_train_steps_per_second",
    "learner/train_steps": "rlcar_train_steps",
    "learner/rollbacks": "rlcar_rollbacks",
    "replay/size_env_steps": "rlcar_replay_size_env_steps",
    "replay/age_updates": "rlcar_replay_age_updates",
    "rollout/weights_lag_updates": "rlcar_weights_lag_updates",
    "cluster/simulator_restarts": "rlcar_simulator_restarts",
    "cluster/learner_restarts": "rlcar_learner_restarts",
    "cluster/blocks_lost": "rlcar_blocks_lost",
    "storage/failures": "rlcar_storage_failures",
    "cluster/simulators": "rlcar_simulators",
    "cluster/simulators_delivering": "rlcar_simulators_delivering",
    "learner/idle_share": "rlcar_learner_idle_share",
    "cluster/simulators_busy_share": "rlcar_simulators_busy_share",
}
_ENTROPY = Exported("rlcar_policy_entropy_nats", "Mean entropy of the policy.")
_LOSS = "Loss of a part of the agent."

# metric of a row -> how it is exported
EXPORTED = {
    **{metric: Exported(name, METRICS[metric].meaning) for metric, name in _NAMES.items()},
    "actor/entropy_nats": _ENTROPY,
    "actor/entropy": _ENTROPY,
    "model/loss": Exported("rlcar_loss", _LOSS, "model"),
    "actor/loss": Exported("rlcar_loss", _LOSS, "actor"),
    "critic/loss": Exported("rlcar_loss", _LOSS, "critic"),
}
CURRICULUM_STAGE = Exported("rlcar_curriculum_stage", "Stage of the curriculum, from 1.")
CURRICULUM_ATTEMPT = Exported(
    "rlcar_curriculum_attempt", "Attempt of the present visit of the stage, from 1."
)
CURRICULUM_SUCCESS = Exported(
    "rlcar_curriculum_success_threshold", "Success rate that the stage demands."
)
CURRICULUM_REWARD = Exported(
    "rlcar_curriculum_reward_threshold", "Mean reward that the stage demands."
)
CURRICULUM_REGRESSIONS = Exported(
    "rlcar_curriculum_regressions",
    "Returns to an earlier stage since the curriculum of the run began.",
)
ENV_STEPS = Exported("rlcar_env_steps", METRICS["env_steps"].meaning)
TOTAL_ENV_STEPS = Exported("rlcar_planned_env_steps", "Env steps at which the training ends.")
LAST_ROW = Exported("rlcar_last_row_timestamp_seconds", "Unix time of the newest row of metrics.")
LAST_CHECKPOINT = Exported(
    "rlcar_last_checkpoint_timestamp_seconds", "Unix time of the newest complete checkpoint."
)
CHECKPOINT_INTERVAL = Exported(
    "rlcar_checkpoint_interval_seconds", "Time between two checkpoints, as the settings demand it."
)
STARTED = Exported("rlcar_started_timestamp_seconds", "Unix time at which the process started.")
ACTIVE = Exported("rlcar_training_active", "1 while a process trains the run, 0 after its end.")
HEARTBEAT = Exported(
    "rlcar_heartbeat_timestamp_seconds",
    "Unix time at which the process last reported that it runs; it stands still while it is "
    "stopped.",
)
LAST_PROGRESS = Exported(
    "rlcar_last_progress_timestamp_seconds",
    "Unix time at which the work last made progress: an env step, a block, a train step.",
)
PATIENCE = Exported(
    "rlcar_stage_patience_seconds",
    "How long the present stage, such as compiling, may go without progress.",
)
NON_FINITE = Exported(
    "rlcar_non_finite_errors",
    "Times that a NaN or an infinity interrupted the training since its process started.",
)
EPISODE_REWARD = Exported(
    "rlcar_episode_reward",
    "Histogram of the rewards of episodes; a negative one counts as 0.",
    bounds=tuple(REWARD_BOUNDS),
)
EPISODE_LENGTH = Exported(
    "rlcar_episode_length_env_steps",
    "Histogram of the lengths of episodes.",
    bounds=tuple(LENGTH_BOUNDS),
)
# The metrics that are not in a row.
OTHERS = (
    *(ENV_STEPS, TOTAL_ENV_STEPS, LAST_ROW, LAST_CHECKPOINT, CHECKPOINT_INTERVAL, STARTED, ACTIVE),
    *(HEARTBEAT, LAST_PROGRESS, PATIENCE, NON_FINITE),
    *(CURRICULUM_STAGE, CURRICULUM_ATTEMPT, CURRICULUM_SUCCESS, CURRICULUM_REWARD),
    CURRICULUM_REGRESSIONS,
    *HOST,
    *(EPISODE_REWARD, EPISODE_LENGTH),
)
# One for each name; the parts of a loss share theirs.
FAMILIES = tuple({one.name: one for one in (*EXPORTED.values(), *OTHERS)}.values())


class Sink(Protocol):
    """Where values go: Ray's metrics or a registry of prometheus_client."""

    def set(self, metric: Exported, value: float) -> None:
        """Sets a gauge."""

    def observe(self, metric: Exported, value: float) -> None:
        """Adds a value to a histogram."""


class ExportingWatcher:
    """Exports the rows of metrics.jsonl as a Run writes them, each episode, and signs of life.

    A value that is not finite is not exported, and the gauge keeps its last value: with a NaN every
    comparison in an alert rule would be false. `rlcar_non_finite_errors` counts such events.
    """

    def __init__(self, sink: Sink, config: Config, folder: Path):
        self._sink, self._folder = sink, folder
        self._values: dict[tuple[str, str], tuple[Exported, float]] = {}  # by name and part
        self._non_finite = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tick_regularly, daemon=True, name="exporter")
        self._set(STARTED, time.time())
        self._set(TOTAL_ENV_STEPS, config.training.env_steps)
        self._set(CHECKPOINT_INTERVAL, config.training.checkpoint_every_s)
        self._set(NON_FINITE, 0)
        for metric, value in exported_of_note(stage_note.read(folder)):
            self._set(metric, value)

    def __enter__(self) -> Self:
        self._set(ACTIVE, 1)
        self._tick()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()
        self._set(ACTIVE, 0)

    def drove(self, episodes: "Episodes") -> None:
        """Adds the episodes that ended to the histograms."""
        for reward, env_steps in zip(episodes.reward, episodes.steps, strict=True):
            # Ray accepts no bounds below 0 and silently drops negative values.
            self._sink.observe(EPISODE_REWARD, max(0.0, float(reward)))
            self._sink.observe(EPISODE_LENGTH, float(env_steps))

    def wrote(self, env_steps: int, row: Mapping[str, float]) -> None:
        """Exports a row; a metric that is not finite keeps its last value."""
        self._set(ENV_STEPS, env_steps)
        self._set(LAST_ROW, time.time())
        for metric, value in exported_of(row):
            self._set(metric, value)

    def saved(self) -> None:
        """Exports the time at which the newest checkpoint was complete."""
        self._set(LAST_CHECKPOINT, time.time())

    def diverged(self) -> None:
        """Counts a NaN or an infinity that interrupted the training."""
        self._non_finite += 1
        self._set(NON_FINITE, self._non_finite)

    def _tick_regularly(self) -> None:
        while not self._over.wait(TICK_S):
            self._tick()

    def _set(self, metric: Exported, value: float) -> None:
        self._values[metric.name, metric.part] = metric, value
        self._sink.set(metric, value)

    def _tick(self) -> None:
        # Ray forgets a gauge after it was read, so that one that is set only once would disappear.
        for metric, value in list(self._values.values()):
            self._sink.set(metric, value)
        for metric, value in signs_of_life():
            self._set(metric, value)
        with contextlib.suppress(OSError):  # a disk that is gone: the next tick tries again
            for metric, value in host_values(self._folder):
                self._set(metric, value)


def exported_of(row: Mapping[str, object]) -> Iterator[tuple[Exported, float]]:
    """Yields what a row of metrics exports, without values that are not finite."""
    for name, value in row.items():
        metric = EXPORTED.get(name)
        if metric is not None and isinstance(value, int | float) and math.isfinite(value):
            yield metric, float(value)


def exported_of_note(note: StageNote | None) -> Iterator[tuple[Exported, float]]:
    """Yields the place of a run in its curriculum, and its thresholds; nothing without one."""
    if note is None:
        return
    yield CURRICULUM_STAGE, note.stage
    yield CURRICULUM_ATTEMPT, note.attempt
    yield CURRICULUM_REGRESSIONS, note.regressions
    if note.success_rate is not None:
        yield CURRICULUM_SUCCESS, note.success_rate
    if note.mean_reward is not None:
        yield CURRICULUM_REWARD, note.mean_reward


def signs_of_life() -> Iterator[tuple[Exported, float]]:
    """Yields when this process was last alive and made progress, and its stage's patience."""
    stage, silent_s = heartbeat.sign_of_life()
    now_s = time.time()
    yield HEARTBEAT, now_s
    yield LAST_PROGRESS, now_s - silent_s
    yield PATIENCE, heartbeat.patience_s(stage)
