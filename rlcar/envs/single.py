"""One Gymnasium environment for programs that watch a policy: results of episodes, and pictures."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rlcar.config import EnvironmentConfig
from rlcar.envs.adapter import make_adapter
from rlcar.envs.environments import faults_as_user_errors
from rlcar.envs.faults import FaultError, checked_reset, checked_step
from rlcar.envs.making import close_environment, make_environment
from rlcar.types import Spec

PICTURE = "rgb_array"  # the render mode of Gymnasium that returns pictures
_DEFAULT_FRAMES_PER_S = 30.0
_FRAMES_PER_S = (1.0, 60.0)  # what an environment may ask for


class SingleStep(NamedTuple):
    """What one step of an environment led to."""

    observation: np.ndarray  # [O] float32
    reward: float
    is_terminal: bool
    is_truncated: bool
    # Of the episode, at its last step; None where the environment does not say it.
    is_success: bool | None
    reason: str | None

    @property
    def is_last(self) -> bool:
        """Whether the episode has ended."""
        return self.is_terminal or self.is_truncated


class SingleEnvironment:
    """Steps one environment; the caller must close it.

    Whether an episode was a success comes from `is_success` of the last step's info, and how it
    ended from `reason`. Faults of the environment's code are raised as UserError.
    """

    def __init__(self, config: EnvironmentConfig, seed: int, *, draws: bool = False):
        """`draws` makes an environment that `picture` can draw.

        Raises ConfigError if there is no such environment, or if it cannot be used.
        """
        self.name = config.id
        self._seed: int | None = seed
        self._env = make_environment(config, PICTURE if draws else None)
        try:
            self._adapter = make_adapter(config, self._env)
        except BaseException:
            self.close()
            raise

    @property
    def spec(self) -> Spec:
        """The sizes of its observations and actions."""
        return self._adapter.spec

    @property
    def frames_per_s(self) -> float:
        """The rate at which the environment's pictures look right."""
        rate = self._env.metadata.get("render_fps") or _DEFAULT_FRAMES_PER_S
        return float(np.clip(rate, *_FRAMES_PER_S))

    def reset(self) -> np.ndarray:
        """Begins the next episode; returns its first observation `[O]` float32."""
        with faults_as_user_errors(self.name):
            # Only the first reset is seeded: the seed determines all episodes.
            seed, self._seed = self._seed, None
            return self._adapter.vector(checked_reset(self._env.reset(seed=seed)))

    def step(self, action: np.ndarray) -> SingleStep:
        """Steps with an action `[A]` as a policy chooses it."""
        with faults_as_user_errors(self.name):
            result = self._env.step(self._adapter.action(action))
            observation, reward, is_terminal, is_truncated = checked_step(result)
            info = result[4] if isinstance(result[4], Mapping) else {}
            is_last = is_terminal or is_truncated
            return SingleStep(
                self._adapter.vector(observation),
                reward,
                is_terminal,
                is_truncated,
                _flag(info.get("is_success")) if is_last else None,
                _text(info.get("reason")) if is_last else None,
            )

    def picture(self) -> np.ndarray:
        """Returns the scene `[height, width, 3]` uint8; raises UserError if there is none."""
        with faults_as_user_errors(self.name):
            picture = np.asarray(self._env.render())
            if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
                raise FaultError(
                    f"drew an array of shape {list(picture.shape)} and type {picture.dtype}: "
                    f"{PICTURE} pictures are [height, width, 3] uint8"
                )
            return picture

    def close(self) -> None:
        """Closes the environment."""
        close_environment(self._env, self.name)


def _flag(value: Any) -> bool | None:
    return bool(value) if isinstance(value, bool | np.bool_ | int) else None


def _text(value: Any) -> str | None:
    return value[:100] if isinstance(value, str) else None
