"""The race: N cars, each on its own track, as pure functions of their state."""

import math
from collections.abc import Callable
from types import ModuleType
from typing import Literal, NamedTuple

import jax
import jax.numpy
import numpy as np

from rlcar.config.race import RaceConfig, SensorConfig
from rlcar.errors import ConfigError
from rlcar.sim.backend import Backend, make_backend, one_kernel
from rlcar.sim.fixed import (
    COSINE,
    HEADING_BITS,
    LAP_BITS,
    POSITION_BITS,
    REWARD_BITS,
    SENSE_UNITS_PER_PX,
    SPEED_BITS,
    quantise_action,
)
from rlcar.sim.hidden import (
    Hidden,
    corrupt_readings,
    delay_action,
    draw_hidden,
    has_nothing_hidden,
)
from rlcar.sim.motion import (
    Controls,
    Pose,
    curvature_table,
    drive_classic,
    drive_single_track,
    top_speed,
)
from rlcar.sim.rewards import checkpoint_index, documented_reward, progress_reward
from rlcar.sim.rival import pack_lines, scripted_lines
from rlcar.sim.road import Tables, locate, make_tables, start_position
from rlcar.sim.sensors import (
    RANGE,
    RAYS,
    Circle,
    is_touching,
    make_frame,
    sense_circle,
    sense_edges,
)
from rlcar.sim.state import CarView, Events, Outcome, RaceState
from rlcar.track import TrackPool, grid
from rlcar.track.hashing import hash_words
from rlcar.track.shape import MIN_CELL_PX
from rlcar.types import Array, Spec, TimeStep

SPEC = Spec(observation_size=RAYS + 1, action_size=2)
TrackChoice = Literal["random", "fixed"]


class Race(NamedTuple):
    """Pure functions of N cars, with the same bits at any batch size and in NumPy and JAX.

    `reset(car_id [N] int32, seed [] or [N])` -> (state, time step).

    `step(state, action [N, 2] float32)` -> (state, time step, events). Actions are clipped; a NaN
    counts as 0. For a car whose last time step has `is_last`, the step ignores the action and
    starts the next episode.

    `view(state)` -> the cars in px and degrees, for drawing and people.
    """

    reset: Callable[[Array, Array], tuple[RaceState, TimeStep]]
    step: Callable[[RaceState, Array], tuple[RaceState, TimeStep, Events]]
    view: Callable[[RaceState], CarView]


class World(NamedTuple):
    """Everything that stays the same during a race."""

    backend: Backend
    config: RaceConfig
    tables: Tables
    cosine: Array  # `fixed.COSINE`
    curvature: Array  # `motion.curvature_table`
    rival_line: Array  # packed positions of the rival on all tracks, one track after the other
    rival_start: Array  # [M + 1] index in `rival_line` at which each track begins
    gates_a_step: int  # largest number of gates that a car may pass in one step
    tracks: int  # M
    track_choice: TrackChoice


def make_race(
    config: RaceConfig,
    pool: TrackPool,
    xp: ModuleType = jax.numpy,
    track_choice: TrackChoice = "random",
    rival_lines: list[np.ndarray] | None = None,
) -> Race:
    """Makes a race over the tracks of a pool; `xp` is the module `numpy` or `jax.numpy`.

    The track choice "random" draws the track of each episode from (seed, car_id, episode). "fixed"
    gives car i always track i modulo the size of the pool. `rival_lines` (see `rlcar.sim.rival`)
    are the laps of the second car, one for each track; by default it drives a scripted lap.
    """
    return race_of(make_world(config, pool, make_backend(xp), track_choice, rival_lines))


