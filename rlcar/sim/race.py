"""The race: N cars, each on its own track, as pure functions of their state."""

from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy
import numpy as np

from rlcar.config.race import RaceConfig, SensorConfig
from rlcar.sim.backend import make_backend, one_kernel
from rlcar.sim.fixed import (
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
    drive_classic,
    drive_single_track,
    top_speed,
)
from rlcar.sim.rewards import (
    checkpoint_index,
    documented_reward,
    place_reward,
    progress_reward,
)
from rlcar.sim.road import locate, start_position
from rlcar.sim.sensors import (
    RANGE,
    RAYS,
    Circle,
    is_touching,
    make_frame,
    sense_circle,
    sense_edges,
)
from rlcar.sim.state import CarView, Encounters, Events, Outcome, RaceState
from rlcar.sim.traffic import (
    Traffic,
    first_races,
    is_race_over,
    meet,
    next_races,
    others_in_race,
    starting_places,
)
from rlcar.sim.world import TrackChoice, World, make_world
from rlcar.track import TrackPool, grid
from rlcar.track.hashing import hash_words
from rlcar.types import Array, Spec, TimeStep

SPEC = Spec(observation_size=RAYS + 1, action_size=2)


class Race(NamedTuple):
    """Pure functions of N cars, with the same bits at any batch size and in NumPy and JAX.

    With several cars on a track, N is a multiple of `RaceConfig.cars_per_track`, and the ids of a
    group are consecutive and begin with a multiple of it; see `rlcar.sim.traffic`.

    `reset(car_id [N] int32, seed [] or [N])` -> (state, time step).

    `step(state, action [N, 2] float32)` -> (state, time step, events). Actions are clipped; a NaN
    counts as 0. For a car whose last time step has `is_last`, the step ignores the action and
    starts the next episode.

    `view(state)` -> the cars in px and degrees, for drawing and people.
    """

    reset: Callable[[Array, Array], tuple[RaceState, TimeStep]]
    step: Callable[[RaceState, Array], tuple[RaceState, TimeStep, Events]]
    view: Callable[[RaceState], CarView]


def make_race(
    config: RaceConfig,
    pool: TrackPool,
    xp: ModuleType = jax.numpy,
    track_choice: TrackChoice = "random",
    rival_lines: list[np.ndarray] | None = None,
) -> Race:
    """Makes a race over the tracks of a pool; `xp` is the module `numpy` or `jax.numpy`.

    The track choice "random" draws the track of each episode from (seed, car_id, episode). "fixed"
    gives car i (or group i, with several cars on a track) always track i modulo the size of the
    pool. `rival_lines` (see `rlcar.sim.rival`)
    are the laps of the second car, one for each track; by default it drives a scripted lap.
    """
    return race_of(make_world(config, pool, make_backend(xp), track_choice, rival_lines))


def race_of(world: World) -> Race:
    """Returns the functions below, bound to a world."""

    def reset(car_id: Array, seed: Array) -> tuple[RaceState, TimeStep]:
        xp, integer = world.backend.xp, world.backend.integer
        car_id = xp.asarray(car_id).astype(integer)
        seeds = xp.zeros_like(car_id) + xp.asarray(seed).astype(integer).reshape(-1)
        traffic = None
        if world.grid is not None:
            traffic = first_races(world.backend, world.config.cars_per_track, car_id)
        state = begin_episode(world, car_id, seeds, xp.zeros_like(car_id), traffic)
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


def begin_episode(
    world: World, car_id: Array, seed: Array, episode: Array, traffic: Traffic | None = None
) -> RaceState:
    """Returns the state of cars at the start of an episode."""
    xp = world.backend.xp
    zero = xp.zeros_like(car_id)
    if world.grid is None or traffic is None:
        track = _choose_track(world, car_id, seed, episode)
        x, y = start_position(world.backend, world.tables, track)
        heading = world.backend.take(world.tables.start_heading, track)
        cell = lap = position = zero
    else:
        cars = world.config.cars_per_track
        track = _choose_track(world, car_id // cars, seed, traffic.race)
        place = starting_places(cars, car_id, track, traffic, xp)
        x, y, heading, cell, lap, position = (
            world.backend.take(table, place) for table in world.grid
        )
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
        heading=heading,
        cell=cell,
        lap=lap,
        position=position,
        laps_done=zero,
        lap_start_step=zero,
        checkpoint=zero,
        checkpoint_step=zero,
        episode_steps=zero,
        is_ended=xp.zeros(car_id.shape, bool),
        hidden=hidden,
        traffic=traffic,
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
    meeting = None
    if state.traffic is not None and world.grid is not None:
        placed = state._replace(x=x, y=y, lap=place.lap, position=place.position)
        meeting = meet(backend, config, state, placed)
        is_crash = is_crash | meeting.is_at_fault
        speed = xp.where(meeting.is_hit, speed >> 1, speed)  # a car that is hit loses half of it

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
    is_ended = is_crash | is_finish | is_timeout
    traffic, encounters = state.traffic, None
    if meeting is not None and traffic is not None:
        reward = reward + place_reward(config.place_reward, meeting.places_gained)
        # Cars that practise stop with the race. Nothing follows from how they stood.
        is_timeout = is_timeout | (is_race_over(config.cars_per_track, state, is_ended) & ~is_ended)
        is_ended = is_ended | is_timeout
        encounters = Encounters(meeting.is_at_fault, meeting.overtakes, traffic.is_racing)
        traffic = traffic._replace(is_ahead=meeting.is_ahead)

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
        is_ended=is_ended,
        hidden=hidden,
        traffic=traffic,
    )
    return moved, Outcome(
        reward=reward,
        is_on_road=place.is_on_road,
        is_crash=is_crash,
        is_finish=is_finish,
        is_timeout=is_timeout,
        lap_time_steps=xp.where(is_lap, steps - state.lap_start_step, 0),
        encounters=encounters,
    )


def step_or_reset(
    world: World, state: RaceState, action: Array
) -> tuple[RaceState, TimeStep, Events]:
    """Advances every car; a car whose episode has ended starts the next one instead."""
    xp = world.backend.xp
    is_first = state.is_ended
    moved, outcome = advance(world, state, action)
    traffic = None
    if state.traffic is not None:
        traffic = next_races(world.backend, world.config.cars_per_track, state.car_id, state)
    fresh = begin_episode(world, state.car_id, state.seed, state.episode + 1, traffic)
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
    encounters = outcome.encounters
    if encounters is not None:
        encounters = Encounters(
            encounters.is_at_fault & ~is_first,
            xp.where(is_first, 0, encounters.overtakes),
            encounters.is_racing & ~is_first,
        )
    return next_state, time_step, Events(lap_time_steps, is_crash, is_finish, encounters)


def observe(world: World, state: RaceState, is_on_road: Array) -> Array:
    """Returns the five rays / 150 px and speed / top speed, `[N, 6]` float32 in [0, 1]."""
    backend, xp = world.backend, world.backend.xp
    frame = make_frame(backend, world.cosine, state.x, state.y, state.heading)
    reading = sense_edges(backend, world.tables, frame, state.track, state.cell, is_on_road)
    for circle in _circles(world, state.track, state.episode_steps, state.hidden):
        reading = sense_circle(backend, frame, circle, reading)
    if world.grid is not None:
        for other in others_in_race(backend, world.config, state):
            reading = sense_circle(backend, frame, other, reading)
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
        is_racing=state.x == state.x if state.traffic is None else state.traffic.is_racing,
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
