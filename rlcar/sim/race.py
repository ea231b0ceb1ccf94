"""The race itself: N cars, each on its own track, as pure functions of their state."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

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
from rlcar.sim.hidden import Hidden, delay_action, draw_hidden, is_plain, spoil_readings
from rlcar.sim.motion import (
    Pedals,
    Pose,
    drive_classic,
    drive_single_track,
    top_speed,
    wheel_table,
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
from rlcar.types import Spec, TimeStep

SPEC = Spec(observation_size=RAYS + 1, action_size=2)
TrackChoice = Literal["random", "fixed"]


class Race(NamedTuple):
    """Pure functions of N cars at once; the same bits at any batch size and back-end.

    `reset(car_id [N] int32, seed [] or [N])` -> (state, time step);
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
    wheel: Any  # `motion.wheel_table`
    rival_line: Any  # packed positions of all tracks, and where each track's begin
    rival_start: Any  # [M + 1]
    gates_a_step: int  # the most that a car may pass
    tracks: int
    track_choice: TrackChoice


def make_race(
    config: RaceConfig,
    pool: TrackPool,
    xp: Any = jax.numpy,
    track_choice: TrackChoice = "random",
    rival_lines: list[np.ndarray] | None = None,
) -> Race:
    """Makes the race over the pool's tracks, for `xp` in {numpy, jax.numpy}.

    "random" draws each episode's track from (seed, car_id, episode); "fixed" gives car i always
    track i modulo the pool's size. `rival_lines` (`rlcar.sim.rival`) are the laps of the second
    car, one for each track; without them it follows a script.
    """
    return race_of(make_world(config, pool, make_backend(xp), track_choice, rival_lines))


def make_world(
    config: RaceConfig,
    pool: TrackPool,
    backend: Backend,
    track_choice: TrackChoice = "random",
    rival_lines: list[np.ndarray] | None = None,
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
    if rival_lines is None and config.rival is not None:
        rival_lines = scripted_lines(pool, config.rival.pace_px_per_step)
    if rival_lines is not None and (config.rival is None or len(rival_lines) != len(pool.seeds)):
        raise ConfigError(
            f"{len(rival_lines)} lines of a rival for {len(pool.seeds)} tracks and race.rival = "
            f"{config.rival}: set race.rival and give one line for each track"
        )
    line, start = pack_lines(rival_lines) if rival_lines else (np.zeros(1), np.zeros(2))

    def table(array: np.ndarray) -> Any:
        return backend.xp.asarray(array.astype(backend.integer))

    return World(
        backend=backend,
        config=config,
        tables=make_tables(backend, pool),
        cosine=table(COSINE),
        wheel=table(wheel_table()),
        rival_line=table(line),
        rival_start=table(start),
        gates_a_step=math.ceil(config.vehicle.top_speed_px_per_step / MIN_CELL_PX),
        tracks=len(pool.seeds),
        track_choice=track_choice,
    )


def race_of(world: World) -> Race:
    """Binds the functions below to a world."""

    def reset(car_id: Any, seed: Any) -> tuple[RaceState, TimeStep]:
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

    def step(state: RaceState, action: Any) -> tuple[RaceState, TimeStep, Events]:
        return step_or_reset(world, state, action)

    def view(state: RaceState) -> CarView:
        return view_cars(world, state)

    return Race(reset, step if world.backend.xp is np else one_kernel(step), view)


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
        hidden=None
        if is_plain(world.config)
        else draw_hidden(world.backend, world.config, seed, car_id, episode),
    )


def advance(world: World, state: RaceState, action: Any) -> tuple[RaceState, Outcome]:
    """Drives every car one step, without any reset; `state.is_ended` says whose episode ended."""
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
        # At most four cells a step: far below 2^31 / 250 even for 16 points.
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
    world: World, state: RaceState, action: Any
) -> tuple[RaceState, TimeStep, Events]:
    """Advances the cars that race; starts the next episode of those whose last one ended."""
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


