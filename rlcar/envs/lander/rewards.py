"""The reward: +-1,000 at the end, and up to 500 on the way for a good approach.

Each metre of the approach is paid once, by how well the velocity matches the target velocity, how
close the attitude is to upright with the body's x axis along that of the world, and how slowly the
lander turns. The payment ends at the closest distance so far. Therefore hovering pays nothing,
flying back and forth pays nothing, and the whole approach pays at most 500, half of what a failure
costs.
"""

import math
from types import ModuleType

from rlcar.envs.lander.dynamics import Motion
from rlcar.envs.lander.guidance_field import target_velocity
from rlcar.envs.lander.vectors import dot, minus
from rlcar.types import Array

SUCCESS, FAILURE = 1_000.0, -1_000.0
FUEL_BONUS = 200.0  # for a full tank at a successful landing
APPROACH = 500.0  # for the whole way at full quality
MOST_PER_STEP = 5.0
# The deviations that halve the quality; that of the velocity also grows with the target speed.
_SPEED_ERROR_M_S, _SPEED_ERROR_SHARE = 1.0, 0.25
_TURN_RAD, _RATE_RAD_S = 0.35, 0.15


def approach_reward(
    xp: ModuleType, gain_m: Array, start_distance_m: Array, quality: Array
) -> Array:
    """Returns the payment `[N]` for `gain_m` new metres towards the pad, 0 to 5."""
    paid = APPROACH * quality * xp.maximum(gain_m, 0.0) / xp.maximum(start_distance_m, 1.0)
    return xp.minimum(paid, MOST_PER_STEP)


def approach_quality(xp: ModuleType, motion: Motion, height_m: Array) -> Array:
    """Returns how well landers fly, `[N]` in (0, 1]; the feet are `height_m` above the pad.

    It is the product of three factors 1 / (1 + (x / s)^2), where x is

    - the error of the velocity, and s = 1 m/s + a quarter of the target speed;
    - the sine of half the angle by which the lander is rotated, and s the same of 0.35 rad;
    - the rate of rotation, and s = 0.15 rad/s.
    """
    target = target_velocity(xp, motion.position_m, height_m)
    error = minus(motion.velocity_m_s, target)
    speed_scale = _SPEED_ERROR_M_S + _SPEED_ERROR_SHARE * xp.sqrt(dot(target, target))
    q, rates = motion.attitude, motion.rates_rad_s
    turned = q.x * q.x + q.y * q.y + q.z * q.z  # squared sine of half the angle
    flown = 1.0 + dot(error, error) / (speed_scale * speed_scale)
    upright = 1.0 + turned * (1.0 / math.sin(0.5 * _TURN_RAD) ** 2)
    steady = 1.0 + dot(rates, rates) * (1.0 / _RATE_RAD_S**2)
    return 1.0 / (flown * upright * steady)
