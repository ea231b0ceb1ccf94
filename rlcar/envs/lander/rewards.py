"""The reward: up to +-1,000 at the end, and up to 500 on the way for a good approach.

A landing is worth more the gentler it is, and a contact that is no landing costs less the closer it
is to one. Flying away and running out of time cost most.

Each metre of the approach is paid once, by how well the velocity matches the target velocity, how
well the thrust points where the target velocity demands it, and how slowly the lander turns. The
payment ends at the closest distance so far. Therefore hovering pays nothing, flying back and forth
pays nothing, and the whole approach pays at most 500, half of what flying away costs.
"""

import math
from types import ModuleType

from rlcar.envs.lander.dynamics import TANK_KG, Motion
from rlcar.envs.lander.ending import LANDING_SPEED_M_S
from rlcar.envs.lander.guidance_field import TOUCHDOWN_M_S, target_thrust, target_velocity
from rlcar.envs.lander.terrain import PAD_RADIUS_M
from rlcar.envs.lander.vectors import dot, minus, up_axis
from rlcar.types import Array

SUCCESS, FAILURE = 1_000.0, -1_000.0
GENTLE_M_S = TOUCHDOWN_M_S  # touchdown speed up to which a success is worth all of `SUCCESS`
FUEL_BONUS = 200.0  # for a full tank at a successful landing
APPROACH = 500.0  # for the whole way at full quality
MOST_PER_STEP = 5.0
# A single deviation of this size halves the quality; the scale of the velocity also grows with the
# target speed.
_SPEED_ERROR_M_S, _SPEED_ERROR_SHARE = 1.0, 0.25
_TURN_RAD, _RATE_RAD_S = 0.2, 0.15


def landing_reward(xp: ModuleType, speed_m_s: Array, fuel_kg: Array) -> Array:
    """Returns the reward `[N]` of a successful landing with a touchdown speed and the fuel left.

    1,000 up to `GENTLE_M_S`, and less in proportion to the speed above it, down to 0 at the speed
    at which a landing fails.
    """
    gentle = (LANDING_SPEED_M_S - speed_m_s) / (LANDING_SPEED_M_S - GENTLE_M_S)
    return SUCCESS * xp.clip(gentle, 0.0, 1.0) + (FUEL_BONUS / TANK_KG) * fuel_kg


def contact_reward(xp: ModuleType, speed_m_s: Array, distance_m: Array) -> Array:
    """Returns the reward `[N]`, -1,000 to 0, of a failure that is a contact with the ground.

    It is `FAILURE` x / (1 + x), where x is the speed over the largest one of a landing plus the
    distance over the radius of the pad.
    """
    excess = speed_m_s * (1.0 / LANDING_SPEED_M_S) + distance_m * (1.0 / PAD_RADIUS_M)
    return FAILURE * excess / (1.0 + excess)


def approach_reward(
    xp: ModuleType, gain_m: Array, start_distance_m: Array, quality: Array
) -> Array:
    """Returns the payment `[N]` for `gain_m` new metres towards the pad, 0 to 5."""
    paid = APPROACH * quality * xp.maximum(gain_m, 0.0) / xp.maximum(start_distance_m, 1.0)
    return xp.minimum(paid, MOST_PER_STEP)


def approach_quality(xp: ModuleType, motion: Motion, height_m: Array) -> Array:
    """Returns how well landers fly, `[N]` in (0, 1]; the feet are `height_m` above the pad.

    It is 1 / (1 + x), where x is the length of the vector of four deviations, each over its scale:

    - the error of the velocity, over 1 m/s + a quarter of the target speed;
    - the sine of half the angle between the body's z axis and the target thrust, over that of
      0.2 rad;
    - the sine of half the rotation about that axis, over the same;
    - the rate of rotation, over 0.15 rad/s.

    It has a slope everywhere, so that a lander that is far from the target is paid for coming
    closer to it, and one that is close to it as well.
    """
    target = target_velocity(xp, motion.position_m, height_m)
    error = minus(motion.velocity_m_s, target)
    speed_scale = _SPEED_ERROR_M_S + _SPEED_ERROR_SHARE * xp.sqrt(dot(target, target))
    thrust = target_thrust(xp, motion.position_m, motion.velocity_m_s)
    q, rates = motion.attitude, motion.rates_rad_s
    cosine = dot(up_axis(q), thrust) / xp.sqrt(dot(thrust, thrust))
    turned = 0.5 * xp.maximum(1.0 - cosine, 0.0) + q.z * q.z  # squared sines of half the angles
    squared = dot(error, error) / (speed_scale * speed_scale)
    squared = squared + turned * (1.0 / math.sin(0.5 * _TURN_RAD) ** 2)
    squared = squared + dot(rates, rates) * (1.0 / _RATE_RAD_S**2)
    return 1.0 / (1.0 + xp.sqrt(squared))
