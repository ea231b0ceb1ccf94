"""The lander as a Gymnasium vector environment: N landers, one compiled call for each step."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from rlcar.devices.selection import disable_async_dispatch
from rlcar.envs.lander.dynamics import ACTION_SIZE
from rlcar.envs.lander.environment import LanderState
from rlcar.envs.lander.gym_env import compiled, settings_of
from rlcar.envs.lander.observation import box_of
from rlcar.errors import ConfigError
from rlcar.types import EpisodeEnd


class LanderVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """N landers with the spaces, rewards and settings of `LanderEnv`.

    With `autoreset_mode` NEXT_STEP (the default) the step after the end of an episode ignores the
    action and starts the next episode, with reward 0. With SAME_STEP the step that ends an episode
    returns the first observation of the next episode, and `infos["final_obs"]` contains the last.

    `infos` contains, in steps in which episodes end and each with its mask `_name`, the figures of
    `LanderEnv`, `is_success` and `reason`, and with SAME_STEP `final_obs` (object array).

    `reset(seed=...)` determines everything that follows; a list gives each lander its own seed.
    Lander i flies the same episodes for any number of landers. A NaN action is a ValueError.

    Like `LanderEnv`, it turns off JAX's asynchronous dispatch on the CPU.
    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(
        self,
        num_envs: int = 1,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        **settings: Any,
    ):
        if isinstance(num_envs, bool) or not isinstance(num_envs, int) or num_envs < 1:
            raise ConfigError(f"num_envs = {num_envs!r}: give a positive whole number")
        mode = AutoresetMode(autoreset_mode)
        if mode == AutoresetMode.DISABLED:
            raise ConfigError(
                "autoreset_mode = Disabled is not possible, because landers reset by themselves: "
                "use NextStep or SameStep"
            )
        self.settings = settings_of(settings)
        self.num_envs = num_envs
        disable_async_dispatch()
        self._functions = compiled(self.settings)
        self.single_observation_space = box_of(self.settings)
        self.single_action_space = gymnasium.spaces.Box(-1.0, 1.0, (ACTION_SIZE,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = {**self.metadata, "autoreset_mode": mode}
        self._is_same_step = mode == AutoresetMode.SAME_STEP
        self._state: LanderState | None = None

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts a new episode of every lander."""
        super().reset(seed=seed if isinstance(seed, int) else None)
        seeds = list(seed) if isinstance(seed, Sequence) else [seed] * self.num_envs
        if len(seeds) != self.num_envs:
            raise ValueError(
                f"there are {len(seeds)} seeds for {self.num_envs} landers: give one for each"
            )
        drawn = int(self.np_random.integers(2**31))
        words = np.array([drawn if number is None else number for number in seeds], np.int64)
        index = np.arange(self.num_envs, dtype=np.int32)
        if isinstance(seed, Sequence):
            index = np.zeros_like(index)  # Then the episodes depend on the lander's own seed alone.
        self._state, time_step = self._functions.reset(index, (words & 0x7FFFFFFF).astype(np.int32))
        return np.array(time_step.observation), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Flies every lander one step."""
        if self._state is None:
            raise gymnasium.error.ResetNeeded("call reset() before step(): no episode is running")
        actions = np.asarray(actions, np.float32)
        if actions.shape != self.action_space.shape:
            raise ValueError(
                f"the actions have the shape {actions.shape}: pass an array of the shape "
                f"{self.action_space.shape}"
            )
        if np.isnan(actions).any():
            landers = np.flatnonzero(np.isnan(actions).any(axis=1)).tolist()
            raise ValueError(
                f"the actions of the landers {landers[:8]} contain a NaN: pass finite numbers in "
                "[-1, 1]; usually the parameters or the inputs of the policy are not finite"
            )
        self._state, time_step, end = self._functions.step(self._state, actions)
        observation = np.array(time_step.observation)  # a copy, into which callers may write
        reward, is_last = np.array(time_step.reward), np.array(time_step.is_last)
        infos = self._infos(end, is_last) if is_last.any() else {}
        if self._is_same_step and is_last.any():
            final_obs = np.full(self.num_envs, None, dtype=object)
            for lander in np.flatnonzero(is_last):
                final_obs[lander] = observation[lander].copy()
            infos |= {"final_obs": final_obs, "_final_obs": is_last}
            observation = self._restart(actions, is_last, observation)
        return observation, reward, is_last, np.zeros_like(is_last), infos

    def _infos(self, end: EpisodeEnd, is_last: np.ndarray) -> dict[str, Any]:
        reasons = np.array(self._functions.reasons, object)[np.asarray(end.reason)]
        values = {"reason": reasons, "is_success": np.asarray(end.is_success), **end.figures}
        infos: dict[str, Any] = {}
        for name, value in values.items():
            empty = None if name == "reason" else 0
            infos |= {name: np.where(is_last, value, empty), f"_{name}": is_last}
        return infos

    def _restart(
        self, actions: np.ndarray, is_last: np.ndarray, observation: np.ndarray
    ) -> np.ndarray:
        """Starts the next episode of landers whose episode has ended, and of no other one."""
        import jax

        fresh, first, _ = self._functions.step(self._state, actions)

        def chosen(new: np.ndarray, old: np.ndarray) -> np.ndarray:
            new, old = np.asarray(new), np.asarray(old)
            return np.where(is_last.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

        self._state = jax.tree.map(chosen, fresh, self._state)
        return chosen(first.observation, observation)
