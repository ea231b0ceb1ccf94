"""The lander as an environment of pure functions: N landers, each with its own terrain and start.

`make_lander` returns a `CompiledEnvironment` (see `rlcar.types`). Episodes are hashes of (seed,
index, episode), so that they are the same for any number of landers.
"""

from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy
import numpy as np

from rlcar.envs.lander.dynamics import (
    ACTION_SIZE,
    STEP_S,
    TANK_KG,
    Motion,
    command_of,
    fly,
    throttle_of,
)
from rlcar.envs.lander.ending import (
    LANDED,
    LEG_M,
    REASONS,
    SOFT_SPEED_M_S,
    Bounds,
    Ending,
    bounds_of,
    judge,
)
from rlcar.envs.lander.observation import FIXED_ENTRIES, observation_of
from rlcar.envs.lander.rewards import (
    FAILURE,
    approach_quality,
    approach_reward,
    contact_reward,
    landing_reward,
)
from rlcar.envs.lander.settings import LanderSettings, Mission, mission_of
from rlcar.envs.lander.terrain import Ground, Terrain, height_m, make_heights
from rlcar.envs.lander.vectors import Quaternion, Vector, dot, up_axis
from rlcar.track.hashing import hash_words
from rlcar.types import Array, CompiledEnvironment, EpisodeEnd, Spec, TimeStep

_TERRAIN, _ALTITUDE, _OFFSET, _BEARING, _DESCENT, _DRIFT, _DRIFT_BEARING = range(1, 8)
_TILT, _TILT_BEARING, _YAW = range(8, 11)
_LARGEST_YAW_RAD = 0.1


class LanderState(NamedTuple):
    """The state of N landers; every leaf is `[N]`, but for the last action, `[N, 6]`."""

    index: Array  # int32
    seed: Array  # int32
    episode: Array  # int32, counted from 0
    field: Array  # int32, the terrain
    motion: Motion
    start_distance_m: Array
    closest_m: Array  # least distance to the pad so far
    steps: Array  # int32, of the episode
    action: Array  # [N, 6] float32, the last one
    action_change: Array  # sum of the squared changes of the action, averaged over its entries
    is_ended: Array  # bool


class World(NamedTuple):
    """Everything that stays the same during all episodes."""

    xp: ModuleType
    mission: Mission
    bounds: Bounds
    terrain: Terrain
    fields: int
    rays: int


def make_lander(settings: LanderSettings, xp: ModuleType = jax.numpy) -> CompiledEnvironment:
    """Makes the functions of the lander; `xp` is the module `numpy` or `jax.numpy`.

    Actions are clipped to [-1, 1], and a NaN counts as 0. Raises ConfigError for settings that
    contradict each other.
    """
    world = make_world(settings, xp)

    def reset(index: Array, seed: Array) -> tuple[LanderState, TimeStep]:
        index = xp.asarray(index).astype(np.int32)
        seeds = xp.zeros_like(index) + xp.asarray(seed).astype(np.int32).reshape(-1)
        state = begin_episode(world, index, seeds, xp.zeros_like(index))
        is_first = xp.ones(index.shape, bool)
        return state, TimeStep(
            observation=observe(world, state),
            reward=xp.zeros(index.shape, np.float32),
            is_first=is_first,
            is_last=~is_first,
            is_terminal=~is_first,
        )

    def step(state: LanderState, action: Array) -> tuple[LanderState, TimeStep, EpisodeEnd]:
        return step_or_reset(world, state, action)

    spec = Spec(observation_size=FIXED_ENTRIES + world.rays, action_size=ACTION_SIZE)
    return CompiledEnvironment(spec, REASONS, reset, step)


def make_world(settings: LanderSettings, xp: ModuleType) -> World:
    """Prepares what all episodes share."""
    mission = mission_of(settings)
    heights = make_heights(
        settings.terrains,
        settings.terrain_points,
        settings.terrain_cell_m,
        settings.terrain_slope,
        settings.terrain_seed,
    )
    terrain = Terrain(
        xp.asarray(heights.reshape(-1)), settings.terrain_points, settings.terrain_cell_m
    )
    return World(xp, mission, bounds_of(mission), terrain, settings.terrains, settings.lidar_rays)


