"""Drives one car with a policy, step by step, for `rlcar play` and `rlcar render`."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from rlcar.agents import algorithm_of, make_agent
from rlcar.config import Config, load_config
from rlcar.config.race import RaceConfig
from rlcar.evaluation.run_report import load_policy
from rlcar.runs.run import require_race, require_run
from rlcar.sim import SPEC, CarView, make_race
from rlcar.track import make_pool
from rlcar.types import Array, Params, Policy, TimeStep


class CarPolicy:
    """A policy and its memory, which drive one car without exploration."""

    def __init__(
        self,
        policy: Policy,
        params: Params,
        name: str = "policy",
        latent_of: Callable[[Any], Array] | None = None,
    ):
        """`latent_of` maps the policy's carry to the latent state `[N, S, K]`, if it has one."""
        self.name, self._latent_of = name, latent_of
        self._policy, self._params = policy, params
        self._act = jax.jit(policy.act, static_argnums=4)
        self._key = jax.random.key(0)
        self._carry = policy.initial(1)

    def act(self, time_step: TimeStep) -> np.ndarray:
        """Returns the action `[1, A]`; resets the memory where `time_step.is_first`."""
        self._key, key = jax.random.split(self._key)
        self._carry, action = self._act(self._params, self._carry, time_step, key, False)
        return np.asarray(action)

    @property
    def latent(self) -> np.ndarray | None:
        """The world model's latent state `[S, K]`; None for a policy without a world model."""
        return None if self._latent_of is None else np.asarray(self._latent_of(self._carry))[0]


class Moment(NamedTuple):
    """What is drawn of one car at one step."""

    time_step: TimeStep
    view: CarView
    is_crash: bool
    lap_time_steps: int
    latent: np.ndarray | None


def load_car_policy(path: Path) -> tuple[Config, CarPolicy]:
    """Loads the policy of a run, or of one checkpoint of it."""
    folder = require_run(path)
    config = load_config(folder / "config.json")
    require_race(folder, config)
    agent = make_agent(config, SPEC)
    _, params = load_policy(folder, path, agent, config.seed)
    return config, CarPolicy(agent.policy, params, folder.name, _latent_of(config))


def _latent_of(config: Config) -> Callable[[Any], Array] | None:
    load_dream_support = algorithm_of(config).load_dream_support
    if load_dream_support is None:
        return None
    return functools.partial(load_dream_support().latent_of, config.algorithm_settings)


def drive_episode(policy: CarPolicy, race_config: RaceConfig, track_seed: int) -> Iterator[Moment]:
    """Yields each moment of one episode on one track, from the start."""
    pool = make_pool([track_seed], race_config.track)
    race = make_race(race_config.alone, pool, xp=np, track_choice="fixed")
    state, time_step = race.reset(np.zeros(1, np.int32), 0)
    yield Moment(time_step, race.view(state), False, 0, policy.latent)
    while not time_step.is_last[0]:
        state, time_step, events = race.step(state, policy.act(time_step))
        lap_time_steps = int(events.lap_time_steps[0])
        crash = bool(events.is_crash[0])
        yield Moment(time_step, race.view(state), crash, lap_time_steps, policy.latent)