def make_world(
    config: RaceConfig,
    pool: TrackPool,
    backend: Backend,
    track_choice: TrackChoice = "random",
    rival_lines: list[np.ndarray] | None = None,
) -> World:
    """Prepares the tables of a race; raises ConfigError if the pool has other settings."""
    made = (pool.points, pool.obstacles.shape[1])
    wanted = (config.track.points, config.track.obstacles)
    if made != wanted:
        raise ConfigError(
            f"the track pool was made with (points, obstacles) = {made}, but the race has "
            f"{wanted}: pass the same TrackConfig to make_pool and make_race"
        )
    if rival_lines is None and config.rival is not None:
        rival_lines = scripted_lines(pool, config.rival.pace_px_per_step)
    if rival_lines is not None and (config.rival is None or len(rival_lines) != len(pool.seeds)):
        raise ConfigError(
            f"there are {len(rival_lines)} lines of a rival for {len(pool.seeds)} tracks and "
            f"race.rival = {config.rival}: set race.rival and give one line for each track"
        )
    line, start = pack_lines(rival_lines) if rival_lines else (np.zeros(1), np.zeros(2))

    def table(array: np.ndarray) -> Array:
        return backend.xp.asarray(array.astype(backend.integer))

    return World(
        backend=backend,
        config=config,
        tables=make_tables(backend, pool),
        cosine=table(COSINE),
        curvature=table(curvature_table()),
        rival_line=table(line),
        rival_start=table(start),
        gates_a_step=math.ceil(config.vehicle.top_speed_px_per_step / MIN_CELL_PX),
        tracks=len(pool.seeds),
        track_choice=track_choice,
    )


def race_of(world: World) -> Race:
    """Returns the functions below, bound to a world."""

    def reset(car_id: Array, seed: Array) -> tuple[RaceState, TimeStep]:
        xp, integer = world.backend.xp, world.backend.integer
        car_id = xp.asarray(car_id).astype(integer)
        seeds = xp.zeros_like(car_id) + xp.asarray(seed).astype(integer).reshape(-1)
        state = begin_episode(world, car_id, seeds, xp.zeros_like(car_id))
        is_first = xp.ones(car_id.shape, bool)
        return state, TimeStep(
            observation=observe(world, state, is_first),
            reward=xp.zeros(car_id.shape, np.float32),
            is_first=is_first,
            is_last=~is_first,
            is_terminal=~is_first,
        )

    def step(state: RaceState, action: Array) -> tuple[RaceState, TimeStep, Events]:
        return step_or_reset(world, state, action)

    def view(state: RaceState) -> CarView:
        return view_cars(world, state)

    return Race(reset, step if world.backend.xp is np else one_kernel(step), view)


def begin_episode(world: World, car_id: Array, seed: Array, episode: Array) -> RaceState:
    """Returns the state of cars at the start of an episode."""
    xp = world.backend.xp
    track = _choose_track(world, car_id, seed, episode)
    x, y = start_position(world.backend, world.tables, track)
    zero = xp.zeros_like(car_id)
    hidden = None
    if not has_nothing_hidden(world.config):
        hidden = draw_hidden(world.backend, world.config, seed, car_id, episode)
    return RaceState(
        car_id=car_id,
        seed=seed,
        episode=episode,
        track=track,
        x=x,
        y=y,
        speed=zero,
        heading=world.backend.take(world.tables.start_heading, track),
        cell=zero,
        lap=zero,
        position=zero,
        laps_done=zero,
        lap_start_step=zero,
        checkpoint=zero,
        checkpoint_step=zero,
        episode_steps=zero,
        is_ended=xp.zeros(car_id.shape, bool),
        hidden=hidden,
    )


