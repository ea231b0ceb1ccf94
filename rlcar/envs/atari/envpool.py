"""EnvPool as a back end."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlcar.config import EnvironmentConfig
from rlcar.envs.atari.emulators import Screens, side_px, time_limit_steps
from rlcar.envs.atari.games import name_of, require_known
from rlcar.envs.atari.threads import thread_count
from rlcar.errors import ConfigError


class EnvPoolEmulators:
    """N emulators of EnvPool, which steps them in C++ threads."""

    def __init__(self, config: EnvironmentConfig, seeds: Sequence[int]):
        try:
            import envpool
        except ImportError as error:
            raise ConfigError(
                "EnvPool is not installed: pip install 'rlcar[envpool]', or leave "
                "environment.backend out"
            ) from error
        from envpool.atari.registration import atari_game_list

        require_known(config, [game.title().replace("_", "") for game in atari_game_list])
        atari, size_px = config.atari, side_px(config)
        self._number = len(seeds)
        self._env: Any = envpool.make(
            f"{name_of(config)}-v5",
            env_type="gymnasium",
            num_envs=self._number,
            num_threads=thread_count(self._number),
            env_seed=[int(seed) for seed in seeds],
            max_episode_steps=time_limit_steps(config),
            repeat_action_probability=atari.sticky_action_probability,
            full_action_space=atari.full_action_space,
            img_height=size_px,
            img_width=size_px,
            gray_scale=atari.gray_scale,
            stack_num=1,
            frame_skip=atari.frame_skip,
            noop_max=atari.start_frames,
            episodic_life=False,
            reward_clip=False,
            use_fire_reset=True,
        )
        self.action_count = int(self._env.action_space.n)

    def reset(self) -> Screens:
        """Starts all games."""
        image, info = self._env.reset()
        zeros = np.zeros(self._number)
        return self._screens(image, zeros, zeros, zeros, info)

    def step(self, action: np.ndarray) -> Screens:
        """Steps all emulators."""
        return self._screens(*self._env.step(action))

    def close(self) -> None:
        """Ends the emulators."""
        self._env.close()
        self._env = None  # its threads end with the object

    def _screens(
        self, image: np.ndarray, reward: Any, is_over: Any, is_cut: Any, info: dict[str, Any]
    ) -> Screens:
        return Screens(
            np.moveaxis(image, 1, -1),  # the channels of the only frame of the stack
            reward.astype(np.float32),
            is_over.astype(bool),
            is_cut.astype(bool),
            info["lives"].astype(np.int32),
        )
