"""The lidar: rays to the terrain at equal angles around the vertical, 45 degrees below the horizon.

The lidar is on a stabilised platform: its rays keep their directions in the world when the lander
tilts. The slope of the terrain is at most 0.5, below the 1 of the rays, so that each ray meets the
ground exactly once, and the iteration d <- height above the ground at d converges to this point.
"""

from types import ModuleType

import numpy as np

from rlcar.envs.lander.terrain import Terrain, height_m
from rlcar.envs.lander.vectors import Vector
from rlcar.types import Array

RANGE_M = 200.0
# Each iteration reduces the error by the slope: at the default 0.25 to 1/1024 of the first one.
_ITERATIONS = 5


def ranges(xp: ModuleType, terrain: Terrain, field: Array, position_m: Vector, rays: int) -> Array:
    """Returns the distance to the terrain along each ray over `RANGE_M`, `[rays, N]` in [0, 1].

    Ray i points to the azimuth 360 i / rays degrees from the x axis, counterclockwise.
    """
    azimuth = 2.0 * np.pi * np.arange(rays) / rays
    east = xp.asarray(np.cos(azimuth)[:, None], np.float32)
    north = xp.asarray(np.sin(azimuth)[:, None], np.float32)
    x, y, z = (coordinate[None] for coordinate in position_m)
    # The horizontal distance equals the height, because the rays fall by 45 degrees.
    distance = 0.0 * (east + z)
    for _ in range(_ITERATIONS):
        ground = height_m(xp, terrain, field[None], x + east * distance, y + north * distance)
        distance = xp.clip(z - ground, 0.0, RANGE_M)
    return xp.minimum(distance * float(np.sqrt(2.0) / RANGE_M), 1.0)
