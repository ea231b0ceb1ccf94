"""The lidar: rays to the terrain at equal angles around the vertical, 45 degrees below the horizon.

The lidar is on a stabilised platform: its rays keep their directions in the world when the lander
tilts. The slope of the terrain is at most 0.4, below the 1 of the rays, so that each ray meets the
ground exactly once, and the iteration d <- height above the ground at d converges to this point.
"""

from types import ModuleType

import numpy as np

from rlcar.envs.lander.loops import repeat
from rlcar.envs.lander.terrain import Ground, height_m
from rlcar.envs.lander.vectors import Vector
from rlcar.types import Array

RANGE_M = 200.0
# The first guess is the altitude. Its error is at most the distance times the slope of the terrain,
# and each iteration multiplies it by the slope again: at a slope of 0.25 to 0.4 % of the distance.
_ITERATIONS = 3


def ranges(
    xp: ModuleType, ground: Ground, position_m: Vector, altitude_m: Array, rays: int
) -> Array:
    """Returns the distance to the terrain along each ray over `RANGE_M`, `[rays, N]` in [0, 1].

    Ray i points to the azimuth 360 i / rays degrees from the x axis, counterclockwise.
    """
    azimuth = 2.0 * np.pi * np.arange(rays) / rays
    east = xp.asarray(np.cos(azimuth)[:, None], np.float32)
    north = xp.asarray(np.sin(azimuth)[:, None], np.float32)
    x, y, z = (coordinate[None] for coordinate in position_m)
    below = Ground(ground.terrain, ground.field[None])

    # The horizontal distance equals the height, because the rays fall by 45 degrees.
    def closer(_: Array, distance: Array) -> Array:
        height = height_m(xp, below, x + east * distance, y + north * distance)
        return xp.clip(z - height, 0.0, RANGE_M)

    first = 0.0 * east + xp.clip(altitude_m[None], 0.0, RANGE_M)
    distance = repeat(xp, _ITERATIONS, closer, first)
    return xp.minimum(distance * float(np.sqrt(2.0) / RANGE_M), 1.0)
