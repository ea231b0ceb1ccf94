"""Height fields and the lidar, against slow and exact computations."""

import numpy as np
import pytest

from rlcar.envs.lander.lidar import RANGE_M, ranges
from rlcar.envs.lander.terrain import Ground, Terrain, height_m, make_heights
from rlcar.envs.lander.vectors import Vector

FIELDS, POINTS, CELL_M, SLOPE = 4, 81, 40.0, 0.25


@pytest.fixture(scope="module")
def terrain():
    heights = make_heights(FIELDS, POINTS, CELL_M, SLOPE, 0)
    return Terrain(heights.reshape(-1), POINTS, CELL_M)


def _height(terrain, x_m, y_m, field=0):
    x, y = np.broadcast_arrays(np.float32(x_m), np.float32(y_m))
    return height_m(np, Ground(terrain, np.full(x.shape, field, np.int32)), x, y)


def test_a_seed_determines_the_fields():
    one = make_heights(2, 33, 40.0, 0.25, 7)
    assert np.array_equal(one, make_heights.__wrapped__(2, 33, 40.0, 0.25, 7))
    assert not np.array_equal(one, make_heights(2, 33, 40.0, 0.25, 8))
    assert not np.array_equal(one[0], one[1])


def test_the_pad_is_flat_and_the_rest_is_not(terrain):
    angle = np.linspace(0, 2 * np.pi, 50)
    for radius in (0.0, 10.0, 20.0, 30.0):
        assert (_height(terrain, radius * np.cos(angle), radius * np.sin(angle)) == 0).all()
    assert np.abs(terrain.heights_m).max() > 10.0


def test_no_slope_exceeds_the_limit(terrain):
    generator = np.random.default_rng(0)
    x, y = generator.uniform(-1_500, 1_500, (2, 5_000))
    angle = generator.uniform(0, 2 * np.pi, 5_000)
    rise = _height(terrain, x + np.cos(angle), y + np.sin(angle)) - _height(terrain, x, y)
    assert 0.05 < np.abs(rise).max() <= SLOPE + 1e-3


def test_a_height_between_points_is_bilinear(terrain):
    heights = terrain.heights_m.reshape(FIELDS, POINTS, POINTS)
    # Between the points (row 50, column 60) and their neighbours.
    x, y = (60.25 - 40) * CELL_M, (50.75 - 40) * CELL_M
    corners = heights[2, 50:52, 60:62]
    wanted = np.array([0.25, 0.75]) @ corners @ np.array([0.75, 0.25])
    assert _height(terrain, x, y, field=2) == pytest.approx(wanted, abs=1e-4)


def test_outside_the_field_the_edge_goes_on(terrain):
    half = terrain.half_width_m
    assert _height(terrain, 5 * half, 100.0) == pytest.approx(_height(terrain, half, 100.0))


def test_a_slope_of_zero_is_a_plain():
    assert (make_heights(2, 33, 40.0, 0.0, 0) == 0).all()


def test_the_lidar_agrees_with_marching_along_each_ray(terrain):
    generator = np.random.default_rng(1)
    n = 200
    x, y = generator.uniform(-1_000, 1_000, (2, n)).astype(np.float32)
    altitude = generator.uniform(2.0, 120.0, n).astype(np.float32)
    z = _height(terrain, x, y) + altitude
    ground = Ground(terrain, np.zeros(n, np.int32))
    measured = ranges(np, ground, Vector(x, y, z), altitude, 8) * RANGE_M
    along = np.arange(0.0, 200.0, 0.1, np.float32)[:, None]
    for ray in range(8):
        east, north = np.cos(np.pi * ray / 4), np.sin(np.pi * ray / 4)
        above = z - along - _height(terrain, x + along * east, y + along * north)
        marched = np.minimum(np.sqrt(2.0) * along[np.argmax(above <= 0.0, axis=0), 0], RANGE_M)
        assert np.abs(measured[ray] - marched).max() <= 0.3 + 0.01 * marched.max()
        assert np.abs(measured[ray] - marched).mean() < 0.3


def test_a_lidar_over_a_plain_measures_the_altitude_times_root_two():
    plain = Terrain(make_heights(1, 33, 40.0, 0.0, 0).reshape(-1), 33, 40.0)
    ground = Ground(plain, np.zeros(3, np.int32))
    z = np.array([0.0, 50.0, 1_000.0], np.float32)
    measured = ranges(np, ground, Vector(z * 0, z * 0, z), z, 5)
    assert measured.shape == (5, 3)
    assert measured[3] == pytest.approx([0.0, 50 * np.sqrt(2) / 200, 1.0])
