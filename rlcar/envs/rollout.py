"""Drives environments of Gymnasium with a policy: trajectories, and evaluations."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from rlcar import heartbeat
from rlcar.config import Config
from rlcar.envs.adapter import first_line, make_adapter, make_environment
from rlcar.errors import UserError
from rlcar.evaluation import Evaluation
from rlcar.rollout import Episodes, driving_key, explore
from rlcar.types import Params, Policy, Spec, TimeStep, Trajectory, Weights

_EVALUATION_EPISODES = 16
_EVALUATION_STEPS = 27_000  # at most: half an hour of Atari; some environments never end
_EVALUATION_SEED = 1_000_000  # far from those of training


def environment_spec(config: Config) -> Spec:
    """Returns the spec of `config.environment`; raises ConfigError where there is none."""
    env = make_environment(config.environment)
    try:
        return make_adapter(config.environment, env).spec
    finally:
        env.close()


class _Environments:
    """N environments in step; the one that ended ignores its next action and starts anew."""

    def __init__(self, config: Config, seeds: Sequence[int]):
        number = len(seeds)
        self._name = config.environment.id
        self._envs = [make_environment(config.environment) for _ in seeds]
        self._adapter = make_adapter(config.environment, self._envs[0])
        self.action_size = self._adapter.spec.action_size
        with self._blamed():
            started = []
            for env, seed in zip(self._envs, seeds, strict=True):
                started.append(env.reset(seed=seed)[0])
                heartbeat.beat()
        nothing = np.zeros(number, bool)
        self.now = self._time_step(started, np.zeros(number), ~nothing, nothing, nothing)

    def step(self, action: np.ndarray) -> None:
        """Moves every environment on by `action [N, A]`."""
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
                    observation = env.reset()[0]
                else:
                    observation, earned, terminated, truncated, _ = env.step(
                        self._adapter.action(action[index])
                    )
                    reward[index] = np.asarray(earned, np.float32).item()
                    is_terminal[index], is_last[index] = terminated, terminated or truncated
            observations.append(observation)
        self.now = self._time_step(observations, reward, is_first, is_last, is_terminal)

    @contextlib.contextmanager
    def _blamed(self) -> Iterator[None]:
        """Whatever an environment's own code does wrong is a UserError with its name."""
        try:
            yield
        except Exception as error:
            raise UserError(
                f"the environment {self._name} failed ({type(error).__name__}: "
                f"{first_line(error)}): mend it, or its spaces"
            ) from error

    def close(self) -> None:
        """Ends them all."""
        for env in self._envs:
            env.close()

    def _time_step(
        self,
        observations: list,
        reward: np.ndarray,
        is_first: np.ndarray,
        is_last: np.ndarray,
        is_terminal: np.ndarray,
    ) -> TimeStep:
        spec = self._adapter.spec
        has_image = spec.image_shape is not None
        with self._blamed():
            images: Any = [self._adapter.image(one) for one in observations] if has_image else None
            vectors = np.stack([self._adapter.vector(one) for one in observations])
            if vectors.shape[1] != spec.observation_size:
                raise ValueError(
                    f"it gave {vectors.shape[1]} numbers, its space says {spec.observation_size}"
                )
            for what, values in (("an observation", vectors), ("a reward", reward)):
                if not np.isfinite(values.astype(np.float32)).all():
                    raise ValueError(f"it gave {what} that is not finite")
        return TimeStep(
            vectors,
            reward.astype(np.float32),
            is_first,
            is_last,
            is_terminal,
            np.stack(images) if has_image else None,
        )


