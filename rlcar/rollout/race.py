"""Environment and policy make trajectories: one jitted scan a block."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcar.config import Config
from rlcar.errors import CheckpointError
from rlcar.sim import SPEC, Race, make_race
from rlcar.system import heartbeat
from rlcar.track import TRACK_SETS, make_pool
from rlcar.types import Array, Params, Policy, TimeStep, Trajectory, Weights


class RolloutState(NamedTuple):
    """Where N cars are between two blocks; saving it resumes the drive exactly."""

    race: Any
    time_step: TimeStep
    carry: Any  # of the policy
    previous_action: jax.Array  # [N, A]
    episode_reward: jax.Array  # [N]
    episode_steps: jax.Array  # [N] int32
    key: jax.Array


class Episodes(NamedTuple):
    """What a block was, and the episodes that ended in it."""

    env_steps: int
    reward: np.ndarray  # [E] float32
    steps: np.ndarray  # [E] int32
    is_lap: np.ndarray  # [E] bool
    busy_s: float = 0.0  # what driving it took, where somebody measured


def driving_key(seed: int, first_car: int) -> jax.Array:
    """Returns the key that a group of cars draws its actions from, legacy uint32[2].

    The number in between keeps it from the learner's: `fold_in(key, i)` is `split(key)[i]`.
    """
    return jax.random.fold_in(jax.random.fold_in(jax.random.PRNGKey(seed), 0x0D817E), first_car)


def explore(
    policy: Policy, params: Params, version: Array, carry: Any, time_step: TimeStep, key: jax.Array
) -> tuple[Any, Array]:
    """Returns carry and action `[N, A]` to learn from; `version` is that of the weights, `[]`."""
    carry, action = policy.act(params, carry, time_step, key, explore=True)
    if policy.starts_with_random_actions:
        # An untrained actor's one habit and a little noise would fill the replay with the same.
        by_chance = jax.random.uniform(jax.random.fold_in(key, 1), action.shape, minval=-1.0)
        action = jnp.where(version == 0, by_chance, action)
    return carry, action


class Rollout:
    """Holds N cars and drives them with whatever weights it is given."""

    def __init__(self, config: Config, policy: Policy, first_car: int = 0, restart_id: int = 0):
        """`first_car` is the index of its first car among those of all simulators.

        `restart_id` differs between the restarts of a training, so that each drives other races:
        the env steps of the checkpoint that was resumed, plus one for each replaced simulator.
        """
        cars = config.training.cars
        pool = make_pool(TRACK_SETS["train"], config.race.track)
        race = make_race(config.race, pool)
        car_id = np.arange(first_car, first_car + cars, dtype=np.int32)
        race_seed = (config.seed + 7919 * restart_id) % 2**31
        key = driving_key(race_seed, first_car)
        # The same bits as JAX's, without a program that holds all tracks: seconds of every start.
        start = make_race(config.race, pool, np).reset(car_id, race_seed)
        race_state, time_step = jax.tree.map(jnp.asarray, start)
        self.state = RolloutState(
            race_state,
            time_step,
            policy.initial(cars),
            jnp.zeros((cars, SPEC.action_size)),
            jnp.zeros(cars),
            jnp.zeros(cars, jnp.int32),
            key,
        )
        # (params, state, version) -> (state, trajectory, what ended), for those who compile it too.
        self.collect_block = _make_collect(race, policy, config.training.block_length)

    def collect(self, weights: Weights) -> tuple[Trajectory, Episodes]:
        """Drives one block `[T, N]`; blocks until it is done."""
        with heartbeat.stage("driving"):
            self.state, trajectory, ended = self.collect_block(
                weights.params, self.state, weights.version
            )
            return jax.tree.map(np.asarray, trajectory), episodes_of(ended)

    def saved(self) -> dict[str, np.ndarray]:
        """The cars' whole state as numbered arrays."""
        leaves = jax.device_get(jax.tree.leaves(self.state))
        return {f"{index:03d}": np.asarray(leaf) for index, leaf in enumerate(leaves)}

    def restore(self, saved: dict[str, np.ndarray]) -> None:
        """Continues from what `saved` returned; raises CheckpointError if it does not fit."""
        leaves, structure = jax.tree.flatten(self.state)
        stored = [saved[name] for name in sorted(saved)]
        if [x.shape for x in leaves] != [x.shape for x in stored]:
            raise CheckpointError(
                f"the checkpoint holds the cars of another setting ({len(stored)} arrays): "
                "resume with the run's own training.cars and algorithm"
            )
        self.state = jax.tree.unflatten(structure, [jnp.asarray(leaf) for leaf in stored])

    def close(self) -> None:
        """There is nothing to close: the race is a pure function."""


def episodes_of(ended: dict[str, jax.Array]) -> Episodes:
    """What a block's last output says, of one block `[T, N]` or of several."""
    there = jax.tree.map(np.asarray, ended)
    mask = there["is_last"]
    return Episodes(mask.size, there["reward"][mask], there["steps"][mask], there["is_lap"][mask])


def _make_collect(race: Race, policy: Policy, block_length: int) -> Any:
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
            race_state, time_step, events = race.step(state.race, action)
            # An episode's first step carries no reward and was not counted as driven.
            fresh = time_step.is_first
            reward = jnp.where(fresh, 0.0, state.episode_reward + time_step.reward)
            steps = jnp.where(fresh, 0, state.episode_steps + 1)
            ended = {
                "is_last": time_step.is_last,
                "reward": reward,
                "steps": steps,
                "is_lap": events.is_finish,
            }
            state = RolloutState(race_state, time_step, carry, action, reward, steps, key)
            return state, (record, ended)

        state, (trajectory, ended) = jax.lax.scan(step, state, None, length=block_length)
        return state, trajectory, ended

    return jax.jit(collect, donate_argnums=1)
