"""A compiled race whose state and output are packed into one array, for the Gymnasium environments.

The overhead of calling a compiled function grows with the number of its arrays. For few cars it
exceeds the time of the race itself.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcar.sim.backend import COMPILER_OPTIONS, one_kernel
from rlcar.sim.race import Race
from rlcar.sim.state import CarView, Events, RaceState
from rlcar.types import Array, TimeStep


class PackedRace(NamedTuple):
    """The compiled race of N cars.

    `reset(car_id [N], seed)` and `step(packed, action [N, 2])` return one int32 array, which holds
    the state and the output.

    `output(packed)` is the output as read-only float32 numbers. It is a sequence of arrays:
    observation `[N, O]`; then, `[N]` each, reward, is_last, is_terminal, lap time (steps), x and y
    (px), speed (px/step), heading (degrees) and progress; with `same_step` also the observation
    `[N, O]` on which the next action is chosen.

    `view(packed)` is that of the race.
    """

    reset: Callable[[np.ndarray, Any], jax.Array]
    step: Callable[[jax.Array, np.ndarray], jax.Array]
    output: Callable[[jax.Array], np.ndarray]
    view: Callable[[jax.Array], CarView]


def pack_race(race: Race, cars: int, same_step: bool = False) -> PackedRace:
    """Compiles a race of `cars` cars; with `same_step` an ended car restarts in the same step."""
    shapes = jax.eval_shape(race.reset, jax.ShapeDtypeStruct((cars,), np.int32), 0)[0]
    leaves, structure = jax.tree.flatten(shapes)
    size = len(leaves) * cars

    def unpack(packed: jax.Array) -> RaceState:
        rows = packed[:size].reshape(len(leaves), cars)
        parts = [rows[i].astype(leaf.dtype) for i, leaf in enumerate(leaves)]
        state: RaceState = jax.tree.unflatten(structure, parts)
        return state

    def pack(
        state: RaceState, time_step: TimeStep, lap_time_steps: Array, next_observation: Array | None
    ) -> jax.Array:
        view = race.view(state)
        pose = (view.x_px, view.y_px, view.speed_px_per_step, view.heading_deg, view.progress)
        ends = (time_step.is_last, time_step.is_terminal, lap_time_steps)
        parts = [time_step.observation.reshape(-1)]
        parts += [jnp.asarray(x).astype(jnp.float32) for x in (time_step.reward, *ends, *pose)]
        parts += [] if next_observation is None else [next_observation.reshape(-1)]
        output = jax.lax.bitcast_convert_type(jnp.concatenate(parts), jnp.int32)
        fields = [leaf.astype(jnp.int32) for leaf in jax.tree.leaves(state)]
        return jnp.concatenate([*fields, output])

    def reset(car_id: Array, seed: Array) -> jax.Array:
        state, time_step = race.reset(car_id, seed)
        next_observation = time_step.observation if same_step else None
        return pack(state, time_step, jnp.zeros(cars), next_observation)

    def step(packed: jax.Array, action: Array) -> jax.Array:
        action = action.reshape(cars, -1)
        state, time_step, events = race.step(unpack(packed), action)
        next_observation = None
        if same_step:
            state, next_observation = _restart_ended(race.step, state, time_step, action)
        return pack(state, time_step, events.lap_time_steps, next_observation)

    return PackedRace(
        reset=jax.jit(reset),
        step=jax.jit(one_kernel(step), compiler_options=COMPILER_OPTIONS),
        output=lambda packed: np.asarray(packed)[size:].view(np.float32),
        view=lambda packed: race.view(unpack(packed)),
    )


def _restart_ended(
    step: Callable[[RaceState, Array], tuple[RaceState, TimeStep, Events]],
    state: RaceState,
    time_step: TimeStep,
    action: Array,
) -> tuple[RaceState, Array]:
    """Starts the next episode of ended cars; returns the observation that all cars act on."""
    ended = state.is_ended

    def restart(state: RaceState) -> tuple[RaceState, Array]:
        fresh, first, _ = step(state, action)
        chosen = jax.tree.map(lambda new, old: jnp.where(ended, new, old), fresh, state)
        return chosen, jnp.where(ended[:, None], first.observation, time_step.observation)

    def change_nothing(state: RaceState) -> tuple[RaceState, Array]:
        return state, time_step.observation

    chosen: tuple[RaceState, Array] = jax.lax.cond(ended.any(), restart, change_nothing, state)
    return chosen
