"""A list of Gymnasium environments that step together, with seeds, checks and reliable closing."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np

from rlcar.config import EnvironmentConfig
from rlcar.envs.adapter import make_adapter
from rlcar.envs.faults import FaultError, checked_reset, checked_step, checked_success
from rlcar.envs.frame_stack import FrameStack, stacked_spec
from rlcar.envs.generators import GlobalGenerators
from rlcar.envs.making import close_environment, first_line, make_environment
from rlcar.errors import NonFiniteError, UserError
from rlcar.system import heartbeat
from rlcar.types import TimeStep


@contextlib.contextmanager
def faults_as_user_errors(name: str) -> Iterator[None]:
    """Converts every exception of an environment's code to a UserError with its name."""
    try:
        yield
    except NonFiniteError:  # This is a fault of the policy, not of the environment.
        raise
    except FaultError as fault:
        raise UserError(f"the environment {name} {fault}") from fault
    except Exception as error:
        hint = "correct its code, or its declared spaces"
        if "unpack" in str(error):
            hint = (
                "step must return (observation, reward, terminated, truncated, info) and reset "
                "(observation, info)"
            )
        raise UserError(
            f"the environment {name} failed ({type(error).__name__}: {first_line(error)}): {hint}"
        ) from error


class Environments:
    """N environments that step together; `now` is their latest time step.

    An environment whose episode has ended ignores the next action and is reset instead. The caller
    must close the environments, also after an error. Call `step` within `driving`, which installs
    the random state that some environments draw from.
    """

    def __init__(self, config: EnvironmentConfig, seeds: Sequence[int]):
        """Makes and resets one environment for each seed.

        Raises UserError for a fault of an environment and closes all of them in that case.
        """
        self._name = config.id
        self._frames = config.frame_stack or 1
        self._stack = FrameStack(self._frames)
        self._envs: list[gymnasium.Env] = []
        self._generators = GlobalGenerators(seeds)
        # [N], whether the episodes that the latest step ended were successes; None where the
        # environment did not say.
        self.success: list[bool | None] = [None] * len(seeds)
        try:
            with self.driving():
                self.now = self._make_and_reset(config, seeds)
        except BaseException:
            self.close()
            raise

    def _make_and_reset(self, config: EnvironmentConfig, seeds: Sequence[int]) -> TimeStep:
        for _ in seeds:
            self._envs.append(make_environment(config))
        self._adapter = make_adapter(config, self._envs[0])
        self.spec = stacked_spec(self._adapter.spec, self._frames)
        observations = []
        for env, seed in zip(self._envs, seeds, strict=True):
            with self._faults_as_user_errors():
                env.action_space.seed(seed)
                env.observation_space.seed(seed)
                observations.append(checked_reset(env.reset(seed=seed)))
            heartbeat.beat()
        number = len(seeds)
        nowhere = np.zeros(number, bool)
        return self._time_step(observations, np.zeros(number), ~nowhere, nowhere, nowhere)

    @contextlib.contextmanager
    def driving(self) -> Iterator[None]:
        """Makes the global random generators those of these environments inside the block."""
        with self._generators.installed():
            yield

    def step(self, action: np.ndarray) -> None:
        """Steps every environment with its row of `action` `[N, A]`.

        Raises UserError for a fault of an environment and NonFiniteError for an action that is not
        finite.
        """
        number = len(self._envs)
        reward, is_last, is_terminal = (
            np.zeros(number),
            np.zeros(number, bool),
            np.zeros(number, bool),
        )
        is_first = self.now.is_last.copy()
        self.success = [None] * number
        observations = []
        for index, env in enumerate(self._envs):
            heartbeat.beat()  # here, because a single step of one environment may take long
            with self._faults_as_user_errors():
                if is_first[index]:
                    observation = checked_reset(env.reset())
                else:
                    result = env.step(self._adapter.action(action[index]))
                    observation, reward[index], terminated, truncated = checked_step(result)
                    is_terminal[index], is_last[index] = terminated, terminated or truncated
                    if is_last[index]:
                        self.success[index] = checked_success(result)
            observations.append(observation)
        self.now = self._time_step(observations, reward, is_first, is_last, is_terminal)

    def close(self) -> None:
        """Closes all environments; a second call does nothing."""
        envs, self._envs = self._envs, []
        for env in envs:
            close_environment(env, self._name)

    def _faults_as_user_errors(self) -> contextlib.AbstractContextManager[None]:
        return faults_as_user_errors(self._name)

    def _time_step(
        self,
        observations: list,
        reward: np.ndarray,
        is_first: np.ndarray,
        is_last: np.ndarray,
        is_terminal: np.ndarray,
    ) -> TimeStep:
        has_image = self._adapter.spec.image_shape is not None
        with self._faults_as_user_errors():
            images: Any = (
                [self._adapter.image(observation) for observation in observations]
                if has_image
                else None
            )
            vectors = np.stack([self._adapter.vector(observation) for observation in observations])
        return TimeStep(
            vectors,
            reward.astype(np.float32),
            is_first,
            is_last,
            is_terminal,
            self._stack.push(np.stack(images), is_first) if has_image else None,
        )
