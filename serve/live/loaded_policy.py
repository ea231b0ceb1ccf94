"""A loaded policy, and the same policy with the memory of one car."""

from typing import NamedTuple

import numpy as np

from rlcar.config.race import RaceConfig
from rlcar.errors import UserError
from rlcar.registry import Model
from rlcar.types import TimeStep
from serve.policy.policy import NumpyPolicy


class LoadedPolicy(NamedTuple):
    """A loaded policy, and what is needed to publish it."""

    label: str
    version: int | None  # None: not published, such as a save of a run
    policy: NumpyPolicy
    model: Model
    report: dict[str, object] | None = None

    @property
    def race(self) -> RaceConfig:
        """The race in which the policy was trained."""
        return self.policy.config.race

    @property
    def environment(self) -> str:
        """The id of the environment in which the policy was trained; empty for the race."""
        return self.policy.config.environment.id

    @property
    def env_steps(self) -> int | None:
        """The env steps of training after which the policy was saved, if they are known."""
        return self.model.version.metadata["lineage"].get("env_steps")


class StatefulPolicy:
    """A policy that drives one car, with the recurrent state of that car."""

    def __init__(self, loaded: LoadedPolicy):
        self.loaded = loaded
        self._state = loaded.policy.initial_state(1)

    def act(self, time_step: TimeStep) -> np.ndarray:
        """Returns the action `[2]`; `time_step.is_first` resets the state."""
        action, self._state = self.loaded.policy.act(
            self._state, time_step.observation, time_step.is_first
        )
        return action[0]

    def record_action(self, action: np.ndarray) -> None:
        """Records the action that the car really took: a person may have driven instead."""
        if self.latent is not None:  # the world model's state: recurrent, latent, last action
            self._state = (*self._state[:2], np.asarray(action, np.float32)[None])

    def replace(self, loaded: LoadedPolicy) -> None:
        """Continues with another policy; the state is kept if that has the same shapes."""
        initial = loaded.policy.initial_state(1)
        if [part.shape for part in initial] != [part.shape for part in self._state]:
            self._state = initial
        self.loaded = loaded

    @property
    def latent(self) -> np.ndarray | None:
        """The world model's latent state `[S, K]`, if there is one."""
        latent = self.loaded.policy.latent(self._state)
        return None if latent is None else latent[0]


def first_action(loaded: LoadedPolicy, observation: list[float]) -> list[float]:
    """Returns a policy's action at the first step of an episode.

    Raises UserError if the observation has another size.
    """
    policy = loaded.policy
    if len(observation) != policy.observation_size:
        raise UserError(
            f"the observation has {len(observation)} numbers: {loaded.label} needs "
            f"{policy.observation_size}"
        )
    batch = np.array([observation], np.float32)
    action, _ = policy.act(policy.initial_state(1), batch, np.ones(1, bool))
    return [float(x) for x in action[0]]
