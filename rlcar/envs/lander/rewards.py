"""The reward: +-1,000 at the end, and up to 500 on the way for a good approach.

Each metre of the approach is paid once, by how well the velocity matches the target velocity and
how upright the lander is. The payment ends at the closest distance so far. Therefore hovering pays
nothing, flying back and forth pays nothing, and the whole approach pays at most 500, half of what
a failure costs.
"""

from types import ModuleType

from rlcar.envs.lander.guidance_field import target_velocity
from rlcar.envs.lander.vectors import Vector, dot, minus
from rlcar.types import Array

SUCCESS, FAILURE = 1_000.0, -1_000.0
FUEL_BONUS = 200.0  # for a full tank at a successful landing
APPROACH = 500.0  # for the whole way at full quality
MOST_PER_STEP = 5.0


def approach_reward(
    xp: ModuleType, gain_m: Array, start_distance_m: Array, quality: Array
) -> Array:
    """Returns the payment `[N]` for `gain_m` new metres towards the pad, 0 to 5."""
    paid = APPROACH * quality * xp.maximum(gain_m, 0.0) / xp.maximum(start_distance_m, 1.0)
    return xp.minimum(paid, MOST_PER_STEP)


def approach_quality(
    xp: ModuleType, position_m: Vector, velocity_m_s: Vector, height_m: Array, up: Vector
) -> Array:
    """Returns how well landers fly, `[N]` in [0, 1].

    It is 1 / (1 + (e / s)^2) with the error e of the velocity and s = 1 m/s + a quarter of the
    target speed, times the cosine of the tilt, at least 0.
    """
    target = target_velocity(xp, position_m, height_m)
    error = minus(velocity_m_s, target)
    scale = 1.0 + 0.25 * xp.sqrt(dot(target, target))
    return xp.maximum(up.z, 0.0) / (1.0 + dot(error, error) / (scale * scale))
