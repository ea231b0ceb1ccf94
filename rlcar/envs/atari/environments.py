"""N Atari games as a source of time steps: what all back ends have in common."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from rlcar.config import EnvironmentConfig
from rlcar.envs.atari.ale import AleEmulators
from rlcar.envs.atari.emulators import Emulators, Screens
from rlcar.envs.atari.envpool import EnvPoolEmulators
from rlcar.envs.atari.single import SingleEmulators
from rlcar.envs.frame_stack import FrameStack
from rlcar.errors import NonFiniteError
from rlcar.system import heartbeat
from rlcar.types import Spec, TimeStep

_BACKENDS: dict[str, Callable[[EnvironmentConfig, Sequence[int]], Emulators]] = {
    "ale": AleEmulators,
    "envpool": EnvPoolEmulators,
    "gymnasium": SingleEmulators,
}
_IDLE = 0  # the action that does nothing


class AtariEnvironments:
    """N Atari games that step together; see `rlcar.envs.vector.VectorEnvironment`."""

    def __init__(self, config: EnvironmentConfig, seeds: Sequence[int], *, is_training: bool):
        """Starts one game for each seed; raises ConfigError if the back end cannot make it."""
        atari, frames = config.atari, config.frame_stack or 1
        self._clips_rewards = is_training and atari.reward_clipping
        self._ends_with_a_life = is_training and atari.life_loss_ends_episode
        self._emulators: Emulators | None = _BACKENDS[config.backend or "ale"](config, seeds)
        self._stack = FrameStack(frames)
        screens = self._emulators.reset()
        height_px, width_px, channels = screens.image.shape[1:]
        self.spec = Spec(
            0, self._emulators.action_count, True, (height_px, width_px, channels * frames)
        )
        self.success: list[bool | None] = [None] * len(seeds)  # no game says so
        self._lives = screens.lives
        self._goes_on = np.zeros(len(seeds), bool)  # a life was lost, and not the game
        is_first = np.ones(len(seeds), bool)
        self.now = self._time_step(screens, screens.reward, is_first, ~is_first, ~is_first)

    @contextlib.contextmanager
    def driving(self) -> Iterator[None]:
        """Does nothing, because the emulators have generators of their own."""
        yield

    def step(self, action: np.ndarray) -> None:
        """Steps every game with its one-hot row of `action` `[N, A]`."""
        assert self._emulators is not None, "closed"
        heartbeat.beat()
        if not np.isfinite(action).all():
            raise NonFiniteError(f"the policy chose the action {action.tolist()}")
        is_first = self.now.is_last
        choice = np.where(self._goes_on, _IDLE, action.argmax(axis=1)).astype(np.int32)
        screens = self._emulators.step(choice)
        is_over = screens.is_over
        is_terminal = is_over & ~screens.is_cut
        is_last = is_over | screens.is_cut
        self._goes_on = np.zeros_like(is_last)
        if self._ends_with_a_life:
            self._goes_on = (screens.lives < self._lives) & ~is_last & ~is_first
        self._lives = screens.lives
        reward = np.where(is_first, 0.0, screens.reward)
        if self._clips_rewards:
            reward = np.clip(reward, -1.0, 1.0)
        self.now = self._time_step(
            screens, reward, is_first, is_last | self._goes_on, is_terminal | self._goes_on
        )

    def close(self) -> None:
        """Ends the emulators; a second call does nothing."""
        emulators, self._emulators = self._emulators, None
        if emulators is not None:
            emulators.close()

    def _time_step(
        self,
        screens: Screens,
        reward: np.ndarray,
        is_first: np.ndarray,
        is_last: np.ndarray,
        is_terminal: np.ndarray,
    ) -> TimeStep:
        return TimeStep(
            np.zeros((len(is_first), 0), np.float32),
            reward.astype(np.float32),
            is_first,
            is_last,
            is_terminal,
            self._stack.push(screens.image, is_first),
        )
