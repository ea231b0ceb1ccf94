"""Races of two drivers on the same tracks, each from both places of the starting grid."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcar.config.race import RaceConfig
from rlcar.evaluation.laps import TIME_LIMIT_STEPS
from rlcar.league.entrants import Entrant
from rlcar.sim import Race, make_race
from rlcar.sim.fixed import LAP_BITS
from rlcar.track import make_pool
from rlcar.types import Array

CARS = 2


class Finish(NamedTuple):
    """How the cars of R races ended, `[R, 2]` each; the columns are the two drivers.

    The first half of the races has the first driver on the first place of the grid.
    """

    finish_steps: np.ndarray  # int32, when it finished; 0 = it did not
    driven: np.ndarray  # float32, laps driven at the end
    is_crash: np.ndarray  # bool
    contacts: np.ndarray  # int32, how often it ran into the other: 0 or 1, because it then crashes
    overtakes: np.ndarray  # int32

    @property
    def score(self) -> np.ndarray:
        """1 for a win, 0.5 for a draw and 0 for a defeat of the first driver, `[R]`.

        The car that finishes first wins. If neither finishes, the one that got farther wins.
        """
        never = np.iinfo(np.int32).max
        steps = np.where(self.finish_steps > 0, self.finish_steps, never).astype(np.int64)
        is_faster = np.sign(steps[:, 1] - steps[:, 0])
        is_farther = np.sign(self.driven[:, 0] - self.driven[:, 1])
        neither = (self.finish_steps == 0).all(axis=1)
        return 0.5 + 0.5 * np.where(neither, is_farther, is_faster)


class _Drive(NamedTuple):
    step: Array  # []
    race: Any
    time_step: Any
    carries: tuple[Any, Any]
    key: Array
    is_done: Array  # [N]
    finish_steps: Array
    driven: Array
    is_crash: Array
    contacts: Array
    overtakes: Array


def race_rules(race: RaceConfig, laps: int) -> RaceConfig:
    """Returns the settings of a race of two cars over so many laps, in the given world."""
    limit = min(race.time_limit_steps, TIME_LIMIT_STEPS) * laps
    changes = {"cars_per_track": CARS, "rival": None, "laps": laps, "time_limit_steps": limit}
    return race.model_copy(update=changes)


def run_match(
    first: Entrant, second: Entrant, rules: RaceConfig, seeds: Sequence[int], seed: int = 0
) -> Finish:
    """Lets two drivers race on each track twice, once from either place of the grid."""
    race = make_race(rules, make_pool(seeds, rules.track), track_choice="fixed")
    rows = rows_of_drivers(len(seeds))
    params = first.params, second.params
    run = jax.jit(lambda params: _race(race, (first, second), params, rows, rules, seed))
    with jax.debug_nans(False):
        end = jax.device_get(run(params))

    def by_driver(values: Any) -> np.ndarray:
        return np.stack([np.asarray(values)[row] for row in rows], axis=1)

    return Finish(*(by_driver(values) for values in end))


def rows_of_drivers(tracks: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of either driver: it has the first place in one half of the races."""
    group = np.arange(2 * tracks)
    first = CARS * group + (group >= tracks)
    return first, CARS * group + (group < tracks)


def _race(
    race: Race,
    entrants: tuple[Entrant, Entrant],
    params: tuple[Any, Any],
    rows: tuple[np.ndarray, np.ndarray],
    rules: RaceConfig,
    seed: int,
) -> tuple[Array, ...]:
    half = len(rows[0])
    number = CARS * half
    state, time_step = race.reset(jnp.arange(number, dtype=jnp.int32), seed)
    zero = jnp.zeros(number, jnp.int32)
    start = _Drive(
        step=jnp.int32(0),
        race=state,
        time_step=time_step,
        carries=(
            entrants[0].policy.initial(len(rows[0])),
            entrants[1].policy.initial(len(rows[1])),
        ),
        key=jax.random.key(seed),
        is_done=zero > 0,
        finish_steps=zero,
        driven=jnp.zeros(number, jnp.float32),
        is_crash=zero > 0,
        contacts=zero,
        overtakes=zero,
    )

    def advance(drive: _Drive) -> _Drive:
        key, act_key = jax.random.split(drive.key)
        action = jnp.zeros((number, 2), jnp.float32)
        carries = []
        for entrant, own, carry, row in zip(entrants, params, drive.carries, rows, strict=True):
            seen = jax.tree.map(lambda leaf, row=row: leaf[row], drive.time_step)
            carry, chosen = entrant.policy.act(own, carry, seen, act_key, False)
            action = action.at[row].set(chosen.astype(jnp.float32))
            carries.append(carry)
        state, time_step, events = race.step(drive.race, action)
        is_driving, step = ~drive.is_done, drive.step + 1
        driven = (state.lap + state.position * 2.0**-LAP_BITS).astype(jnp.float32)
        met = events.encounters
        assert met is not None  # two cars share each track
        return _Drive(
            step=step,
            race=state,
            time_step=time_step,
            carries=(carries[0], carries[1]),
            key=key,
            is_done=drive.is_done | time_step.is_last,
            finish_steps=jnp.where(is_driving & events.is_finish, step, drive.finish_steps),
            driven=jnp.where(is_driving, driven, drive.driven),
            is_crash=drive.is_crash | (is_driving & events.is_crash),
            contacts=drive.contacts + (is_driving & met.is_at_fault),
            overtakes=drive.overtakes + jnp.where(is_driving, met.overtakes, 0),
        )

    end = jax.lax.while_loop(
        lambda drive: (drive.step < rules.time_limit_steps) & ~drive.is_done.all(), advance, start
    )
    return end.finish_steps, end.driven, end.is_crash, end.contacts, end.overtakes
