"""The descriptor of a kind of environment: everything that training asks about it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rlcar.config import Config
from rlcar.rollout.compiled import Episodes
from rlcar.types import Evaluation, Params, Policy, Spec, Trajectory, Weights

# Beyond the tracks, seeds and indices of trainings, evaluations and reports. A compiled environment
# takes the first seed as an index and counts on from there.
FIRST_FRESH_SEED, LAST_FRESH_SEED = 2**30 + 2**25, 2**31 - 2**17

ShouldStop = Callable[[], bool]
Evaluate = Callable[[Params], Evaluation | None]


class EnvironmentRollout(Protocol):
    """N environments of one kind; the policy drives them block by block."""

    def collect(self, weights: Weights) -> tuple[Trajectory, Episodes]:
        """Drives one block `[T, N]`; may raise RolloutStoppedError."""

    def saved(self) -> dict[str, np.ndarray]:
        """Returns the state for a checkpoint; empty if the environments cannot be saved."""

    def restore(self, saved: dict[str, np.ndarray]) -> None:
        """Continues from what `saved` returned."""

    def close(self) -> None:
        """Releases what the environments hold."""


@dataclass(frozen=True, kw_only=True)
class EnvironmentKind:
    """Describes one kind of environment; `rlcar/evaluation/environment` lists them all."""

    name: str
    # Whether a config trains in this kind. The first kind of the table that says so is used.
    is_chosen: Callable[[Config], bool]
    # What an agent must know; raises ConfigError if the environment does not exist.
    spec_of: Callable[[Config], Spec]
    # (config, policy, first_car, restart_id, should_stop): see `make_rollout`.
    make_rollout: Callable[[Config, Policy, int, int, ShouldStop], EnvironmentRollout]
    # (config, policy, should_stop, on_share): see `make_evaluation`.
    make_evaluation: Callable[[Config, Policy, ShouldStop, Callable[[float], None]], Evaluate]
    # (config, policy, seeds, should_stop): evaluates in one episode for each seed. Seeds from
    # `FIRST_FRESH_SEED` on are of episodes that no training and no other evaluation drives.
    make_fresh_evaluation: Callable[[Config, Policy, Sequence[int], ShouldStop], Evaluate]
    # (config, success rate) -> why no policy can reach it, with the numbers; empty if one may.
    infeasibility: Callable[[Config, float], str]
    # Settings that change rewards, by dotted name: a learner notices when they change.
    reward_settings: Callable[[Config], Mapping[str, object]] = lambda config: {}
    # Whether a simulator process must call `close` before it ends.
    must_close: bool
    # Whether its rollout is a `rlcar.rollout.compiled.Rollout`, so that driving and learning can be
    # one compiled program (`training.blocks_per_call`).
    is_compiled: bool = False