def observe(world: World, state: RaceState, is_on_road: Any) -> Any:
    """Returns five rays / 150 px and speed / top speed, `[N, 6]` float32 in [0, 1]."""
    backend, xp = world.backend, world.backend.xp
    frame = make_frame(backend, world.cosine, state.x, state.y, state.heading)
    reading = sense_edges(backend, world.tables, frame, state.track, state.cell, is_on_road)
    for circle in _circles(world, state.track, state.episode_steps, state.hidden):
        reading = sense_circle(backend, frame, circle, reading)
    if world.config.sensors != SensorConfig():
        moment = (state.episode, state.episode_steps)
        reading = spoil_readings(backend, state.hidden, state.seed, state.car_id, moment, reading)
    # One multiplication each: nothing a compiler could fuse into a differently rounded one.
    rays = reading.astype(np.float32) * np.float32(1 / RANGE)
    speed = state.speed.astype(np.float32) * np.float32(1 / top_speed(world.config.vehicle))
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
        rival_px=_rival_px(world, state),
        delay_steps=xp.zeros_like(state.x) if state.hidden is None else state.hidden.delay,
    )


def _choose_track(world: World, car_id: Any, seed: Any, episode: Any) -> Any:
    if world.track_choice == "fixed":
        return car_id % world.tracks
    # The hash's upper 16 bits, scaled to the pool's at most 2^16 tracks.
    drawn = hash_words(seed, car_id, episode) >> 16
    return (drawn * np.uint32(world.tracks) >> 16).astype(world.backend.integer)


def _drive(world: World, state: RaceState, action: Any) -> tuple[Hidden | None, Pose]:
    """Returns what is still hidden and the cars' next poses."""
    backend, vehicle, hidden = world.backend, world.config.vehicle, state.hidden
    pose = Pose(state.x, state.y, state.speed, state.heading)
    pedals = Pedals(*(quantise_action(backend, action[:, i]) for i in range(2)))
    if vehicle.delay_steps.high > 0:
        hidden, pedals = delay_action(backend, hidden, pedals)
    if vehicle.model == "classic":
        return hidden, drive_classic(backend, world.cosine, pose, pedals)
    tables, top = (world.cosine, world.wheel), top_speed(vehicle)
    return hidden, drive_single_track(backend, tables, top, pose, pedals, hidden.grip)


def _rival_px(world: World, state: RaceState) -> Any:
    xp = world.backend.xp
    if world.config.rival is None:
        return xp.full((*state.x.shape, 2), np.float32(np.nan), np.float32)
    middle = _circles(world, state.track, state.episode_steps, state.hidden)[-1].middle
    x_px = grid.unpack_x(middle).astype(np.float32) * np.float32(1 / grid.UNITS_PER_PX)
    y_px = grid.unpack_y(middle).astype(np.float32) * np.float32(1 / grid.UNITS_PER_PX)
    return xp.stack([x_px, np.float32(grid.WORLD_HEIGHT_PX) - y_px], axis=1)


def _circles(world: World, track: Any, step: Any, hidden: Hidden | None) -> list[Circle]:
    """What stands or drives on the road; those inside the loop an edge always hides."""
    backend, config, circles = world.backend, world.config, []
    if config.track.obstacle_placement == "road":
        radius = int(config.track.obstacle_radius_px * SENSE_UNITS_PER_PX)
        for row in range(config.track.obstacles):
            circles.append(Circle(backend.take(world.tables.obstacles[row], track), radius))
    if config.rival is not None and hidden is not None:
        radius = int(config.rival.radius_px * SENSE_UNITS_PER_PX)
        first = backend.take(world.rival_start, track)
        steps = backend.take(world.rival_start, track + 1) - first
        begin = (hidden.head_start >> 6) * steps >> (LAP_BITS - 6)  # 2^14 * 2^16 < 2^31
        circles.append(
            Circle(backend.take(world.rival_line, first + (begin + step) % steps), radius)
        )
    return circles
