"""The race itself: N cars, each on its own track, as pure functions of their state."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax.numpy
import numpy as np

from rlcar.config import RaceConfig
from rlcar.errors import ConfigError
from rlcar.sim.backend import Backend, make_backend
from rlcar.sim.fixed import (
    COSINE,
    HEADING_BITS,
    LAP_BITS,
    POSITION_BITS,
    REWARD_BITS,
    SENSE_UNITS_PER_PX,
    SPEED_BITS,
)
from rlcar.sim.motion import TOP_SPEED, drive
from rlcar.sim.rewards import checkpoint_index, documented_reward, progress_reward
from rlcar.sim.road import Tables, locate, make_tables, start_position
from rlcar.sim.sensors import RANGE, RAYS, is_touching, make_frame, sense_edges, sense_obstacles
from rlcar.sim.state import CarView, Events, Outcome, RaceState
from rlcar.track import TrackPool, grid
from rlcar.track.hashing import hash_words
from rlcar.types import Spec, TimeStep

SPEC = Spec(observation_size=RAYS + 1, action_size=2)
TrackChoice = Literal["random", "fixed"]


class Race(NamedTuple):
    """Pure functions of N cars at once; the same bits at any batch size and back-end.

    `reset(car_id [N] int32, seed)` -> (state, time step);
    `step(state, action [N, 2] float32)` -> (state, time step, events): actions are clipped, a NaN
    counts as 0; after a step with `is_last` the next one ignores its action and starts anew;
    `view(state)` -> what people and pictures need.
    """

    reset: Callable[[Any, Any], tuple[RaceState, TimeStep]]
    step: Callable[[RaceState, Any], tuple[RaceState, TimeStep, Events]]
    view: Callable[[RaceState], CarView]


class World(NamedTuple):
    """Everything that does not change during a race."""

    backend: Backend
    config: RaceConfig
    tables: Tables
    cosine: Any
    tracks: int
    track_choice: TrackChoice


def make_race(
    config: RaceConfig,
    pool: TrackPool,
    xp: Any = jax.numpy,
    track_choice: TrackChoice = "random",
) -> Race:
    """Makes the race over the pool's tracks, for `xp` in {numpy, jax.numpy}.

    "random" draws each episode's track from (seed, car_id, episode); "fixed" gives car i always
    track i modulo the pool's size.
    """
    return race_of(make_world(config, pool, make_backend(xp), track_choice))


def make_world(
    config: RaceConfig, pool: TrackPool, backend: Backend, track_choice: TrackChoice = "random"
) -> World:
    """Moves the pool to the back-end; raises ConfigError if it was made with other settings."""
    made, wanted = (
        (pool.points, pool.obstacles.shape[1]),
        (config.track.points, config.track.obstacles),
    )
    if made != wanted:
        raise ConfigError(
            f"the track pool was made with (points, obstacles) = {made}, the race wants {wanted}: "
            "pass the same TrackConfig to make_pool and make_race"
        )
    return World(
        backend=backend,
        config=config,
        tables=make_tables(backend, pool, config.track.half_width_px),
        cosine=backend.xp.asarray(COSINE.astype(backend.integer)),
        tracks=len(pool.seeds),
        track_choice=track_choice,
    )


def race_of(world: World) -> Race:
    """Binds the functions below to a world."""

    def reset(car_id: Any, seed: Any) -> tuple[RaceState, TimeStep]:
        xp, integer = world.backend.xp, world.backend.integer
        car_id = xp.asarray(car_id).astype(integer)
        seeds = xp.zeros_like(car_id) + xp.asarray(seed).astype(integer).reshape(1)
        state = begin_episode(world, car_id, seeds, xp.zeros_like(car_id))
        is_first = xp.ones(car_id.shape, bool)
        return state, TimeStep(
            observation=observe(world, state, is_first),
            reward=xp.zeros(car_id.shape, np.float32),
            is_first=is_first,
            is_last=~is_first,
            is_terminal=~is_first,
        )

    def step(state: RaceState, action: Any) -> tuple[RaceState, TimeStep, Events]:
        return step_or_reset(world, state, action)

    def view(state: RaceState) -> CarView:
        return view_cars(world, state)

    return Race(reset, step, view)


def begin_episode(world: World, car_id: Any, seed: Any, episode: Any) -> RaceState:
    """Returns cars at the start of their episode's track."""
    xp = world.backend.xp
    track = _choose_track(world, car_id, seed, episode)
    x, y = start_position(world.backend, world.tables, track)
    zero = xp.zeros_like(car_id)
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
    )