def begin_episode(world: World, index: Array, seed: Array, episode: Array) -> LanderState:
    """Returns the state of landers at the start of an episode; all arguments are `[N]` int32."""
    xp, mission = world.xp, world.mission

    def share(stream: int) -> Array:
        """Draws uniformly from [0, 1); 24 bits are exact in float32."""
        word = hash_words(seed, index, episode, xp.zeros_like(index) + stream)
        return (word >> 8).astype(np.float32) * np.float32(2.0**-24)

    def between(low: float, high: float, stream: int) -> Array:
        return low + (high - low) * share(stream)

    def polar(length: Array, stream: int) -> tuple[Array, Array]:
        angle = float(2.0 * np.pi) * share(stream)
        return length * xp.cos(angle), length * xp.sin(angle)

    field = (share(_TERRAIN) * world.fields).astype(np.int32)
    offset = between(mission.start_offset_min_m, mission.start_offset_max_m, _OFFSET)
    x, y = polar(offset, _BEARING)
    ground = height_m(xp, Ground(world.terrain, field), x, y)
    altitude = between(mission.start_altitude_min_m, mission.start_altitude_max_m, _ALTITUDE)
    # The altitude counts from the pad; above a hill it is at least that above the hill.
    z = xp.maximum(altitude, ground + mission.start_altitude_min_m)
    descent = between(mission.start_descent_max_m_s / 3.0, mission.start_descent_max_m_s, _DESCENT)
    drift_x, drift_y = polar(mission.start_drift_max_m_s * share(_DRIFT), _DRIFT_BEARING)
    motion = Motion(
        position_m=Vector(x, y, z),
        velocity_m_s=Vector(drift_x, drift_y, -descent),
        attitude=_tilted(
            xp,
            float(np.radians(mission.start_tilt_max_deg)) * share(_TILT),
            float(2.0 * np.pi) * share(_TILT_BEARING),
            _LARGEST_YAW_RAD * (2.0 * share(_YAW) - 1.0),
        ),
        rates_rad_s=Vector(xp.zeros_like(x), xp.zeros_like(x), xp.zeros_like(x)),
        fuel_kg=xp.zeros_like(x) + np.float32(mission.fuel_kg),
    )
    distance = _distance_m(xp, motion)
    return LanderState(
        index=index,
        seed=seed,
        episode=episode,
        field=field,
        motion=motion,
        start_distance_m=distance,
        closest_m=distance,
        steps=xp.zeros_like(index),
        action=xp.zeros((*index.shape, ACTION_SIZE), np.float32),
        action_change=xp.zeros_like(x),
        is_ended=xp.zeros(index.shape, bool),
    )


def step_or_reset(
    world: World, state: LanderState, action: Array
) -> tuple[LanderState, TimeStep, EpisodeEnd]:
    """Flies every lander one step; one whose episode has ended starts the next one instead."""
    xp = world.xp
    is_first = state.is_ended
    moved, ending, reward = advance(world, state, action)
    fresh = begin_episode(world, state.index, state.seed, state.episode + 1)

    def chosen(new: Array, old: Array) -> Array:
        return xp.where(is_first if new.ndim == 1 else is_first[:, None], new, old)

    next_state: LanderState = jax.tree.map(chosen, fresh, moved)
    time_step = TimeStep(
        observation=observe(world, next_state),
        reward=xp.where(is_first, 0.0, reward).astype(np.float32),
        is_first=is_first,
        is_last=next_state.is_ended,
        # Running out of time is an end too: the mission's time is part of the observation.
        is_terminal=next_state.is_ended,
    )
    return next_state, time_step, _episode_end(xp, moved, ending)


