"""Drives environments of Gymnasium with a policy: trajectories, and evaluations."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from rlcar.config import Config
from rlcar.envs.environments import Environments
from rlcar.rollout.race import Episodes, driving_key, explore
from rlcar.system import heartbeat
from rlcar.types import Evaluation, Params, Policy, Trajectory, Weights

_EVALUATION_EPISODES = 16
_EVALUATION_STEPS = 27_000  # at most: half an hour of Atari; some environments never end
_EVALUATION_SEED = 1_000_000  # far from those of training


class RolloutStoppedError(Exception):
    """A block was given up because its rollout was asked to stop."""


class GymnasiumRollout:
    """What `rlcar.rollout.race.Rollout` is to the race; its environments cannot be saved.

    It has to be closed. Once `should_stop` says so, `collect` raises RolloutStoppedError at the
    next step: a block of a slow environment may take minutes.
    """

    def __init__(
        self,
        config: Config,
        policy: Policy,
        first_car: int = 0,
        restart_id: int = 0,
        should_stop: Callable[[], bool] = lambda: False,
    ):
        self._should_stop = should_stop
        cars = config.training.cars
        seed = (config.seed + 7919 * restart_id) % 2**31
        # Hashed: those of neighbouring seeds would share all but one.
        seeds = [np.random.SeedSequence([seed, first_car + i]) for i in range(cars)]
        self._environments = Environments(
            config.environment, [int(one.generate_state(1)[0] >> 1) for one in seeds]
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
        with self._environments.driving():
            return self._collect(weights)

    def close(self) -> None:
        """Closes the environments."""
        self._environments.close()

    def _collect(self, weights: Weights) -> tuple[Trajectory, Episodes]:
        records, rewards, steps = [], [], []
        for _ in range(self._length):
            if self._should_stop():
                raise RolloutStoppedError
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
        seeds = range(_EVALUATION_SEED, _EVALUATION_SEED + _EVALUATION_EPISODES)
        environments = Environments(config.environment, seeds)
        with contextlib.closing(environments), environments.driving():
            return look(environments, params)

    def look(environments: Environments, params: Params) -> Evaluation | None:
        carry: Any = policy.initial(_EVALUATION_EPISODES)
        key = jax.random.PRNGKey(0)
        reward, steps = np.zeros(_EVALUATION_EPISODES), np.zeros(_EVALUATION_EPISODES)
        is_done = np.zeros(_EVALUATION_EPISODES, bool)
        for _ in range(_EVALUATION_STEPS):
            if is_done.all():
                break
            if should_stop():
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
        metrics = {
            "evaluation/episode_reward": float(reward.mean()),
            "evaluation/episode_steps": float(steps.mean()),
        }
        return Evaluation(metrics, -float(reward.mean()))

    return evaluate
