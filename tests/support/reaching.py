"""A tiny environment that PPO learns in seconds: move a point on a line to its goal.

Registered as `reaching:Reaching-v0`, once the folder of this file is on the path.
"""

import gymnasium
import numpy as np
from gymnasium.spaces import Box

STEPS = 8


class Reaching(gymnasium.Env):
    """The observation is the way to the goal; the action moves by at most a quarter.

    The reward is 1 - |distance| for each step. An episode is a success if the point ends within
    `tolerance` of its goal.
    """

    observation_space = Box(-4.0, 4.0, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, tolerance: float = 0.2, farthest: float = 1.0, tells_success: bool = True):
        self._tolerance, self._farthest, self._tells = tolerance, farthest, tells_success
        self._way, self._steps = 0.0, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._way = float(self.np_random.uniform(-self._farthest, self._farthest))
        self._steps = 0
        return self._observation(), {}

    def step(self, action):
        self._way -= 0.25 * float(action[0])
        self._steps += 1
        is_over = self._steps == STEPS
        info = {"is_success": abs(self._way) < self._tolerance} if is_over and self._tells else {}
        return self._observation(), 1.0 - abs(self._way), is_over, False, info

    def _observation(self):
        return np.array([self._way, self._steps / STEPS], np.float32)


gymnasium.register("Reaching-v0", entry_point=Reaching, disable_env_checker=True)
