"""Environments that step together, whatever makes them: the protocol, and the choice of a back end.

Three back ends exist for Atari games, which `rlcar.envs.atari` describes; every other environment
is a list of single Gymnasium environments. Rollouts, evaluations and recordings use this module
alone.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from typing import Protocol

import numpy as np

from rlcar.config import EnvironmentConfig
from rlcar.envs.adapter import make_adapter
from rlcar.envs.atari import AtariEnvironments, is_atari_game
from rlcar.envs.environments import Environments
from rlcar.envs.frame_stack import stacked_spec
from rlcar.envs.making import close_environment, make_environment
from rlcar.types import Spec, TimeStep


class VectorEnvironment(Protocol):
    """N environments that step together.

    An environment whose episode has ended ignores the next action and returns the first time step
    of its next episode. The caller must close the environments, also after an error.
    """

    spec: Spec
    now: TimeStep  # the latest one; after construction the first of the first episodes
    # [N], whether the episodes that the latest step ended were successes; None where the
    # environment did not say.
    success: list[bool | None]

    def driving(self) -> AbstractContextManager[None]:
        """Installs the random state that some environments draw from; `step` needs it."""

    def step(self, action: np.ndarray) -> None:
        """Steps every environment with its row of `action` `[N, A]`, and replaces `now`.

        Raises UserError for a fault of an environment and NonFiniteError for an action that is not
        finite.
        """

    def close(self) -> None:
        """Releases what the environments hold; a second call does nothing."""


def make_vector(
    config: EnvironmentConfig, seeds: Sequence[int], *, is_training: bool = False
) -> VectorEnvironment:
    """Makes and resets one environment for each seed.

    Only environments for training clip rewards and end episodes where the config says so; an
    evaluation measures whole games. Raises ConfigError if the environment cannot be made.
    """
    if is_atari_game(config):
        return AtariEnvironments(config, seeds, is_training=is_training)
    return Environments(config, seeds)


def environment_spec(config: EnvironmentConfig) -> Spec:
    """Returns the spec of an environment; raises ConfigError if it is not usable."""
    if is_atari_game(config):
        with closing(AtariEnvironments(config, [1], is_training=False)) as environments:
            return environments.spec
    env = make_environment(config)
    try:
        return stacked_spec(make_adapter(config, env).spec, config.frame_stack or 1)
    finally:
        close_environment(env, config.id)
