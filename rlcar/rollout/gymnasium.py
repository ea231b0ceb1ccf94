"""Drives Gymnasium environments with a policy, which makes trajectories."""

import functools
from collections.abc import Callable

import jax
import numpy as np

from rlcar.config import Config
from rlcar.envs.vector import make_vector
from rlcar.rollout.compiled import Episodes, driving_key, explore, restart_seed
from rlcar.system import heartbeat
from rlcar.types import Policy, Trajectory, Weights


class RolloutStoppedError(Exception):
    """`collect` was asked to stop before its block was complete."""


class GymnasiumRollout:
    """Drives N Gymnasium environments, as `rlcar.rollout.compiled.Rollout` drives the race.

    The caller must close it. The state of the environments cannot be saved. Because a block of a
    slow environment may take minutes, `collect` raises RolloutStoppedError at the next step after
    `should_stop` returns True.
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
        seed = restart_seed(config.seed, restart_id)
        # Hashed, because the environments of neighbouring seeds would otherwise share all but one.
        seeds = [np.random.SeedSequence([seed, first_car + i]) for i in range(cars)]
        self._environments = make_vector(
            config.driven_environment,
            [int(seed.generate_state(1)[0] >> 1) for seed in seeds],
            is_training=True,
        )
        self._explore = jax.jit(functools.partial(explore, policy))
        self._key = driving_key(seed, first_car)
        self._carry = policy.initial(cars)
        self._records_carry = policy.carry_size > 0
        self._action = np.zeros((cars, self._environments.spec.action_size), np.float32)
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
        success: list[bool | None] = []
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
            success += [self._environments.success[i] for i in np.flatnonzero(after.is_last)]
        trajectory = jax.tree.map(lambda *leaves: np.stack(leaves), *records)
        episodes = Episodes(
            trajectory.reward.size,
            np.array(rewards, np.float32),
            np.array(steps, np.int32),
            None if None in success else np.array(success, bool),
        )
        return trajectory, episodes

    def saved(self) -> dict[str, np.ndarray]:
        """Returns nothing, so that a resumed run begins new episodes."""
        return {}

    def restore(self, saved: dict[str, np.ndarray]) -> None:
        """Does nothing, because nothing is saved."""
