"""A training's numbers for Prometheus, through the metrics endpoint of Ray's nodes."""

import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from ray.util.metrics import Gauge, Histogram

from rlcar.rollout.race import Episodes

REWARD_BOUNDS = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]
LENGTH_BOUNDS = [25.0, 50.0, 100.0, 200.0, 300.0, 400.0, 600.0, 800.0, 1000.0, 2000.0, 5000.0]


class Exported(NamedTuple):
    """A metric of ours under its name for Prometheus, to which Ray prefixes `ray_`."""

    name: str
    about: str
    part: str = ""


EXPORTED = {
    "episode/reward": Exported("rlcar_episode_reward_mean", "of the last 100 episodes"),
    "episode/lap_rate": Exported("rlcar_lap_rate", "share of laps in the last 100 episodes"),
    "evaluation/lap_rate": Exported("rlcar_evaluation_lap_rate", "share of laps on unseen tracks"),
    "actor/exploration_probability": Exported("rlcar_exploration_rate", "of random actions"),
    "actor/entropy_nats": Exported("rlcar_policy_entropy_nats", "of the policy"),
    "actor/entropy": Exported("rlcar_policy_entropy_nats", "of the policy"),
    "critic/value": Exported("rlcar_value_estimate", "mean value of the states learned from"),
    "model/loss": Exported("rlcar_loss", "of a part of the agent", "model"),
    "actor/loss": Exported("rlcar_loss", "of a part of the agent", "actor"),
    "critic/loss": Exported("rlcar_loss", "of a part of the agent", "critic"),
    "optimizer/gradient_norm": Exported("rlcar_gradient_norm", "before clipping"),
    "rollout/env_steps_per_s": Exported("rlcar_env_steps_per_second", "driven"),
    "learner/train_steps_per_s": Exported("rlcar_train_steps_per_second", "learned"),
    "learner/train_steps": Exported("rlcar_train_steps", "since the run began"),
    "learner/rollbacks": Exported("rlcar_rollbacks", "to a checkpoint, after a NaN"),
    "replay/size_env_steps": Exported("rlcar_replay_size_env_steps", "in memory"),
    "replay/age_updates": Exported("rlcar_replay_age_updates", "of what is learned from"),
    "rollout/weights_lag_updates": Exported("rlcar_weights_lag_updates", "of the newest block"),
    "cluster/simulator_restarts": Exported("rlcar_simulator_restarts", "since the driver began"),
    "cluster/learner_restarts": Exported("rlcar_learner_restarts", "since the driver began"),
    "cluster/blocks_lost": Exported("rlcar_blocks_lost", "with simulators, hosts or a learner"),
    "storage/failures": Exported("rlcar_storage_failures", "of bringing the storage up to date"),
    "cluster/simulators": Exported("rlcar_simulators", "that should run"),
    "cluster/simulators_delivering": Exported("rlcar_simulators_delivering", "blocks"),
    "learner/idle_share": Exported("rlcar_learner_idle_share", "of the last 100 blocks"),
    "cluster/simulators_busy_share": Exported("rlcar_simulators_busy_share", "of the last 10 s"),
}


class PrometheusWatcher:
    """Exports what a Run writes into metrics.jsonl, and each episode; needs Ray to be running."""

    def __init__(self, run: str):
        tags = {"run": run}
        described = {one.name: one for one in EXPORTED.values()}
        self._gauges: dict[str, Any] = {}
        for name, one in described.items():
            keys = ("run", "part") if one.part else ("run",)
            self._gauges[name] = Gauge(name, one.about, keys).set_default_tags(tags)
        self._env_steps = self._gauge("rlcar_env_steps", "since the run began", tags)
        self._written = self._gauge("rlcar_last_row_timestamp_seconds", "of metrics.jsonl", tags)
        self._saved = self._gauge("rlcar_last_checkpoint_timestamp_seconds", "of a save", tags)
        self._reward = self._histogram("rlcar_episode_reward", "of an episode", REWARD_BOUNDS, tags)
        about = "of an episode"
        self._length = self._histogram("rlcar_episode_length_env_steps", about, LENGTH_BOUNDS, tags)

    def drove(self, episodes: Episodes) -> None:
        """Counts the episodes that ended."""
        for reward, steps in zip(episodes.reward, episodes.steps, strict=True):
            # Ray takes no bounds below 0 and silently drops whatever is negative.
            self._reward.observe(max(0.0, float(reward)))
            self._length.observe(float(steps))

    def wrote(self, env_steps: int, row: Mapping[str, float]) -> None:
        """Exports a row; what is not finite keeps its last value."""
        self._env_steps.set(env_steps)
        self._written.set(time.time())
        for name, value in row.items():
            exported = EXPORTED.get(name)
            if exported is not None and math.isfinite(value):
                tags = {"part": exported.part} if exported.part else None
                self._gauges[exported.name].set(float(value), tags)

    def saved(self) -> None:
        """Exports when the newest checkpoint was complete."""
        self._saved.set(time.time())

    @staticmethod
    def _gauge(name: str, about: str, tags: dict[str, str]) -> Any:
        return Gauge(name, about, ("run",)).set_default_tags(tags)

    @staticmethod
    def _histogram(name: str, about: str, bounds: list[float], tags: dict[str, str]) -> Any:
        return Histogram(name, about, bounds, ("run",)).set_default_tags(tags)
