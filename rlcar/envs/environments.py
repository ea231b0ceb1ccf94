"""N environments of Gymnasium that move together, seeded, checked and closed."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np

from rlcar.config import EnvironmentConfig
from rlcar.envs.adapter import make_adapter
from rlcar.envs.faults import FaultError, checked_reset, checked_step
from rlcar.envs.generators import GlobalGenerators
from rlcar.envs.making import close_environment, first_line, make_environment
from rlcar.errors import NonFiniteError, UserError
from rlcar.system import heartbeat
from rlcar.types import Spec, TimeStep


def environment_spec(config: EnvironmentConfig) -> Spec:
    """Returns the spec of an environment; raises ConfigError where there is none."""
    env = make_environment(config)
    try:
        return make_adapter(config, env).spec
    finally:
        close_environment(env, config.id)


class Environments:
    """N environments in step; the one that ended ignores its next action and starts anew.

    They have to be closed, also after an error. Call `step` within `driving`: environments that
    draw from the global generators depend on it.
    """

    def __init__(self, config: EnvironmentConfig, seeds: Sequence[int]):
        """Raises UserError for what an environment does wrong; then all of them are closed."""
        self._name = config.id
        self._envs: list[gymnasium.Env] = []
        self._generators = GlobalGenerators(seeds)
        try:
            with self.driving():
                self.now = self._started(config, seeds)
        except BaseException:
            self.close()
            raise

    def _started(self, config: EnvironmentConfig, seeds: Sequence[int]) -> TimeStep:
        for _ in seeds:
            self._envs.append(make_environment(config))
        self._adapter = make_adapter(config, self._envs[0])
        self.action_size = self._adapter.spec.action_size
        started = []
        for env, seed in zip(self._envs, seeds, strict=True):
            with self._blamed():
                env.action_space.seed(seed)
                env.observation_space.seed(seed)
                started.append(checked_reset(env.reset(seed=seed)))
            heartbeat.beat()
        number = len(seeds)
        nothing = np.zeros(number, bool)
        return self._time_step(started, np.zeros(number), ~nothing, nothing, nothing)

    @contextlib.contextmanager
    def driving(self) -> Iterator[None]:
        """The time in which the global generators are those of these environments."""
        with self._generators.installed():
            yield

    def step(self, action: np.ndarray) -> None:
        """Moves every environment on by `action [N, A]`.

        Raises UserError for what an environment does wrong, NonFiniteError for an action that is no
        number.
        """
        number = len(self._envs)
        reward, is_last, is_terminal = (
            np.zeros(number),
            np.zeros(number, bool),
            np.zeros(number, bool),
        )
        is_first = self.now.is_last.copy()
        observations = []
        for index, env in enumerate(self._envs):
            heartbeat.beat()  # each step may take as long as all of them in another environment
            with self._blamed():
                if is_first[index]:
                    observation = checked_reset(env.reset())
                else:
                    observation, reward[index], terminated, truncated = checked_step(
                        env.step(self._adapter.action(action[index]))
                    )
                    is_terminal[index], is_last[index] = terminated, terminated or truncated
            observations.append(observation)
        self.now = self._time_step(observations, reward, is_first, is_last, is_terminal)

    def close(self) -> None:
        """Closes them all; a second call does nothing."""
        envs, self._envs = self._envs, []
        for env in envs:
            close_environment(env, self._name)

    @contextlib.contextmanager
    def _blamed(self) -> Iterator[None]:
        """Whatever an environment's own code does wrong is a UserError with its name."""
        try:
            yield
        except NonFiniteError:  # the policy's doing
            raise
        except FaultError as fault:
            raise UserError(f"the environment {self._name} {fault}") from fault
        except Exception as error:
            hint = "correct its code, or its declared spaces"
            if "unpack" in str(error):
                hint = (
                    "step must return (observation, reward, terminated, truncated, info) and reset "
                    "(observation, info)"
                )
            raise UserError(
                f"the environment {self._name} failed ({type(error).__name__}: "
                f"{first_line(error)}): {hint}"
            ) from error

    def _time_step(
        self,
        observations: list,
        reward: np.ndarray,
        is_first: np.ndarray,
        is_last: np.ndarray,
        is_terminal: np.ndarray,
    ) -> TimeStep:
        has_image = self._adapter.spec.image_shape is not None
        with self._blamed():
            images: Any = [self._adapter.image(one) for one in observations] if has_image else None
            vectors = np.stack([self._adapter.vector(one) for one in observations])
        return TimeStep(
            vectors,
            reward.astype(np.float32),
            is_first,
            is_last,
            is_terminal,
            np.stack(images) if has_image else None,
        )
