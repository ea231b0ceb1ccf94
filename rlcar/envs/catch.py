"""Catch: a tiny task with images as observations (Mnih et al. 2014; `catch` of bsuite)."""

from typing import Any

import gymnasium
import numpy as np

_ROWS, _COLUMNS, _CELL_PX = 8, 8, 2


class Catch(gymnasium.Env):
    """A ball falls, and a paddle at the bottom must catch it.

    Observation: `Box(0, 255, (16, 16, 1), uint8)`: a black image with a white ball and a white
    paddle.

    Action: `Discrete(3)`: 0 moves the paddle left, 1 keeps it, 2 moves it right.

    Reward: 1 for a caught ball and -1 for a missed one, at the end of the episode, else 0.

    End of an episode: terminated after seven steps, when the ball is at the bottom.
    """

    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode
        shape = (_ROWS * _CELL_PX, _COLUMNS * _CELL_PX, 1)
        self.observation_space = gymnasium.spaces.Box(0, 255, shape, np.uint8)
        self.action_space = gymnasium.spaces.Discrete(3)
        self._row, self._ball, self._paddle = 0, 0, _COLUMNS // 2

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Places the ball at the top of a random column."""
        super().reset(seed=seed)
        self._row, self._ball = 0, int(self.np_random.integers(_COLUMNS))
        self._paddle = _COLUMNS // 2
        return self._image(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Moves the paddle and lets the ball fall by one row."""
        self._paddle = int(np.clip(self._paddle + int(action) - 1, 0, _COLUMNS - 1))
        self._row += 1
        is_down = self._row == _ROWS - 1
        reward = (1.0 if self._ball == self._paddle else -1.0) if is_down else 0.0
        return self._image(), reward, is_down, False, {}

    def render(self) -> np.ndarray:
        """Returns the picture `[16, 16, 3]` uint8."""
        return np.repeat(self._image(), 3, axis=2)

    def _image(self) -> np.ndarray:
        cells = np.zeros((_ROWS, _COLUMNS, 1), np.uint8)
        cells[self._row, self._ball] = 255
        cells[-1, self._paddle] = 255
        return cells.repeat(_CELL_PX, axis=0).repeat(_CELL_PX, axis=1)