class GymnasiumRollout:
    """What `rlcar.rollout.Rollout` is to the race; its environments cannot be saved."""

    def __init__(self, config: Config, policy: Policy, first_car: int = 0, epoch: int = 0):
        cars = config.training.cars
        seed = (config.seed + 7919 * epoch) % 2**31
        # Hashed: those of neighbouring seeds would share all but one.
        seeds = [np.random.SeedSequence([seed, first_car + i]) for i in range(cars)]
        self._environments = _Environments(
            config, [int(one.generate_state(1)[0] >> 1) for one in seeds]
        )
        self._explore = jax.jit(functools.partial(explore, policy))
        self._key = driving_key(seed, first_car)
        self._carry = policy.initial(cars)
        self._records_carry = policy.carry_size > 0
        self._action = np.zeros((cars, self._environments.action_size), np.float32)
        self._reward, self._steps = np.zeros(cars), np.zeros(cars, np.int32)
        self._length = config.training.block_length

    def collect(self, weights: Weights) -> tuple[Trajectory, Episodes]:
        """Drives one block `[T, N]`."""
        records, rewards, steps = [], [], []
        for _ in range(self._length):
            now = self._environments.now
            self._key, key = jax.random.split(self._key)
            version = np.full(now.reward.shape, weights.version, np.int32)
            records.append(
                Trajectory(
                    now.observation,
                    self._action,
                    now.reward,
                    now.is_first,
                    now.is_last,
                    now.is_terminal,
                    version,
                    now.image,
                    np.asarray(self._carry) if self._records_carry else None,
                )
            )
            with heartbeat.stage("driving"):
                self._carry, action = self._explore(
                    weights.params, weights.version, self._carry, now, key
                )
                self._action = np.asarray(action)
            self._environments.step(self._action)
            after = self._environments.now
            self._reward = np.where(after.is_first, 0.0, self._reward + after.reward)
            self._steps = np.where(after.is_first, 0, self._steps + 1)
            rewards += self._reward[after.is_last].tolist()
            steps += self._steps[after.is_last].tolist()
        trajectory = jax.tree.map(lambda *leaves: np.stack(leaves), *records)
        episodes = Episodes(
            trajectory.reward.size,
            np.array(rewards, np.float32),
            np.array(steps, np.int32),
            np.zeros(len(rewards), bool),
        )
        return trajectory, episodes

    def saved(self) -> dict[str, np.ndarray]:
        """Nothing: a resumed run begins new episodes."""
        return {}

    def restore(self, saved: dict[str, np.ndarray]) -> None:
        """There is nothing to restore."""


def make_environment_evaluator(
    config: Config,
    policy: Policy,
    should_stop: Callable[[], bool],
    on_share: Callable[[float], None],
) -> Callable[[Params], Evaluation | None]:
    """Makes `evaluate(params)`: the mean reward of the mode over a few episodes, the same ones.

    It returns None once `should_stop` says so: episodes may take minutes. After each step
    `on_share` is told what share of the episodes is over.
    """
    act = jax.jit(policy.act, static_argnums=4)

    def evaluate(params: Params) -> Evaluation | None:
        environments = _Environments(
            config, range(_EVALUATION_SEED, _EVALUATION_SEED + _EVALUATION_EPISODES)
        )
        carry: Any = policy.initial(_EVALUATION_EPISODES)
        key = jax.random.PRNGKey(0)
        reward, steps = np.zeros(_EVALUATION_EPISODES), np.zeros(_EVALUATION_EPISODES)
        is_done = np.zeros(_EVALUATION_EPISODES, bool)
        for _ in range(_EVALUATION_STEPS):
            if is_done.all():
                break
            if should_stop():
                environments.close()
                return None
            key, act_key = jax.random.split(key)
            with heartbeat.stage("evaluating"):
                carry, action = act(params, carry, environments.now, act_key, False)
                action = np.asarray(action)
            with heartbeat.stage(heartbeat.WORKING):  # on Ray the driver may be in a slower one
                environments.step(action)
            reward += np.where(is_done, 0.0, environments.now.reward)
            steps += ~is_done
            is_done |= environments.now.is_last
            on_share(float(is_done.mean()))
        environments.close()
        metrics = {
            "evaluation/episode_reward": float(reward.mean()),
            "evaluation/episode_steps": float(steps.mean()),
        }
        return Evaluation(metrics, -float(reward.mean()))

    return evaluate
