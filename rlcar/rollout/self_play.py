"""Self-play: a share of the learner's cars race against earlier versions of its policy.

In the other groups every car learns, so the opponents are the present policy. The groups with
earlier versions hold one learning car each; the rest of their cars are hidden in the environment.
The learner, the replay buffer and the checkpoints see N cars, as without self-play.
"""

from collections import deque
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcar.config import Config
from rlcar.rollout.compiled import Rollout, driving_key, restart_seed
from rlcar.types import (
    Array,
    CompiledEnvironment,
    EpisodeEnd,
    Params,
    Policy,
    TimeStep,
    Weights,
)


class SelfPlayState(NamedTuple):
    """The environment of N learning cars and H hidden ones."""

    race: Any  # of all N + H cars
    hidden: TimeStep  # [H, ...] of the hidden cars
    carry: Any  # of the policy that drives them
    past: Params  # its parameters
    key: Array


def past_cars(config: Config) -> int:
    """Returns how many of the learner's cars race against earlier versions: whole groups of them.

    The remaining cars are a multiple of the cars of a track too.
    """
    cars = config.race.cars_per_track
    if cars == 1:
        return 0
    return int(config.training.past_opponents_share * config.training.cars / cars) * cars


def with_past_opponents(
    race: CompiledEnvironment, policy: Policy, past: Params, config: Config, seed: int
) -> CompiledEnvironment:
    """Returns the race of N learning cars, some of which meet cars driven by `past` parameters.

    `race` has groups of `config.race.cars_per_track` cars. Car ids are multiplied by this number,
    so that those of several simulators stay apart.
    """
    cars, past_groups = config.race.cars_per_track, past_cars(config)
    together = config.training.cars - past_groups
    rows = np.arange(together + past_groups * cars)
    is_hidden = (rows >= together) & ((rows - together) % cars > 0)
    own, hidden = rows[~is_hidden], rows[is_hidden]

    def reset(index: Array, seed_: Array) -> tuple[SelfPlayState, TimeStep]:
        first = int(index[0]) * cars
        state, time_step = race.reset((first + rows).astype(np.int32), seed_)
        start = SelfPlayState(
            state,
            _rows(time_step, hidden),
            policy.initial(len(hidden)),
            past,
            jax.random.fold_in(driving_key(seed, first), 1),
        )
        return start, _rows(time_step, own)

    def step(state: SelfPlayState, action: Array) -> tuple[SelfPlayState, TimeStep, EpisodeEnd]:
        key, act_key = jax.random.split(state.key)
        carry, past_action = policy.act(state.past, state.carry, state.hidden, act_key, True)
        actions = jnp.zeros((len(rows), action.shape[1]), action.dtype)
        actions = actions.at[own].set(action).at[hidden].set(past_action.astype(action.dtype))
        next_race, time_step, end = race.step(state.race, actions)
        moved = SelfPlayState(next_race, _rows(time_step, hidden), carry, state.past, key)
        return moved, _rows(time_step, own), _rows(end, own)

    return CompiledEnvironment(race.spec, race.reasons, reset, step)


class SelfPlayRollout(Rollout):
    """Drives N cars, and remembers earlier versions of the policy as opponents of some of them."""

    def __init__(
        self,
        race: CompiledEnvironment,
        config: Config,
        policy: Policy,
        untrained: Params,
        first_car: int = 0,
        restart_id: int = 0,
    ):
        """`untrained` are the parameters of the first opponent."""
        training = config.training
        seed = restart_seed(config.seed, restart_id)
        environment = with_past_opponents(race, policy, untrained, config, seed)
        super().__init__(environment, config, policy, first_car, restart_id)
        self._call_env_steps = training.cars * training.block_length * training.blocks_per_call
        self._every_env_steps = training.past_opponents_every_env_steps
        self._since_env_steps = 0
        self._versions: deque[Params] = deque(maxlen=training.past_opponents_kept)
        self._random = np.random.default_rng([seed, first_car])

    def prepare(self, weights: Weights) -> None:
        """Remembers the policy if that is due, and draws the opponent of the next call."""
        if not self._versions:  # at the start, or after a checkpoint, which holds one version
            self._versions.append(jax.device_get(self.state.environment.past))
        self._since_env_steps += self._call_env_steps
        if self._since_env_steps >= self._every_env_steps:
            self._since_env_steps = 0
            self._versions.append(weights.params)
        drawn = self._versions[int(self._random.integers(len(self._versions)))]
        past = jax.tree.map(lambda new: jnp.array(new), drawn)
        environment = self.state.environment._replace(past=past)
        self.state = self.state._replace(environment=environment)


def _rows(tree: Any, rows: np.ndarray) -> Any:
    return jax.tree.map(lambda leaf: leaf[rows], tree)
