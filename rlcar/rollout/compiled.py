"""Drives a compiled environment; one compiled scan makes a block of trajectories."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcar.config import Config
from rlcar.errors import CheckpointError
from rlcar.system import heartbeat
from rlcar.types import (
    Array,
    CompiledEnvironment,
    Params,
    Policy,
    TimeStep,
    Trajectory,
    Weights,
)

_RESTART_STRIDE = 7919  # a prime, so that neighbouring seeds do not soon share their races


class RolloutState(NamedTuple):
    """The state of N environments between two blocks; a saved state continues exactly."""

    environment: Any
    time_step: TimeStep
    carry: Any  # of the policy
    previous_action: jax.Array  # [N, A]
    episode_reward: jax.Array  # [N]
    episode_steps: jax.Array  # [N] int32
    key: jax.Array


class Episodes(NamedTuple):
    """The size of a block and the episodes that ended in it; E is their number."""

    env_steps: int  # T times N
    reward: np.ndarray  # [E] float32
    steps: np.ndarray  # [E] int32
    # [E] bool, such as a finished lap. None for environments that do not say what a success is.
    is_success: np.ndarray | None
    busy_s: float = 0.0  # duration of driving the block, 0 if it was not measured


def restart_seed(seed: int, restart_id: int) -> int:
    """Returns the seed of the environments after the restart `restart_id` of a training."""
    return (seed + _RESTART_STRIDE * restart_id) % 2**31


def driving_key(seed: int, first_car: int) -> jax.Array:
    """Returns the key of the actions of a group of cars, legacy uint32[2].

    The constant separates it from the keys of the learner, because `fold_in(key, i)` equals
    `split(key)[i]`.
    """
    return jax.random.fold_in(jax.random.fold_in(jax.random.PRNGKey(seed), 0x0D817E), first_car)


def explore(
    policy: Policy, params: Params, version: Array, carry: Any, time_step: TimeStep, key: jax.Array
) -> tuple[Any, Array]:
    """Returns the carry and exploring actions `[N, A]`; `version` `[]` is that of the weights."""
    carry, action = policy.act(params, carry, time_step, key, explore=True)
    if policy.starts_with_random_actions:
        # Noise around the output of an untrained actor would fill the replay buffer with
        # near-identical actions.
        random = jax.random.uniform(jax.random.fold_in(key, 1), action.shape, minval=-1.0)
        action = jnp.where(version == 0, random, action)
    return carry, action


class Rollout:
    """Holds the state of N environments and drives them, block by block, with given weights."""

    def __init__(
        self,
        environment: CompiledEnvironment,
        config: Config,
        policy: Policy,
        first_car: int = 0,
        restart_id: int = 0,
    ):
        """`first_car` is the index of its first environment among those of all simulators.

        `restart_id` differs between the restarts of a training, so that each drives other episodes:
        the env steps of the checkpoint that was resumed, plus one for each replaced simulator.
        """
        cars = config.training.cars
        index = np.arange(first_car, first_car + cars, dtype=np.int32)
        seed = restart_seed(config.seed, restart_id)
        key = driving_key(seed, first_car)
        # Copies, because two leaves may be one array, which cannot be donated twice.
        state, time_step = jax.tree.map(jnp.array, environment.reset(index, seed))
        self.state = RolloutState(
            state,
            time_step,
            policy.initial(cars),
            jnp.zeros((cars, environment.spec.action_size)),
            jnp.zeros(cars),
            jnp.zeros(cars, jnp.int32),
            key,
        )
        # (params, state, version) -> (state, trajectory, ended episodes). Callers may compile it
        # into a larger program.
        self.collect_block = _make_collect(environment, policy, config.training.block_length)

    def prepare(self, weights: Weights) -> None:
        """Does nothing here; it is called before each compiled call, with the newest weights."""

    def collect(self, weights: Weights) -> tuple[Trajectory, Episodes]:
        """Drives one block `[T, N]` and waits for the result."""
        self.prepare(weights)
        with heartbeat.stage("driving"):
            self.state, trajectory, ended = self.collect_block(
                weights.params, self.state, weights.version
            )
            return jax.tree.map(np.asarray, trajectory), episodes_of(ended)

    def saved(self) -> dict[str, np.ndarray]:
        """Returns the whole state of the environments as numbered arrays."""
        leaves = jax.device_get(jax.tree.leaves(self.state))
        return {f"{index:03d}": np.asarray(leaf) for index, leaf in enumerate(leaves)}

    def restore(self, saved: dict[str, np.ndarray]) -> None:
        """Restores what `saved` returned; raises CheckpointError if it does not fit."""
        leaves, structure = jax.tree.flatten(self.state)
        stored = [saved[name] for name in sorted(saved)]
        if [x.shape for x in leaves] != [x.shape for x in stored]:
            raise CheckpointError(
                f"the cars of the checkpoint ({len(stored)} arrays) do not fit this run "
                f"({len(leaves)} arrays, or other shapes): resume with the same training.cars "
                "and algorithm"
            )
        self.state = jax.tree.unflatten(structure, [jnp.asarray(leaf) for leaf in stored])

    def close(self) -> None:
        """Does nothing, because a compiled environment holds no resources."""


def episodes_of(ended: dict[str, jax.Array]) -> Episodes:
    """Converts the last output of `collect_block`, of one block `[T, N]` or of several."""
    host = jax.tree.map(np.asarray, ended)
    is_last = host["is_last"]
    return Episodes(
        is_last.size, host["reward"][is_last], host["steps"][is_last], host["is_success"][is_last]
    )


def _make_collect(
    environment: CompiledEnvironment, policy: Policy, block_length: int
) -> Callable[..., tuple[RolloutState, Trajectory, dict[str, jax.Array]]]:
    """Compiles the function that drives one block; see `Rollout.collect_block`."""

    def collect(params: Any, state: RolloutState, version: jax.Array) -> tuple:
        def step(state: RolloutState, _: None) -> tuple[RolloutState, tuple]:
            key, act_key = jax.random.split(state.key)
            now = state.time_step
            record = Trajectory(
                now.observation,
                state.previous_action,
                now.reward,
                now.is_first,
                now.is_last,
                now.is_terminal,
                jnp.full(now.reward.shape, version, jnp.int32),
                carry=state.carry if policy.carry_size else None,
            )
            carry, action = explore(policy, params, version, state.carry, now, act_key)
            environment_state, time_step, end = environment.step(state.environment, action)
            # The first time step of an episode has no reward and follows no action.
            is_first = time_step.is_first
            reward = jnp.where(is_first, 0.0, state.episode_reward + time_step.reward)
            steps = jnp.where(is_first, 0, state.episode_steps + 1)
            ended = {
                "is_last": time_step.is_last,
                "reward": reward,
                "steps": steps,
                "is_success": end.is_success,
            }
            state = RolloutState(environment_state, time_step, carry, action, reward, steps, key)
            return state, (record, ended)

        state, (trajectory, ended) = jax.lax.scan(step, state, None, length=block_length)
        return state, trajectory, ended

    return jax.jit(collect, donate_argnums=1)
