"""The velocity that a lander should have at a place, for reward and guidance.

The idea of a target velocity is that of Gaudet, Linares and Furfaro, "Deep reinforcement learning
for six degree-of-freedom planetary landing" (2020). Here it is a braking curve with constant
deceleration, which a lander of this thrust can follow.
"""

from types import ModuleType

from rlcar.envs.lander.vectors import Vector
from rlcar.types import Array

TOUCHDOWN_M_S = 1.0
_DESCENT_M_S2 = 0.8  # deceleration of the descent: half of the lunar gravity
_APPROACH_M_S2 = 0.35  # horizontal deceleration: a tilt of 8 to 12 degrees
_FASTEST_DESCENT_M_S = 45.0
_FASTEST_APPROACH_M_S = 30.0
_SETTLING_S = 7.0  # time constant of the last metres of the approach


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
