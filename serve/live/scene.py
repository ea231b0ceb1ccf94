"""The drive of the live page in another environment than the race, as pictures of its scene.

The environment steps and draws in a thread of its own, because both may take longer than a frame.
Nobody drives it by hand, and it has neither a ghost nor a dream.
"""

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import simplejpeg

from rlcar.config import EnvironmentConfig
from rlcar.envs.single import SingleEnvironment, SingleStep
from rlcar.errors import UserError
from rlcar.types import TimeStep
from serve.live.loaded_policy import LoadedPolicy, StatefulPolicy
from serve.live.wire import ENDED, RUNNING, pack_picture

MOST_PICTURES_PER_S = 30.0
LARGEST_PX = (600, 800)  # height and width; a larger picture loses rows and columns
JPEG_QUALITY = 70
_PAUSE_S = 1.0  # between the end of an episode and the next one
_SEED = 4_000_000  # neither training, evaluation nor `rlcar drive` uses seeds from here on
ONLY_RACE = "this page shows {}, and {} is there only in the race"


class SceneDrive:
    """Lets a policy act in an environment; pure simulation, without a network.

    Call it from the event loop. `close` ends the environment.
    """

    dreamer = dream = ghost = None
    is_manual = False

    def __init__(self, config: EnvironmentConfig):
        """Raises ConfigError if there is no such environment.

        An environment that cannot be drawn is shown without pictures; `problem` says why.
        """
        self.name = config.id
        self.is_running = self.is_watched = False
        self.policy: StatefulPolicy | None = None
        self.episodes, self.successes, self.steps = 0, 0, 0
        self.says_success = False
        self.rewards: deque[float] = deque(maxlen=100)
        self.jpeg: bytes | None = None
        self._episode_steps, self._episode_reward = 0, 0.0
        self._share, self._pause_s, self._is_ended = 0.0, 0.0, False
        self._events: deque[dict[str, Any]] = deque()
        self._lock = threading.Lock()  # of the policy, which the event loop replaces
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rlcar-scene")
        self._work: Future[None] | None = None
        self._environment, self.problem = self._thread.submit(_opened, config).result()
        self._observation = self._thread.submit(self._begin).result()
        self._thread.submit(self._draw).result()

    def close(self) -> None:
        """Ends the thread and the environment."""
        self._thread.submit(self._environment.close)
        self._thread.shutdown(wait=True)

    def frame(self, seconds: float) -> dict[str, Any] | None:
        """Advances by so much time; returns an event for the page: an episode's end."""
        if self.is_running:
            self._share += seconds * self._environment.frames_per_s
        if (self._work is None or self._work.done()) and self._share >= self._steps_a_picture:
            work, self._work = self._work, None
            if work is not None:
                work.result()  # raises the error of a step, once
            steps = min(int(self._share), 2 * int(self._steps_a_picture))
            self._share = 0.0 if steps < int(self._share) else self._share - steps
            self._work = self._thread.submit(self._advance, steps)
        return self._events.popleft() if self._events else None

    def begin(self) -> None:
        """Begins the episode again."""
        self._work = self._thread.submit(self._restart)

    def set_policy(self, loaded: LoadedPolicy) -> None:
        """Lets another policy act on from here; raises UserError if it does not fit."""
        spec, policy = self._environment.spec, loaded.policy
        if (policy.observation_size, policy.action_size) != spec[:2] or spec.is_discrete:
            raise UserError(
                f"{loaded.label} observes {policy.observation_size} numbers and acts with "
                f"{policy.action_size}, and {self.name} has {spec.observation_size} to observe and "
                f"{spec.action_size} to act with: load a version of this environment"
            )
        with self._lock:
            if self.policy is None:
                self.policy = StatefulPolicy(loaded)
            else:
                self.policy.replace(loaded)

    def pack(self, count: int, time_ms: float) -> bytes | None:
        """Packs the newest picture; None without pictures."""
        if self.jpeg is None:
            return None
        flags = RUNNING * self.is_running + ENDED * self._is_ended
        numbers = float(self._episode_steps), self._episode_reward
        return pack_picture(count, time_ms, flags, numbers, self.jpeg)

    def picture(self) -> bytes:
        """Returns the scene as a JPEG, for the video; blocks for a moment."""
        if self.jpeg is None:
            raise UserError(f"{self.name} cannot be drawn: {self.problem}")
        if not self.is_watched:
            self._thread.submit(self._draw).result()
        return self.jpeg

    def describe(self) -> tuple[str, dict[str, Any]]:
        """Returns the message that tells a page what it shows."""
        return "scene", {"environment": self.name, "problem": self.problem}

    @property
    def latent(self) -> np.ndarray | None:
        """The acting policy's latent state `[S, K]`, if it has one."""
        return None if self.policy is None else self.policy.latent

    @property
    def _steps_a_picture(self) -> float:
        return max(1.0, self._environment.frames_per_s / MOST_PICTURES_PER_S)

    def _restart(self) -> None:
        self._observation = self._begin()
        self._draw()

    def _begin(self) -> np.ndarray:
        self._episode_steps, self._episode_reward = 0, 0.0
        self._is_ended, self._pause_s = False, 0.0
        return self._environment.reset()

    def _advance(self, steps: int) -> None:
        for _ in range(steps):
            self._step()
        if self.is_watched:
            self._draw()

    def _step(self) -> None:
        """Takes one step; after an episode it waits, and then begins the next one."""
        if self._is_ended:
            self._pause_s += 1.0 / self._environment.frames_per_s
            if self._pause_s >= _PAUSE_S:
                self._observation = self._begin()
            return
        with self._lock:
            action = np.zeros(self._environment.spec.action_size, np.float32)
            if self.policy is not None:
                action = self.policy.act(_time_step(self._observation, self._episode_steps))
        step = self._environment.step(action)
        self._observation = step.observation
        self._episode_steps += 1
        self._episode_reward += step.reward
        self.steps += 1
        if step.is_last:
            self._end(step)

    def _end(self, step: SingleStep) -> None:
        self._is_ended = True
        self.episodes += 1
        self.successes += bool(step.is_success)
        self.says_success |= step.is_success is not None
        self.rewards.append(self._episode_reward)
        self._events.append(
            {
                "kind": "ending",
                "reward": round(self._episode_reward, 3),
                "steps": self._episode_steps,
                "is_success": step.is_success,
                "reason": step.reason,
            }
        )

    def _draw(self) -> None:
        if self.problem is None:
            self.jpeg = encode(self._environment.picture())


