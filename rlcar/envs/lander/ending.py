"""How an episode ends: contact with the ground, the verdict on the landing, and the limits."""

from types import ModuleType
from typing import NamedTuple

import numpy as np

from rlcar.envs.lander.dynamics import Motion
from rlcar.envs.lander.settings import Mission
from rlcar.envs.lander.terrain import PAD_RADIUS_M, Ground, height_m
from rlcar.envs.lander.vectors import Quaternion, Vector, dot, rotate, up_axis
from rlcar.types import Array

REASONS = ("landed", "too_fast", "tilted", "missed_pad", "out_of_bounds", "time_limit")
LANDED, TOO_FAST, TILTED, MISSED_PAD, OUT_OF_BOUNDS, TIME_LIMIT = range(len(REASONS))

LEG_M = 1.5  # feet below the centre of mass, on an upright lander
_FEET_RADIUS_M = 1.5
_CONTACT_BELOW_M = 10.0  # altitude above which contact is not tested
LANDING_ALTITUDE_M = 5.0  # of the centre of mass: more means that a foot touched a slope
LANDING_SPEED_M_S = 3.0
SOFT_SPEED_M_S = 2.0
LANDING_TILT_DEG = 15.0
LANDING_RATE_RAD_S = 0.5


class Bounds(NamedTuple):
    """The space in which an episode takes place, around the pad."""

    radius_m: float
    ceiling_m: float


def bounds_of(mission: Mission) -> Bounds:
    """Returns the bounds of a mission: its starts, and room to manoeuvre."""
    return Bounds(
        radius_m=1.25 * mission.start_offset_max_m + 150.0,
        ceiling_m=1.25 * mission.start_altitude_max_m + 50.0,
    )


class Ending(NamedTuple):
    """Whether and how the episodes of N landers end."""

    is_ended: Array  # [N] bool
    reason: Array  # [N] int32, index into `REASONS`; LANDED for those that go on
    is_contact: Array  # [N] bool, whether a foot touches the ground
    altitude_m: Array  # [N] of the centre of mass above the terrain


def judge(
    xp: ModuleType,
    ground: Ground,
    motion: Motion,
    is_late: Array,
    bounds: Bounds,
) -> Ending:
    """Returns the endings; `is_late` marks the episodes whose time is over."""
    position = motion.position_m
    altitude = position.z - height_m(xp, ground, position.x, position.y)
    distance = xp.sqrt(position.x * position.x + position.y * position.y)
    is_contact = (altitude < _CONTACT_BELOW_M) & (foot_height_m(xp, ground, motion) <= 0.0)
    is_outside = (distance > bounds.radius_m) | (position.z > bounds.ceiling_m)
    speed = xp.sqrt(dot(motion.velocity_m_s, motion.velocity_m_s))
    rate = xp.sqrt(dot(motion.rates_rad_s, motion.rates_rad_s))
    is_tilted = up_axis(motion.attitude).z < float(np.cos(np.radians(LANDING_TILT_DEG)))
    reason = xp.where(is_late, TIME_LIMIT, LANDED)
    reason = xp.where(is_outside, OUT_OF_BOUNDS, reason)
    verdict = xp.where(is_tilted | (rate > LANDING_RATE_RAD_S), TILTED, LANDED)
    verdict = xp.where(speed >= LANDING_SPEED_M_S, TOO_FAST, verdict)
    is_missed = (distance > PAD_RADIUS_M) | (altitude >= LANDING_ALTITUDE_M)
    verdict = xp.where(is_missed, MISSED_PAD, verdict)
    reason = xp.where(is_contact, verdict, reason)
    is_ended = is_contact | is_outside | is_late
    return Ending(is_ended, reason.astype(np.int32), is_contact, altitude)


def foot_height_m(xp: ModuleType, ground: Ground, motion: Motion) -> Array:
    """Returns the height of the lowest of the four feet above the terrain, `[N]`."""
    east = xp.asarray([[1.0], [-1.0], [-1.0], [1.0]], np.float32)  # [4, 1]
    north = xp.asarray([[1.0], [1.0], [-1.0], [-1.0]], np.float32)
    attitude = Quaternion(*(part[None] for part in motion.attitude))
    in_body = Vector(_FEET_RADIUS_M * east, _FEET_RADIUS_M * north, 0.0 * east - LEG_M)
    arm = rotate(attitude, in_body)
    x, y, z = (coordinate[None] for coordinate in motion.position_m)
    below = Ground(ground.terrain, ground.field[None])
    return (z + arm.z - height_m(xp, below, x + arm.x, y + arm.y)).min(axis=0)
