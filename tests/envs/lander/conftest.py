"""Landers that several test files fly."""

import numpy as np
import pytest

from rlcar.envs.lander import LanderSettings
from rlcar.envs.lander.environment import make_lander


@pytest.fixture
def fly_with():
    """Returns a function that flies N landers with NumPy until every first episode has ended.

    `choose(state, observation)` returns the actions. It returns the sum of the rewards `[N]`, the
    reasons, and the figures `[N]` by name.
    """

    def fly_with(choose, landers=8, seed=0, **settings):
        lander = make_lander(LanderSettings(**settings), np)
        state, time_step = lander.reset(np.arange(landers), np.int32(seed))
        is_done = np.zeros(landers, bool)
        total = np.zeros(landers)
        reasons = np.full(landers, "", object)
        figures: dict[str, np.ndarray] = {}
        while not is_done.all():
            state, time_step, end = lander.step(state, choose(state, time_step.observation))
            total += np.where(is_done, 0.0, time_step.reward)
            is_new = time_step.is_last & ~is_done
            reasons[is_new] = np.array(lander.reasons, object)[end.reason[is_new]]
            for name, values in end.figures.items():
                figures.setdefault(name, np.zeros(landers))[is_new] = values[is_new]
            is_done |= time_step.is_last
        return total, reasons, figures

    return fly_with
