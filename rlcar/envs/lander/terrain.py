"""Rough ground with a flat pad: height fields on a square grid, interpolated bilinearly.

A field is a sum of waves with random directions and phases. It fades to height 0 around the pad in
the centre of the world, and is scaled so that no slope exceeds the wanted one. Fields are made once
in float64 and rounded to float32, so that NumPy and JAX read the same heights.
"""

import functools
from types import ModuleType
from typing import NamedTuple

import numpy as np

from rlcar.types import Array

PAD_RADIUS_M = 20.0  # the area in which a landing counts
_FLAT_RADIUS_M = 30.0  # from here on the terrain rises
_FADE_M = 150.0  # over this distance it reaches its full height
_WAVES = 24
_LONGEST_WAVE_M, _SHORTEST_WAVE_M = 1_200.0, 150.0


class Terrain(NamedTuple):
    """Some height fields of one size."""

    heights_m: Array  # [fields * points * points] float32, one field after the other, y by y
    points: int  # along a side
    cell_m: float  # distance between neighbouring points

    @property
    def half_width_m(self) -> float:
        """Distance from the pad to the edge of the field."""
        return 0.5 * (self.points - 1) * self.cell_m


class Ground(NamedTuple):
    """The terrain of each of N landers."""

    terrain: Terrain
    field: Array  # int32, in the shape of the places that are looked up


@functools.lru_cache(maxsize=4)
def make_heights(fields: int, points: int, cell_m: float, slope: float, seed: int) -> np.ndarray:
    """Returns heights `[fields, points (y), points (x)]` in m, float32; the pad is at height 0."""
    axis = (np.arange(points) - 0.5 * (points - 1)) * cell_m
    x, y = axis[None, :], axis[:, None]
    distance = np.clip((np.hypot(x, y) - _FLAT_RADIUS_M - cell_m) / _FADE_M, 0.0, 1.0)
    fade = distance * distance * (3.0 - 2.0 * distance)
    heights = np.zeros((fields, points, points))
    for field in range(fields):
        generator = np.random.default_rng([seed, field])
        # Waves shorter than four cells would be cut into single peaks.
        shortest = max(_SHORTEST_WAVE_M, 4.0 * cell_m)
        lengths = np.geomspace(max(_LONGEST_WAVE_M, 2.0 * shortest), shortest, _WAVES)
        for length in lengths:
            angle, phase = generator.uniform(0.0, 2.0 * np.pi, 2)
            along = np.cos(angle) * x + np.sin(angle) * y
            heights[field] += length * np.sin(2.0 * np.pi * along / length + phase)
        heights[field] *= fade
        rise_x, rise_y = np.diff(heights[field], axis=1), np.diff(heights[field], axis=0)
        # The largest gradient of a bilinear cell is at most that of its steepest edges together.
        steepest = np.hypot(np.abs(rise_x).max(), np.abs(rise_y).max()) / cell_m
        heights[field] *= slope / max(steepest, 1e-9)
    result = heights.astype(np.float32)
    result.setflags(write=False)  # callers share it
    return result


def height_m(xp: ModuleType, ground: Ground, x_m: Array, y_m: Array) -> Array:
    """Returns the height at (x, y), arrays of one shape; outside, the edge of the field goes on."""
    terrain, field = ground
    last = terrain.points - 1
    u = xp.clip(x_m * (1.0 / terrain.cell_m) + 0.5 * last, 0.0, last)
    v = xp.clip(y_m * (1.0 / terrain.cell_m) + 0.5 * last, 0.0, last)
    column = xp.minimum(u.astype(np.int32), last - 1)
    row = xp.minimum(v.astype(np.int32), last - 1)
    right, up = u - column.astype(np.float32), v - row.astype(np.float32)
    corner = (field * terrain.points + row) * terrain.points + column

    def at(offset: int) -> Array:
        return _take(xp, terrain.heights_m, corner + offset)

    low = at(0) + right * (at(1) - at(0))
    high = at(terrain.points) + right * (at(terrain.points + 1) - at(terrain.points))
    return low + up * (high - low)


def _take(xp: ModuleType, table: Array, index: Array) -> Array:
    if xp is np:
        return table[index]
    return table.at[index].get(mode="promise_in_bounds")  # `height_m` clips its indices