def encode(picture: np.ndarray) -> bytes:
    """Returns a picture `[height, width, 3]` uint8 as a JPEG of at most `LARGEST_PX`."""
    excess = (-(-side // most) for side, most in zip(picture.shape, LARGEST_PX, strict=False))
    stride = max(1, *excess)
    small = np.ascontiguousarray(picture[::stride, ::stride])
    return simplejpeg.encode_jpeg(small, quality=JPEG_QUALITY, colorspace="RGB")


def _opened(config: EnvironmentConfig) -> tuple[SingleEnvironment, str | None]:
    """Makes the environment, which steps and is drawn once, so that what it compiles is compiled.

    Also returns why it cannot be drawn, if it cannot.
    """
    environment = None
    try:
        environment = SingleEnvironment(config, _SEED, draws=True)
        environment.reset()
        environment.step(np.zeros(environment.spec.action_size, np.float32))
        environment.picture()
        return environment, None
    except UserError as error:
        problem = str(error)
    if environment is not None:
        environment.close()
    return SingleEnvironment(config, _SEED), problem


def _time_step(observation: np.ndarray, steps: int) -> TimeStep:
    nothing = np.zeros(1, bool)
    return TimeStep(
        observation[None], np.zeros(1, np.float32), np.array([steps == 0]), nothing, nothing
    )
