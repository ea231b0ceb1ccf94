"""An environment whose steps take their time, for processes that must not be taken for dead.

While there is a file called `stuck` in the current folder, a step does not end.
"""

import os
import time

import gymnasium
import numpy as np

STEP_S = 0.04


class Slow(gymnasium.Env):
    """Three numbers that never change."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, step_s, episode_steps):
        self.step_s, self.episode_steps = step_s, episode_steps

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.steps += 1
        time.sleep(self.step_s)
        while os.path.exists("stuck"):
            time.sleep(0.1)
        return np.zeros(3, np.float32), 0.0, False, self.steps >= self.episode_steps, {}


gymnasium.register("TestSlow-v0", Slow, kwargs={"step_s": STEP_S, "episode_steps": 50})
gymnasium.register("TestLong-v0", Slow, kwargs={"step_s": 0.005, "episode_steps": 250})
