"""The velocity that a lander should have at a place, and the acceleration that leads to it.

Reward, observation and guidance law use the same field.

The idea of a target velocity is that of Gaudet, Linares and Furfaro, "Deep reinforcement learning
for six degree-of-freedom planetary landing" (2020). Here it is a braking curve with constant
deceleration, which a lander of this thrust can follow.
"""

from types import ModuleType

from rlcar.envs.lander.dynamics import GRAVITY_M_S2
from rlcar.envs.lander.ending import LEG_M
from rlcar.envs.lander.vectors import Vector, minus
from rlcar.types import Array

TOUCHDOWN_M_S = 1.0
_DESCENT_M_S2 = 0.8  # deceleration of the descent: half of the lunar gravity
_APPROACH_M_S2 = 0.35  # horizontal deceleration: a tilt of 8 to 12 degrees
_FASTEST_DESCENT_M_S = 45.0
_FASTEST_APPROACH_M_S = 30.0
_SETTLING_S = 7.0  # time constant of the last metres of the approach
_VELOCITY_GAIN_PER_S = Vector(0.5, 0.5, 1.2)
_LOOK_AHEAD_S = 1.0  # the target velocity is that of the place where the lander will be
_LEAST_LIFT_M_S2 = 0.3  # so that the wanted thrust always points upwards
# Horizontal over vertical thrust: a tilt of 22 degrees, and near the ground less.
_LARGEST_SLOPE, _LEAST_SLOPE, _SLOPE_PER_M = 0.4, 0.1, 0.025


def target_velocity(xp: ModuleType, position_m: Vector, height_m: Array) -> Vector:
    """Returns the target velocity at a position relative to the pad, with the feet `height_m` up.

    Downwards it is sqrt(1 + 2 a h), and towards the pad min(d / 7 s, sqrt(2 a d)). If the approach
    needs longer than the descent, the descent is slower by the ratio of the two times.
    """
    height = xp.maximum(height_m, 0.0)
    distance = xp.sqrt(position_m.x * position_m.x + position_m.y * position_m.y + 1e-6)
    approach = xp.minimum(
        xp.minimum(distance * (1.0 / _SETTLING_S), xp.sqrt(2.0 * _APPROACH_M_S2 * distance)),
        _FASTEST_APPROACH_M_S,
    )
    descent = xp.minimum(
        xp.sqrt(TOUCHDOWN_M_S**2 + 2.0 * _DESCENT_M_S2 * height), _FASTEST_DESCENT_M_S
    )
    # With constant deceleration each takes twice the distance over the speed.
    descent_s = 2.0 * height / (descent + TOUCHDOWN_M_S)
    approach_s = 2.0 * xp.maximum(distance - 5.0, 0.0) / approach
    descent = descent * xp.minimum(1.0, (descent_s + 1.0) / (approach_s + 1.0))
    factor = -approach / distance
    return Vector(position_m.x * factor, position_m.y * factor, -descent)


def target_thrust(xp: ModuleType, position_m: Vector, velocity_m_s: Vector) -> Vector:
    """Returns the thrust per mass (m/s2) that leads to the target velocity in about a second.

    It is proportional to the error of the velocity, and carries the weight. Its tilt is limited.
    """
    pairs = zip(position_m, velocity_m_s, strict=True)
    ahead = Vector(*(p + _LOOK_AHEAD_S * v for p, v in pairs))
    error = minus(target_velocity(xp, ahead, ahead.z - LEG_M), velocity_m_s)
    gain = _VELOCITY_GAIN_PER_S
    up = xp.maximum(gain.z * error.z + GRAVITY_M_S2, _LEAST_LIFT_M_S2)
    east, north = gain.x * error.x, gain.y * error.y
    slope = xp.sqrt(east * east + north * north) / up
    height = xp.maximum(position_m.z - LEG_M, 0.0)
    most = xp.minimum(_LARGEST_SLOPE, _LEAST_SLOPE + _SLOPE_PER_M * height)
    factor = xp.minimum(1.0, most / xp.maximum(slope, 1e-6))
    return Vector(east * factor, north * factor, up)