def advance(world: World, state: LanderState, action: Array) -> tuple[LanderState, Ending, Array]:
    """Flies every lander one step without a reset; returns state, ending and reward `[N]`."""
    xp, action = world.xp, world.xp.asarray(action, np.float32)
    action = xp.clip(xp.where(xp.isnan(action), 0.0, action), -1.0, 1.0)
    motion = fly(xp, state.motion, command_of(xp, action))
    steps = state.steps + 1
    is_late = steps >= world.mission.time_limit_steps
    ending = judge(xp, Ground(world.terrain, state.field), motion, is_late, world.bounds)
    distance = _distance_m(xp, motion)
    quality = approach_quality(xp, motion, motion.position_m.z - LEG_M)
    reward = approach_reward(xp, state.closest_m - distance, state.start_distance_m, quality)
    speed = xp.sqrt(dot(motion.velocity_m_s, motion.velocity_m_s))
    landed = landing_reward(xp, speed, motion.fuel_kg)
    offset = xp.sqrt(motion.position_m.x**2 + motion.position_m.y**2)
    failed = xp.where(ending.is_contact, contact_reward(xp, speed, offset), FAILURE)
    final = xp.where(ending.reason == LANDED, landed, failed)
    reward = reward + xp.where(ending.is_ended, final, 0.0)
    change = action - state.action
    # The first action of an episode has no predecessor.
    change = xp.where((state.steps > 0)[:, None], change, 0.0)
    moved = state._replace(
        motion=motion,
        closest_m=xp.minimum(state.closest_m, distance),
        steps=steps,
        action=action,
        action_change=state.action_change + (change * change).mean(axis=1),
        is_ended=ending.is_ended,
    )
    return moved, ending, reward


def observe(world: World, state: LanderState) -> Array:
    """Returns the observations `[N, O]` float32."""
    left_s = (world.mission.time_limit_steps - state.steps).astype(np.float32) * STEP_S
    ground = Ground(world.terrain, state.field)
    return observation_of(world.xp, ground, state.motion, left_s, world.rays)


def _episode_end(xp: ModuleType, moved: LanderState, ending: Ending) -> EpisodeEnd:
    motion = moved.motion
    position = motion.position_m
    speed = xp.sqrt(dot(motion.velocity_m_s, motion.velocity_m_s))
    is_success = ending.is_ended & (ending.reason == LANDED)
    changes = xp.maximum(moved.steps - 1, 1).astype(np.float32)
    figures = {
        "is_soft": is_success & (speed < SOFT_SPEED_M_S),
        "east_m": position.x,
        "north_m": position.y,
        "distance_m": xp.sqrt(position.x * position.x + position.y * position.y),
        "touchdown_speed_m_s": speed,
        "fuel_fraction": motion.fuel_kg / TANK_KG,
        "smoothness": moved.action_change / changes,
    }
    return EpisodeEnd(
        reason=ending.reason,
        is_success=is_success,
        figures={name: value.astype(np.float32) for name, value in figures.items()},
    )


def _distance_m(xp: ModuleType, motion: Motion) -> Array:
    """Returns the distance of the feet, on an upright lander, to the centre of the pad."""
    x, y, z = motion.position_m
    height = z - LEG_M
    return xp.sqrt(x * x + y * y + height * height)


def _tilted(xp: ModuleType, tilt: Array, bearing: Array, yaw: Array) -> Quaternion:
    """Returns attitudes that are tilted by `tilt` towards `bearing` and turned by `yaw` before."""
    a_w, a = xp.cos(0.5 * tilt), xp.sin(0.5 * tilt)
    # The tilt turns about the horizontal axis (-sin, cos, 0) of the bearing.
    a_x, a_y = -a * xp.sin(bearing), a * xp.cos(bearing)
    b_w, b_z = xp.cos(0.5 * yaw), xp.sin(0.5 * yaw)
    return Quaternion(a_w * b_w, a_x * b_w + a_y * b_z, a_y * b_w - a_x * b_z, a_w * b_z)


def view_of(state: LanderState) -> dict[str, Array]:
    """Returns quantities `[N]` of a state for pictures, with units in their names."""
    xp = jax.numpy
    motion = state.motion
    position, velocity = motion.position_m, motion.velocity_m_s
    up = xp.clip(up_axis(motion.attitude).z, -1.0, 1.0)
    return {
        "height_m": position.z,
        "offset_m": xp.hypot(position.x, position.y),
        "vertical_speed_m_s": velocity.z,
        "horizontal_speed_m_s": xp.hypot(velocity.x, velocity.y),
        "tilt_deg": xp.degrees(xp.arccos(up)),
        "throttle_percent": 100.0 * throttle_of(xp, state.action[:, 0]),
        "fuel_kg": motion.fuel_kg,
    }