def advance(world: World, state: RaceState, action: Any) -> tuple[RaceState, Outcome]:
    """Drives every car one step, without any reset; `state.is_ended` says whose episode ended."""
    backend, xp, config = world.backend, world.backend.xp, world.config
    x, y, speed, heading = drive(
        backend, world.cosine, state.x, state.y, state.speed, state.heading, action
    )
    place = locate(backend, world.tables, state.track, x, y, state.cell, state.lap)
    is_crash = ~place.is_on_road
    if _has_road_obstacles(world):
        radius = _obstacle_radius(world)
        is_crash = is_crash | is_touching(backend, world.tables, state.track, x, y, radius)
    steps = state.episode_steps + 1

    is_lap = (place.lap > state.laps_done) & ~is_crash
    laps_done = xp.where(is_lap, place.lap, state.laps_done)
    is_finish = is_lap & (laps_done >= config.laps)
    is_timeout = (steps >= config.time_limit_steps) & ~is_crash & ~is_finish

    checkpoint = checkpoint_index(place.lap, place.position)
    is_checkpoint = checkpoint > state.checkpoint
    if config.reward == "progress":
        # At most two cells a step: far below 2^31 / 250 even for 16 points.
        gain = ((place.lap - state.lap) << LAP_BITS) + place.position - state.position
        reward = progress_reward(backend, gain, is_crash)
    else:
        since = steps - state.checkpoint_step
        reward = documented_reward(backend, speed, is_crash, is_checkpoint, since)

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
    world: World, state: RaceState, action: Any
) -> tuple[RaceState, TimeStep, Events]:
    """Advances the cars that race; starts the next episode of those whose last one ended."""
    xp = world.backend.xp
    is_first = state.is_ended
    moved, outcome = advance(world, state, action)
    fresh = begin_episode(world, state.car_id, state.seed, state.episode + 1)
    next_state = RaceState(
        *(xp.where(is_first, new, old) for new, old in zip(fresh, moved, strict=True))
    )
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


def observe(world: World, state: RaceState, is_on_road: Any) -> Any:
    """Returns five rays / 150 px and speed / 5, `[N, 6]` float32 in [0, 1]."""
    backend, xp = world.backend, world.backend.xp
    frame = make_frame(backend, world.cosine, state.x, state.y, state.heading)
    reading = sense_edges(backend, world.tables, frame, state.track, state.cell, is_on_road)
    if _has_road_obstacles(world):
        radius = _obstacle_radius(world)
        reading = sense_obstacles(backend, world.tables, frame, state.track, radius, reading)
    # One multiplication each: nothing a compiler could fuse into a differently rounded one.
    rays = reading.astype(np.float32) * np.float32(1 / RANGE)
    speed = state.speed.astype(np.float32) * np.float32(1 / TOP_SPEED)
    return xp.concatenate([rays, speed[None]], axis=0).T


def view_cars(world: World, state: RaceState) -> CarView:
    """Returns the public view; products with powers of two are exact in float32."""
    xp = world.backend.xp
    lap_units = 1 << LAP_BITS
    laps_ahead = xp.clip(state.lap - state.laps_done, -1, 1)
    units = xp.clip((laps_ahead << LAP_BITS) + state.position, 0, lap_units)
    units = xp.where(state.laps_done >= world.config.laps, lap_units, units)
    top = grid.WORLD_HEIGHT_PX << POSITION_BITS

    def scaled(value: Any, unit: float) -> Any:
        return value.astype(np.float32) * np.float32(unit)

    return CarView(
        x_px=scaled(state.x, 2.0**-POSITION_BITS),
        y_px=scaled(top - state.y, 2.0**-POSITION_BITS),
        speed_px_per_step=scaled(state.speed, 2.0**-SPEED_BITS),
        heading_deg=scaled(state.heading, 360.0 * 2.0**-HEADING_BITS),
        progress=scaled(units, 2.0**-LAP_BITS),
        episode_steps=state.episode_steps,
        track_index=state.track,
    )


def _choose_track(world: World, car_id: Any, seed: Any, episode: Any) -> Any:
    if world.track_choice == "fixed":
        return car_id % world.tracks
    # The hash's upper 16 bits, scaled to the pool's at most 2^16 tracks.
    drawn = hash_words(seed, car_id, episode) >> 16
    return (drawn * np.uint32(world.tracks) >> 16).astype(world.backend.integer)


def _has_road_obstacles(world: World) -> bool:
    """Says whether the circles matter: an edge always hides those inside the loop."""
    return world.config.track.obstacle_placement == "road" and world.config.track.obstacles > 0


def _obstacle_radius(world: World) -> int:
    return int(world.config.track.obstacle_radius_px * SENSE_UNITS_PER_PX)
