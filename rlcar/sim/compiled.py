"""The race as a compiled environment, like every other one that compiled rollouts drive."""

import jax.numpy as jnp
import numpy as np

from rlcar.config.race import RaceConfig
from rlcar.sim.race import SPEC, make_race
from rlcar.sim.state import RaceState
from rlcar.track import TrackPool
from rlcar.types import Array, CompiledEnvironment, EpisodeEnd, TimeStep

REASONS = ("crash", "finish", "time limit")
_CRASH, _FINISH, _TIME_LIMIT = range(3)


def make_compiled_race(config: RaceConfig, pool: TrackPool) -> CompiledEnvironment:
    """Makes the race over the tracks of a pool; a finish is a success."""
    race = make_race(config, pool)

    def step(state: RaceState, action: Array) -> tuple[RaceState, TimeStep, EpisodeEnd]:
        state, time_step, events = race.step(state, action)
        reason = jnp.where(
            events.is_crash, _CRASH, jnp.where(events.is_finish, _FINISH, _TIME_LIMIT)
        )
        return state, time_step, EpisodeEnd(reason, reason == _FINISH, {})

    # NumPy gives the same bits as JAX and saves seconds of compiling a program with all tracks.
    return CompiledEnvironment(SPEC, REASONS, make_race(config, pool, np).reset, step)