def advance(world: World, state: RaceState, action: Array) -> tuple[RaceState, Outcome]:
    """Drives every car one step without a reset; `state.is_ended` marks ended episodes."""
    backend, xp, config = world.backend, world.backend.xp, world.config
    hidden, (x, y, speed, heading) = _drive(world, state, action)
    place = locate(
        backend, world.tables, state.track, x, y, state.cell, state.lap, world.gates_a_step
    )
    steps = state.episode_steps + 1
    is_crash = ~place.is_on_road
    for circle in _circles(world, state.track, steps, hidden):
        is_crash = is_crash | is_touching(backend, circle, x, y)

    is_lap = (place.lap > state.laps_done) & ~is_crash
    laps_done = xp.where(is_lap, place.lap, state.laps_done)
    is_finish = is_lap & (laps_done >= config.laps)
    is_timeout = (steps >= config.time_limit_steps) & ~is_crash & ~is_finish

    checkpoint = checkpoint_index(place.lap, place.position)
    is_checkpoint = checkpoint > state.checkpoint
    if config.reward == "progress":
        # A car passes at most four cells a step, so the reward stays far below 2^31.
        gain = ((place.lap - state.lap) << LAP_BITS) + place.position - state.position
        reward = progress_reward(backend, gain, is_crash)
    else:
        checkpoint_steps = steps - state.checkpoint_step
        reward = documented_reward(backend, speed, is_crash, is_checkpoint, checkpoint_steps)

    moved = state._replace(
        x=x,
        y=y,
        speed=speed,
        heading=heading,
        cell=place.cell,
        lap=place.lap,
        position=place.position,
        laps_done=laps_done,
        lap_start_step=xp.where(is_lap, steps, state.lap_start_step),
        checkpoint=xp.where(is_checkpoint, checkpoint, state.checkpoint),
        checkpoint_step=xp.where(is_checkpoint, steps, state.checkpoint_step),
        episode_steps=steps,
        is_ended=is_crash | is_finish | is_timeout,
        hidden=hidden,
    )
    return moved, Outcome(
        reward=reward,
        is_on_road=place.is_on_road,
        is_crash=is_crash,
        is_finish=is_finish,
        is_timeout=is_timeout,
        lap_time_steps=xp.where(is_lap, steps - state.lap_start_step, 0),
    )


def step_or_reset(
    world: World, state: RaceState, action: Array
) -> tuple[RaceState, TimeStep, Events]:
    """Advances every car; a car whose episode has ended starts the next one instead."""
    xp = world.backend.xp
    is_first = state.is_ended
    moved, outcome = advance(world, state, action)
    fresh = begin_episode(world, state.car_id, state.seed, state.episode + 1)
    next_state = jax.tree.map(lambda new, old: xp.where(is_first, new, old), fresh, moved)
    reward = xp.where(is_first, 0, outcome.reward).astype(np.float32)
    is_crash, is_finish = outcome.is_crash & ~is_first, outcome.is_finish & ~is_first
    time_step = TimeStep(
        observation=observe(world, next_state, outcome.is_on_road | is_first),
        reward=reward * np.float32(2.0**-REWARD_BITS),
        is_first=is_first,
        is_last=next_state.is_ended,
        is_terminal=is_crash | is_finish,
    )
    lap_time_steps = xp.where(is_first, 0, outcome.lap_time_steps)
    return next_state, time_step, Events(lap_time_steps, is_crash, is_finish)


def observe(world: World, state: RaceState, is_on_road: Array) -> Array:
    """Returns the five rays / 150 px and speed / top speed, `[N, 6]` float32 in [0, 1]."""
    backend, xp = world.backend, world.backend.xp
    frame = make_frame(backend, world.cosine, state.x, state.y, state.heading)
    reading = sense_edges(backend, world.tables, frame, state.track, state.cell, is_on_road)
    for circle in _circles(world, state.track, state.episode_steps, state.hidden):
        reading = sense_circle(backend, frame, circle, reading)
    if world.config.sensors != SensorConfig():
        moment = (state.episode, state.episode_steps)
        reading = corrupt_readings(
            backend, _present(state.hidden), state.seed, state.car_id, moment, reading
        )
    # A single multiplication each, which no compiler can fuse into one that rounds differently.
    rays = reading.astype(np.float32) * np.float32(1 / RANGE)
    speed = state.speed.astype(np.float32) * np.float32(1 / top_speed(world.config.vehicle))
    return xp.concatenate([rays, speed[None]], axis=0).T


