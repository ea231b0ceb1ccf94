"""Exports the metrics of a training to Prometheus, through the metrics endpoint of Ray's nodes."""

import math
import time
from collections.abc import Mapping
from typing import NamedTuple

from ray.util.metrics import Gauge, Histogram

from cluster.training.learner_actor import IDLE_CALLS
from rlcar.rollout.race import Episodes

REWARD_BOUNDS = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]
LENGTH_BOUNDS = [25.0, 50.0, 100.0, 200.0, 300.0, 400.0, 600.0, 800.0, 1000.0, 2000.0, 5000.0]


class Exported(NamedTuple):
    """A metric of ours under its Prometheus name, to which Ray adds the prefix `ray_`."""

    name: str
    description: str
    part: str = ""  # value of the label `part`; empty: the metric has no such label


_LOSS = "Loss of the world model, the actor or the critic."
_ENTROPY = "Entropy of the policy, in nats."
EXPORTED = {
    "episode/reward": Exported(
        "rlcar_episode_reward_mean", "Mean reward of the last 100 episodes."
    ),
    "episode/lap_rate": Exported(
        "rlcar_lap_rate", "Share of the last 100 episodes that completed the lap."
    ),
    "evaluation/lap_rate": Exported(
        "rlcar_evaluation_lap_rate", "Share of the evaluation tracks that were lapped."
    ),
    "actor/exploration_probability": Exported(
        "rlcar_exploration_rate", "Probability of a random action."
    ),
    "actor/entropy_nats": Exported("rlcar_policy_entropy_nats", _ENTROPY),
    "actor/entropy": Exported("rlcar_policy_entropy_nats", _ENTROPY),
    "critic/value": Exported(
        "rlcar_value_estimate", "Mean value of the states in the newest train step."
    ),
    "model/loss": Exported("rlcar_loss", _LOSS, "model"),
    "actor/loss": Exported("rlcar_loss", _LOSS, "actor"),
    "critic/loss": Exported("rlcar_loss", _LOSS, "critic"),
    "optimizer/gradient_norm": Exported(
        "rlcar_gradient_norm", "Norm of the gradient before clipping."
    ),
    "rollout/env_steps_per_s": Exported(
        "rlcar_env_steps_per_second", "Env steps that the simulators drive per second."
    ),
    "learner/train_steps_per_s": Exported(
        "rlcar_train_steps_per_second", "Train steps of the learner per second."
    ),
    "learner/train_steps": Exported("rlcar_train_steps", "Train steps since the run began."),
    "learner/rollbacks": Exported(
        "rlcar_rollbacks", "Returns to a checkpoint with a lower learning rate after a NaN."
    ),
    "replay/size_env_steps": Exported(
        "rlcar_replay_size_env_steps", "Env steps in the replay buffer."
    ),
    "replay/age_updates": Exported(
        "rlcar_replay_age_updates", "Train steps since the sampled data was driven."
    ),
    "rollout/weights_lag_updates": Exported(
        "rlcar_weights_lag_updates",
        "Train steps between the weights of the newest block and the learner at its arrival.",
    ),
    "cluster/simulator_restarts": Exported(
        "rlcar_simulator_restarts", "Simulators that failed and were replaced, since the command."
    ),
    "cluster/learner_restarts": Exported(
        "rlcar_learner_restarts", "Learners that failed and were replaced, since the command."
    ),
    "cluster/blocks_lost": Exported(
        "rlcar_blocks_lost", "Blocks that died with a process or a node, since the command."
    ),
    "storage/failures": Exported(
        "rlcar_storage_failures", "Failed attempts to update the object store, since the command."
    ),
    "cluster/simulators": Exported("rlcar_simulators", "Simulators that should be running."),
    "cluster/simulators_delivering": Exported(
        "rlcar_simulators_delivering", "Simulators that have delivered a block since their start."
    ),
    "learner/idle_share": Exported(
        "rlcar_learner_idle_share",
        f"Share of time that the learner waited for blocks, over its last {IDLE_CALLS} calls.",
    ),
    "cluster/simulators_busy_share": Exported(
        "rlcar_simulators_busy_share", "Share of the last 10 s that the simulators drove."
    ),
}


class PrometheusWatcher:
    """Exports the rows of metrics.jsonl as a Run writes them, and each episode.

    Ray must be running.
    """

    def __init__(self, run: str):
        self._tags = {"run": run}
        self._gauges: dict[str, Gauge] = {}
        for exported in EXPORTED.values():
            keys = ("run", "part") if exported.part else ("run",)
            if exported.name not in self._gauges:
                self._gauges[exported.name] = self._gauge(exported.name, exported.description, keys)
        self._env_steps = self._gauge("rlcar_env_steps", "Env steps since the run began.")
        self._written = self._gauge(
            "rlcar_last_row_timestamp_seconds",
            "Unix time of the newest row of metrics.jsonl, in seconds.",
        )
        self._saved = self._gauge(
            "rlcar_last_checkpoint_timestamp_seconds",
            "Unix time at which the newest checkpoint was complete, in seconds.",
        )
        self._reward = self._histogram(
            "rlcar_episode_reward", "Reward of an episode; below 0 counts as 0.", REWARD_BOUNDS
        )
        self._length = self._histogram(
            "rlcar_episode_length_env_steps", "Length of an episode, in env steps.", LENGTH_BOUNDS
        )

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

    def _gauge(self, name: str, description: str, keys: tuple[str, ...] = ("run",)) -> Gauge:
        gauge = Gauge(name, description, keys)
        gauge.set_default_tags(self._tags)
        return gauge

    def _histogram(self, name: str, description: str, bounds: list[float]) -> Histogram:
        histogram = Histogram(name, description, bounds, ("run",))
        histogram.set_default_tags(self._tags)
        return histogram
