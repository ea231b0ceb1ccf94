"""The interface of a back end: N emulators of one game that step together."""

from typing import NamedTuple, Protocol

import numpy as np

from rlcar.config import EnvironmentConfig

# Half an hour of play at 60 frames a second, the usual limit (Machado et al. 2018).
_LONGEST_GAME_FRAMES = 108_000
DEFAULT_SIZE_PX = 64


class Screens(NamedTuple):
    """The result of a step of N emulators."""

    image: np.ndarray  # [N, height, width, 1 or 3] uint8
    reward: np.ndarray  # [N] float32, as the game counts it
    is_over: np.ndarray  # [N] bool, the game has ended
    is_cut: np.ndarray  # [N] bool, the time limit has ended it
    lives: np.ndarray  # [N] int32; 0 in games without lives


class Emulators(Protocol):
    """N emulators. One whose game has ended or was cut ignores the next action and starts again."""

    action_count: int  # action 0 does nothing

    def reset(self) -> Screens:
        """Starts all games."""

    def step(self, action: np.ndarray) -> Screens:
        """Repeats each action of `[N]` int32 for `frame_skip` frames."""

    def close(self) -> None:
        """Ends the emulators."""


def side_px(config: EnvironmentConfig) -> int:
    """Returns the side of the square to which the screen is scaled."""
    return config.image_size_px or DEFAULT_SIZE_PX


def time_limit_steps(config: EnvironmentConfig) -> int:
    """Returns the number of env steps after which a game is cut off."""
    return config.time_limit_steps or max(1, _LONGEST_GAME_FRAMES // config.atari.frame_skip)