def view_cars(world: World, state: RaceState) -> CarView:
    """Returns the cars in px and degrees; products with powers of two are exact in float32."""
    xp = world.backend.xp
    lap_units = 1 << LAP_BITS
    laps_ahead = xp.clip(state.lap - state.laps_done, -1, 1)
    units = xp.clip((laps_ahead << LAP_BITS) + state.position, 0, lap_units)
    units = xp.where(state.laps_done >= world.config.laps, lap_units, units)
    top = grid.WORLD_HEIGHT_PX << POSITION_BITS

    def scaled(value: Array, unit: float) -> Array:
        return value.astype(np.float32) * np.float32(unit)

    return CarView(
        x_px=scaled(state.x, 2.0**-POSITION_BITS),
        y_px=scaled(top - state.y, 2.0**-POSITION_BITS),
        speed_px_per_step=scaled(state.speed, 2.0**-SPEED_BITS),
        heading_deg=scaled(state.heading, 360.0 * 2.0**-HEADING_BITS),
        progress=scaled(units, 2.0**-LAP_BITS),
        episode_steps=state.episode_steps,
        track_index=state.track,
        rival_px=_rival_px(world, state),
        delay_steps=xp.zeros_like(state.x) if state.hidden is None else state.hidden.delay,
    )


def _choose_track(world: World, car_id: Array, seed: Array, episode: Array) -> Array:
    if world.track_choice == "fixed":
        return car_id % world.tracks
    # The upper 16 bits of the hash, scaled to the size of the pool, which is at most 2^16.
    drawn = hash_words(seed, car_id, episode) >> 16
    return (drawn * np.uint32(world.tracks) >> 16).astype(world.backend.integer)


def _drive(world: World, state: RaceState, action: Array) -> tuple[Hidden | None, Pose]:
    """Returns the next hidden conditions and poses of the cars."""
    backend, vehicle, hidden = world.backend, world.config.vehicle, state.hidden
    pose = Pose(state.x, state.y, state.speed, state.heading)
    controls = Controls(*(quantise_action(backend, action[:, i]) for i in range(2)))
    if vehicle.delay_steps.high > 0:
        hidden, controls = delay_action(backend, _present(hidden), controls)
    if vehicle.model == "classic":
        return hidden, drive_classic(backend, world.cosine, pose, controls)
    tables, top, grip = (world.cosine, world.curvature), top_speed(vehicle), _present(hidden).grip
    return hidden, drive_single_track(backend, tables, top, pose, controls, grip)


def _present(hidden: Hidden | None) -> Hidden:
    assert hidden is not None, "this race has hidden conditions, so its state must hold them"
    return hidden


def _rival_px(world: World, state: RaceState) -> Array:
    xp = world.backend.xp
    if world.config.rival is None:
        return xp.full((*state.x.shape, 2), np.float32(np.nan), np.float32)
    centre = _circles(world, state.track, state.episode_steps, state.hidden)[-1].centre
    x_px = grid.unpack_x(centre).astype(np.float32) * np.float32(1 / grid.UNITS_PER_PX)
    y_px = grid.unpack_y(centre).astype(np.float32) * np.float32(1 / grid.UNITS_PER_PX)
    return xp.stack([x_px, np.float32(grid.WORLD_HEIGHT_PX) - y_px], axis=1)


def _circles(world: World, track: Array, step: Array, hidden: Hidden | None) -> list[Circle]:
    """Returns the obstacles on the road, then the rival; an edge hides obstacles in the infield."""
    backend, config, circles = world.backend, world.config, []
    if config.track.obstacle_placement == "road":
        radius = int(config.track.obstacle_radius_px * SENSE_UNITS_PER_PX)
        for row in range(config.track.obstacles):
            circles.append(Circle(backend.take(world.tables.obstacles[row], track), radius))
    if config.rival is not None and hidden is not None:
        radius = int(config.rival.radius_px * SENSE_UNITS_PER_PX)
        first = backend.take(world.rival_start, track)
        steps = backend.take(world.rival_start, track + 1) - first
        # The head start in steps; six bits of it are dropped, as 2^14 * 2^16 < 2^31.
        ahead = (hidden.head_start >> 6) * steps >> (LAP_BITS - 6)
        centre = backend.take(world.rival_line, first + (ahead + step) % steps)
        circles.append(Circle(centre, radius))
    return circles
