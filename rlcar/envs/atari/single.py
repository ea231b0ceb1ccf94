"""One Gymnasium environment of ale-py after another as a back end, in Python."""

from collections.abc import Sequence

import gymnasium
import numpy as np

from rlcar.config import EnvironmentConfig
from rlcar.envs.atari.emulators import Screens, side_px, time_limit_steps
from rlcar.envs.atari.games import find_game


class SingleEmulators:
    """N Gymnasium environments with the preprocessing of Mnih et al. 2015."""

    def __init__(self, config: EnvironmentConfig, seeds: Sequence[int]):
        game = find_game(config)
        self._atari, self._size_px = config.atari, side_px(config)
        self._limit_steps = time_limit_steps(config)
        self._seeds = list(seeds)
        # Its own no-op starts, because neither Gymnasium nor ale-py has them for one environment.
        self._generators = [np.random.default_rng(seed) for seed in seeds]
        self._envs = [
            gymnasium.make(
                f"ALE/{game.name}-v5",
                frameskip=1,
                repeat_action_probability=self._atari.sticky_action_probability,
                full_action_space=self._atari.full_action_space,
                obs_type="grayscale" if self._atari.gray_scale else "rgb",
                disable_env_checker=True,
            )
            for _ in seeds
        ]
        space = self._envs[0].action_space
        assert isinstance(space, gymnasium.spaces.Discrete)
        self.action_count = int(space.n)
        meanings = self._envs[0].unwrapped.get_action_meanings()
        self._fire = meanings.index("FIRE") if "FIRE" in meanings else None
        self._steps = np.zeros(len(self._seeds), np.int64)
        self._is_ended = np.zeros(len(self._seeds), bool)

    def reset(self) -> Screens:
        """Starts all games."""
        for env, seed in zip(self._envs, self._seeds, strict=True):
            env.reset(seed=seed)
        self._is_ended[:] = True
        return self.step(np.zeros(len(self._envs), np.int32))

    def step(self, action: np.ndarray) -> Screens:
        """Steps one environment after another."""
        number = len(self._envs)
        images, reward, is_over = [], np.zeros(number, np.float32), np.zeros(number, bool)
        for index in range(number):
            if self._is_ended[index]:
                images.append(self._scaled([self._start(index)]))
                self._steps[index] = 0
                continue
            frames = []
            for _ in range(self._atari.frame_skip):
                frame, gain, is_over[index], _, _ = self._envs[index].step(int(action[index]))
                frames.append(frame)
                reward[index] += float(gain)
                if is_over[index]:
                    break
            # The two newest frames, because many games draw an object in every second one alone.
            images.append(self._scaled(frames[-2:]))
            self._steps[index] += 1
        is_cut = (self._steps >= self._limit_steps) & ~is_over
        self._is_ended = is_over | is_cut
        lives = [env.unwrapped.ale.lives() for env in self._envs]
        return Screens(np.stack(images), reward, is_over, is_cut, np.array(lives, np.int32))

    def close(self) -> None:
        """Closes the environments."""
        for env in self._envs:
            env.close()

    def _start(self, index: int) -> np.ndarray:
        """Starts a game with a random number of frames without action; returns its frame."""
        env = self._envs[index]
        frame, _ = env.reset()
        idle = int(self._generators[index].integers(self._atari.start_frames))
        for _ in range(idle - (self._fire is not None)):
            frame, _, is_over, _, _ = env.step(0)
            if is_over:
                frame, _ = env.reset()
        if self._fire is not None:
            frame, _, _, _, _ = env.step(self._fire)
        return frame

    def _scaled(self, frames: list[np.ndarray]) -> np.ndarray:
        """Returns the maximum of the frames as `[size, size, 1 or 3]` uint8."""
        screen = np.max(frames, axis=0)
        screen = screen if screen.ndim == 3 else screen[..., None]
        return np.rint(_shrunk(_shrunk(screen, self._size_px, 0), self._size_px, 1)).astype(
            np.uint8
        )


def _shrunk(screen: np.ndarray, size_px: int, axis: int) -> np.ndarray:
    """Returns the means of `size_px` equal parts along an axis, also of fractions of pixels.

    This is OpenCV's INTER_AREA, with which the other back ends scale. The sum up to each edge is
    interpolated in the cumulative sum.
    """
    pixels = screen.shape[axis]
    zero = np.zeros_like(screen, np.float64).take([0], axis)
    total = np.concatenate([zero, np.cumsum(screen, axis, np.float64)], axis)
    edges = np.linspace(0.0, pixels, size_px + 1)
    below = np.minimum(edges.astype(int), pixels - 1)
    share = (edges - below).reshape([-1 if axis == a else 1 for a in range(screen.ndim)])
    up_to = total.take(below, axis) * (1.0 - share) + total.take(below + 1, axis) * share
    return np.diff(up_to, axis=axis) * (size_px / pixels)
