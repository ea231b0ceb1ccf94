"""Exports the metrics of a training to Prometheus, through the metrics endpoint of Ray's nodes."""

import math
import time
from collections.abc import Mapping
from typing import NamedTuple

from ray.util.metrics import Gauge, Histogram

from rlcar.rollout.race import Episodes
from rlcar.runs.metric_table import METRICS

REWARD_BOUNDS = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]
LENGTH_BOUNDS = [25.0, 50.0, 100.0, 200.0, 300.0, 400.0, 600.0, 800.0, 1000.0, 2000.0, 5000.0]


class Exported(NamedTuple):
    """The name of a metric for Prometheus, to which Ray prefixes `ray_`, and its description.

    Several metrics may share a name if their `part` differs, or if no agent has more than one.
    """

    name: str
    description: str
    part: str = ""


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
ENV_STEPS = Exported("rlcar_env_steps", METRICS["env_steps"].meaning)
LAST_ROW = Exported("rlcar_last_row_timestamp_seconds", "Unix time of the newest row of metrics.")
LAST_CHECKPOINT = Exported(
    "rlcar_last_checkpoint_timestamp_seconds", "Unix time of the newest complete checkpoint."
)
EPISODE_REWARD = Exported(
    "rlcar_episode_reward", "Histogram of the rewards of episodes; a negative one counts as 0."
)
EPISODE_LENGTH = Exported("rlcar_episode_length_env_steps", "Histogram of the lengths of episodes.")
# The metrics that are not in a row.
OTHERS = (ENV_STEPS, LAST_ROW, LAST_CHECKPOINT, EPISODE_REWARD, EPISODE_LENGTH)


class PrometheusWatcher:
    """Exports the rows of metrics.jsonl as a Run writes them, and each episode.

    Ray must be running.
    """

    def __init__(self, run: str):
        self._tags = {"run": run}
        by_name = {exported.name: exported for exported in EXPORTED.values()}
        self._gauges = {name: self._gauge(exported) for name, exported in by_name.items()}
        self._env_steps = self._gauge(ENV_STEPS)
        self._written = self._gauge(LAST_ROW)
        self._saved = self._gauge(LAST_CHECKPOINT)
        self._reward = self._histogram(EPISODE_REWARD, REWARD_BOUNDS)
        self._length = self._histogram(EPISODE_LENGTH, LENGTH_BOUNDS)

    def drove(self, episodes: Episodes) -> None:
        """Adds the episodes that ended to the histograms."""
        for reward, env_steps in zip(episodes.reward, episodes.steps, strict=True):
            # Ray accepts no bounds below 0 and silently drops negative values.
            self._reward.observe(max(0.0, float(reward)))
            self._length.observe(float(env_steps))

    def wrote(self, env_steps: int, row: Mapping[str, float]) -> None:
        """Exports a row; a metric that is not finite keeps its last value."""
        self._env_steps.set(env_steps)
        self._written.set(time.time())
        for name, value in row.items():
            exported = EXPORTED.get(name)
            if exported is not None and math.isfinite(value):
                tags = {"part": exported.part} if exported.part else {}
                self._gauges[exported.name].set(float(value), tags)

    def saved(self) -> None:
        """Exports the time at which the newest checkpoint was complete."""
        self._saved.set(time.time())

    def _gauge(self, exported: Exported) -> Gauge:
        keys = ("run", "part") if exported.part else ("run",)
        gauge = Gauge(exported.name, exported.description, keys)
        gauge.set_default_tags(self._tags)
        return gauge

    def _histogram(self, exported: Exported, bounds: list[float]) -> Histogram:
        histogram = Histogram(exported.name, exported.description, bounds, ("run",))
        histogram.set_default_tags(self._tags)
        return histogram
