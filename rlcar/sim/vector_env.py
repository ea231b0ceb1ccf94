"""The race as a Gymnasium vector environment: N cars, one compiled call for each step."""

from collections.abc import Sequence
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from rlcar.config import make_race_config
from rlcar.config.race import RaceConfig
from rlcar.devices.selection import disable_async_dispatch
from rlcar.errors import ConfigError
from rlcar.sim.packed import pack_race
from rlcar.sim.race import SPEC, TrackChoice, make_race
from rlcar.track import make_pool, set_seeds
from rlcar.types import Array


class RaceVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """N cars, each on its own track, with the spaces and rewards of `RaceEnv`.

    With `race.cars_per_track` above 1, so many consecutive cars share a track and race each other
    (`rlcar.sim.traffic`).

    With `autoreset_mode` NEXT_STEP (the default) the step after the end of an episode ignores the
    action and starts the next episode, with reward 0. With SAME_STEP the step that ends an episode
    returns the first observation of the next episode, and `infos["final_obs"]` contains the last.

    `infos` contains, only in steps in which they exist and each with its mask `_name`, `lap_time`
    (int32, steps) and, with SAME_STEP, `final_obs` (object array of observations).

    `reset(seed=...)` determines everything that follows; a list gives each car its own seed. Car i
    drives the same races for any number of cars. A NaN action is a ValueError.

    Like `RaceEnv`, it turns off JAX's asynchronous dispatch on the CPU.
    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(
        self,
        num_envs: int = 1,
        world: str = "classic",
        config: RaceConfig | None = None,
        track_set: Literal["train", "validation", "test", "circuits"] = "train",
        track_choice: TrackChoice = "random",
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ):
        if isinstance(num_envs, bool) or not isinstance(num_envs, int) or num_envs < 1:
            raise ConfigError(f"num_envs = {num_envs!r}: give a positive whole number")
        self.config = make_race_config(world) if config is None else config
        if num_envs % self.config.cars_per_track:
            raise ConfigError(
                f"{num_envs} cars cannot be divided into groups of race.cars_per_track = "
                f"{self.config.cars_per_track}: use a multiple of it"
            )
        seeds = set_seeds(track_set, self.config.track)
        tracks = len(seeds) * self.config.cars_per_track
        if track_choice == "fixed" and num_envs > tracks:
            raise ConfigError(
                f"{num_envs} cars cannot have a track each, because the set {track_set!r} has "
                f'{tracks}: use fewer cars or track_choice="random"'
            )
        disable_async_dispatch()
        self.num_envs = num_envs
        self._track_choice = track_choice
        self.single_observation_space = gymnasium.spaces.Box(
            0, 1, (SPEC.observation_size,), np.float32
        )
        self.single_action_space = gymnasium.spaces.Box(-1, 1, (SPEC.action_size,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        mode = AutoresetMode(autoreset_mode)
        if mode == AutoresetMode.DISABLED:
            raise ConfigError(
                "autoreset_mode = Disabled is not possible, because cars reset by themselves: use "
                "NextStep or SameStep"
            )
        self.metadata = {**self.metadata, "autoreset_mode": mode}
        pool = make_pool(seeds, self.config.track)
        race = make_race(self.config, pool, track_choice=track_choice)
        self._is_same_step = mode == AutoresetMode.SAME_STEP
        self._race = pack_race(race, num_envs, self._is_same_step)
        self._state: Array = None  # the packed state of the race, before the first reset None

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts a new episode of every car."""
        super().reset(seed=seed if isinstance(seed, int) else None)
        seeds = list(seed) if isinstance(seed, Sequence) else [seed] * self.num_envs
        if len(seeds) != self.num_envs:
            raise ValueError(
                f"there are {len(seeds)} seeds for {self.num_envs} cars: give one for each"
            )
        drawn = int(self.np_random.integers(2**31))
        words = np.array([drawn if number is None else number for number in seeds], np.int64)
        cars = np.arange(self.num_envs, dtype=np.int32)
        if isinstance(seed, Sequence) and self._track_choice == "random":
            # Then the races of a car depend on its own seed alone; a group has that of its first.
            cars = cars % self.config.cars_per_track
            words = words[np.arange(self.num_envs) - cars]
        self._state = self._race.reset(cars, (words & 0x7FFFFFFF).astype(np.int32))
        return self._observation(self._race.output(self._state).copy()), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Drives every car one step."""
        if self._state is None:
            raise gymnasium.error.ResetNeeded("call reset() before step(): no episode is running")
        actions = np.asarray(actions, np.float32)
        if actions.shape != self.action_space.shape:
            raise ValueError(
                f"the actions have the shape {actions.shape}: pass an array of the shape "
                f"{self.action_space.shape}"
            )
        if np.isnan(actions).any():
            cars = np.flatnonzero(np.isnan(actions).any(axis=1)).tolist()
            raise ValueError(
                f"the actions of the cars {cars[:8]} contain a NaN: pass finite numbers in "
                "[-1, 1]; usually the parameters or the inputs of the policy are not finite"
            )
        self._state = self._race.step(self._state, actions)
        output = self._race.output(self._state).copy()  # callers may write into the arrays
        size = self.num_envs * SPEC.observation_size
        reward, last, terminal, lap_time = output[size : size + 4 * self.num_envs].reshape(4, -1)
        is_last, is_terminal = last > 0, terminal > 0
        observation = self._observation(output)
        infos: dict[str, Any] = {}
        if lap_time.any():
            infos |= {"lap_time": lap_time.astype(np.int32), "_lap_time": lap_time > 0}
        if self._is_same_step and is_last.any():
            final_obs = np.full(self.num_envs, None, dtype=object)
            for car in np.flatnonzero(is_last):
                final_obs[car] = observation[car]
            infos |= {"final_obs": final_obs, "_final_obs": is_last}
        if self._is_same_step:
            observation = output[-size:].reshape(observation.shape)
        return observation, reward, is_terminal, is_last & ~is_terminal, infos

    def _observation(self, output: np.ndarray) -> np.ndarray:
        size = self.num_envs * SPEC.observation_size
        return output[:size].reshape(self.num_envs, SPEC.observation_size)
