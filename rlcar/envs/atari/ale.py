"""The vector environment of ale-py as a back end."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlcar.config import EnvironmentConfig
from rlcar.envs.atari.emulators import Screens, side_px, time_limit_steps
from rlcar.envs.atari.games import find_game
from rlcar.envs.atari.threads import thread_count

_NO_LIMIT = 2**31 - 1  # frames


class AleEmulators:
    """N emulators of `ale_py.vector_env.AtariVectorEnv`, which steps them in C++ threads."""

    def __init__(self, config: EnvironmentConfig, seeds: Sequence[int]):
        game, atari, size_px = find_game(config), config.atari, side_px(config)
        from ale_py.vector_env import AtariVectorEnv

        self._limit_steps = time_limit_steps(config)
        self._steps = np.zeros(len(seeds), np.int64)
        self._is_over = np.zeros(len(seeds), bool)
        self._is_cut = np.zeros(len(seeds), bool)
        self._seeds = np.maximum(np.array(seeds, np.int32), 1)  # 0 would be no seed
        self._env: Any = AtariVectorEnv(
            game.rom,
            len(seeds),
            num_threads=thread_count(len(seeds)),
            # Cut here, because this limit would count the frames before the first action too.
            max_num_frames_per_episode=_NO_LIMIT,
            repeat_action_probability=atari.sticky_action_probability,
            full_action_space=atari.full_action_space,
            img_height=size_px,
            img_width=size_px,
            grayscale=atari.gray_scale,
            stack_num=1,
            frameskip=atari.frame_skip,
            noop_max=atari.start_frames,
            episodic_life=False,
            reward_clipping=False,
            use_fire_reset=True,
        )
        self.action_count = int(self._env.single_action_space.n)

    def reset(self) -> Screens:
        """Starts all games."""
        image, info = self._env.reset(seed=self._seeds)
        return self._screens(image, np.zeros(len(self._seeds)), info)

    def step(self, action: np.ndarray) -> Screens:
        """Steps all emulators."""
        was_cut, starts = self._is_cut, self._is_cut | self._is_over
        image, reward, is_over, _, info = self._env.step(action)
        if was_cut.any():  # The emulator begins again by itself only after the end of a game.
            image, info = self._env.reset(options={"reset_mask": was_cut})
        self._steps = np.where(starts, 0, self._steps + 1)
        self._is_over = is_over.astype(bool) & ~starts
        self._is_cut = (self._steps >= self._limit_steps) & ~self._is_over
        return self._screens(image, np.where(starts, 0.0, reward), info)

    def close(self) -> None:
        """Ends the emulators."""
        self._env.close()
        self._env = None  # its threads end with the object

    def _screens(self, image: np.ndarray, reward: np.ndarray, info: dict[str, Any]) -> Screens:
        frame = image[:, 0]  # the only one of the stack
        return Screens(
            frame if frame.ndim == 4 else frame[..., None],
            reward.astype(np.float32),
            self._is_over,
            self._is_cut,
            info["lives"],
        )
