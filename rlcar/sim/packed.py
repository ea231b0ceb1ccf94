"""A race whose state and answer are one array: what the Gymnasium faces call.

A call of a compiled function costs by the number of its arrays, for few cars more than the race.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcar.sim.backend import COMPILER_OPTIONS, one_kernel
from rlcar.sim.race import Race
from rlcar.sim.state import CarView, Events, RaceState
from rlcar.types import TimeStep


class PackedRace(NamedTuple):
    """N cars of a race, compiled.

    `reset(car_id, seed)` and `step(packed, action [N, 2])` return one int32 array with the state
    and what the step told; `told(packed)` is the latter, read-only: `N` float32 numbers for each of
    the observation (`[N, O]`, so `O` times as many), reward, is_last, is_terminal, lap time
    (steps), x and y (px), speed (px/step), heading (degrees), progress; with `same_step` also
    the next episode's first observation `[N, O]`.
    """

    reset: Callable[[np.ndarray, Any], Any]
    step: Callable[[Any, np.ndarray], Any]
    told: Callable[[Any], np.ndarray]
    view: Callable[[Any], CarView]


def pack_race(race: Race, cars: int, same_step: bool = False) -> PackedRace:
    """Packs a race of so many cars; with `same_step` an ended car begins anew in the same step."""
    like = jax.eval_shape(race.reset, jax.ShapeDtypeStruct((cars,), np.int32), 0)[0]
    leaves, structure = jax.tree.flatten(like)
    size = len(leaves) * cars

    def unpack(packed: Any) -> RaceState:
        rows = packed[:size].reshape(len(leaves), cars)
        parts = [rows[i].astype(leaf.dtype) for i, leaf in enumerate(leaves)]
        state: RaceState = jax.tree.unflatten(structure, parts)
        return state

    def pack(state: RaceState, said: TimeStep, lap_time_steps: Any, fresh: Any) -> Any:
        view = race.view(state)
        words = (said.reward, said.is_last, said.is_terminal, lap_time_steps)
        seen = (view.x_px, view.y_px, view.speed_px_per_step, view.heading_deg, view.progress)
        parts = [said.observation.reshape(-1)]
        parts += [jnp.asarray(word).astype(jnp.float32) for word in (*words, *seen)]
        parts += [] if fresh is None else [fresh.reshape(-1)]
        told = jax.lax.bitcast_convert_type(jnp.concatenate(parts), jnp.int32)
        kept = [leaf.astype(jnp.int32) for leaf in jax.tree.leaves(state)]
        return jnp.concatenate([*kept, told])

    def reset(car_id: Any, seed: Any) -> Any:
        state, time_step = race.reset(car_id, seed)
        fresh = time_step.observation if same_step else None
        return pack(state, time_step, jnp.zeros(cars), fresh)

    def step(packed: Any, action: Any) -> Any:
        action = action.reshape(cars, -1)
        state, time_step, events = race.step(unpack(packed), action)
        fresh = None
        if same_step:
            state, fresh = _begin_ended(race.step, state, time_step, action)
        return pack(state, time_step, events.lap_time_steps, fresh)

    return PackedRace(
        reset=jax.jit(reset),
        step=jax.jit(one_kernel(step), compiler_options=COMPILER_OPTIONS),
        told=lambda packed: np.asarray(packed)[size:].view(np.float32),
        view=lambda packed: race.view(unpack(packed)),
    )


def _begin_ended(
    step: Callable[[RaceState, Any], tuple[RaceState, TimeStep, Events]],
    state: RaceState,
    time_step: TimeStep,
    action: Any,
) -> tuple[RaceState, Any]:
    """Lets ended cars begin their next episode; returns the observation that they act on."""
    ended = state.is_ended

    def begin(state: RaceState) -> tuple[RaceState, Any]:
        fresh, first, _ = step(state, action)
        chosen = jax.tree.map(lambda new, old: jnp.where(ended, new, old), fresh, state)
        return chosen, jnp.where(ended[:, None], first.observation, time_step.observation)

    def go_on(state: RaceState) -> tuple[RaceState, Any]:
        return state, time_step.observation

    chosen: tuple[RaceState, Any] = jax.lax.cond(ended.any(), begin, go_on, state)
    return chosen
