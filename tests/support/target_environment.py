"""A small Gymnasium environment that says whether an episode was a success, and draws itself.

A point on a line has to reach the target at 1; its only action is its speed.
"""

import gymnasium
import numpy as np
from gymnasium.spaces import Box

ID = "tests.support.target_environment:Target-v0"
SIZE_PX = (90, 120)  # height and width of a picture


class Target(gymnasium.Env):
    """Observes the position, the last speed and the target; the reward of a step is the speed."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}

    def __init__(self, render_mode=None, time_limit_steps=50, width_px=SIZE_PX[1]):
        self.observation_space, self.action_space = Box(-9.0, 9.0, (3,)), Box(-0.1, 0.1, (1,))
        self.render_mode, self._limit_steps = render_mode, time_limit_steps
        self._width_px = width_px

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._position, self._speed, self._steps = self.np_random.uniform(-1.0, 0.0), 0.0, 0
        return self._observation(), {}

    def step(self, action):
        self._speed = float(action[0])
        self._position += self._speed
        self._steps += 1
        is_there, is_late = self._position >= 1.0, self._steps >= self._limit_steps
        info = {}
        if is_there or is_late:
            info = {"is_success": is_there, "reason": "arrived" if is_there else "too late"}
        return self._observation(), self._speed, is_there, is_late, info

    def render(self):
        picture = np.full((SIZE_PX[0], self._width_px, 3), 40, np.uint8)
        column = int(np.clip((self._position + 1.0) / 2.0, 0.0, 1.0) * (self._width_px - 8))
        picture[30:60, column : column + 8] = (250, 200, 20)
        return picture

    def _observation(self):
        return np.array([self._position, self._speed, 1.0], np.float32)


if "Target-v0" not in gymnasium.registry:
    gymnasium.register(id="Target-v0", entry_point=Target)
