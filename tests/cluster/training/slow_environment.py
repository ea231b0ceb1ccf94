"""An environment whose steps take their time, for processes that must not be taken for dead."""

import time

import gymnasium
import numpy as np

STEP_S = 0.04


class Slow(gymnasium.Env):
    """Three numbers that never change; an episode has 50 steps."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.steps += 1
        time.sleep(STEP_S)
        return np.zeros(3, np.float32), 0.0, False, self.steps >= 50, {}


gymnasium.register("TestSlow-v0", Slow)
