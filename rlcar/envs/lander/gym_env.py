"""The lander as a Gymnasium environment: one lander, one compiled call for each step."""

import functools
from typing import Any

import gymnasium
import jax
import numpy as np
import pydantic

from rlcar.devices.selection import disable_async_dispatch
from rlcar.envs.lander.dynamics import ACTION_SIZE
from rlcar.envs.lander.environment import LanderState, make_lander
from rlcar.envs.lander.settings import LanderSettings
from rlcar.errors import ConfigError
from rlcar.types import CompiledEnvironment


class LanderEnv(gymnasium.Env):
    """A lander must touch down softly and upright on a pad on the Moon."""

    metadata: dict[str, Any] = {"render_modes": [], "render_fps": 10}

    def __init__(self, render_mode: str | None = None, **settings: Any):
        self.settings = settings_of(settings)
        disable_async_dispatch()
        self.render_mode = render_mode
        self._functions = compiled(self.settings)
        size = self._functions.spec.observation_size
        self.observation_space = gymnasium.spaces.Box(-4.0, 4.0, (size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (ACTION_SIZE,), np.float32)
        self._state: LanderState | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts the next episode."""
        super().reset(seed=seed)
        word = np.int32(self.np_random.integers(2**31))
        self._state, time_step = self._functions.reset(np.zeros(1, np.int32), word)
        return np.array(time_step.observation[0]), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Flies one step."""
        action = np.asarray(action, np.float32)[None]
        self._state, time_step, end = self._functions.step(self._state, action)
        is_last = bool(time_step.is_last[0])
        info: dict[str, Any] = {}
        if is_last:
            info = {
                "reason": self._functions.reasons[int(end.reason[0])],
                "is_success": bool(end.is_success[0]),
                **{name: float(value[0]) for name, value in end.figures.items()},
            }
        return np.array(time_step.observation[0]), float(time_step.reward[0]), is_last, False, info


def settings_of(arguments: dict[str, Any]) -> LanderSettings:
    """Returns the settings of keyword arguments; raises ConfigError with one sentence."""
    try:
        return LanderSettings(**arguments)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{name} = {first['input']!r}: {first['msg']}") from error


@functools.lru_cache(maxsize=16)
def compiled(settings: LanderSettings) -> CompiledEnvironment:
    """Returns the compiled functions; environments with equal settings share them."""
    functions = make_lander(settings)
    return functions._replace(reset=jax.jit(functions.reset), step=jax.jit(functions.step))
