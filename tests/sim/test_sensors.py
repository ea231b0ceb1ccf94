"""Sensors and the road against a brute-force reference in float64."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from rlcar.config import make_race_config
from rlcar.config.race import RANGE_PX, RAY_ANGLES_DEG, RaceConfig, TrackConfig
from rlcar.sim.backend import make_backend
from rlcar.sim.race import make_world, observe
from rlcar.sim.state import RaceState
from rlcar.track import grid, make_pool
from serve import live
from tests.sim.agreement import compare


def test_a_quarter_of_a_million_rays_agree_with_brute_force_over_all_edges():
    errors_px, misjudged_px = compare(TrackConfig(), range(10_000, 10_032), 2_000)
    assert len(errors_px) > 250_000
    assert errors_px.mean() < 0.03
    assert (errors_px > 1.0).mean() < 5e-4  # rays that graze a corner
    assert np.quantile(errors_px, 0.999) < 0.5
    assert misjudged_px.max() < 0.03


@pytest.mark.parametrize(
    "config",
    [
        TrackConfig(obstacle_placement="road", obstacles=8),
        TrackConfig(points=16),
        TrackConfig(points=150, half_width_px=20.0, noise_amplitude=0.6),
        TrackConfig(noise_amplitude=0.0, half_width_px=60.0),
        make_race_config("grand-prix").track,
    ],
    ids=["road obstacles", "few points", "narrow and sharp", "wide circle", "grand prix"],
)
def test_other_roads_agree_with_brute_force_too(config):
    errors_px, misjudged_px = compare(config, range(6), 1_500)
    # Single grazing rays are off by up to the range; a smaller sample would be ruled by them.
    assert np.minimum(errors_px, 1.0).mean() < 0.03
    assert (errors_px > 1.0).mean() < 1e-3
    assert misjudged_px.max() < 0.03


def test_the_start_of_a_circle_reads_its_width_by_hand():
    """Heading along the road, 45 degrees right meets the outer edge 40 px away, less the bend."""
    config = TrackConfig(noise_amplitude=0.0)
    world = make_world(RaceConfig(track=config), make_pool([0], config), make_backend(np))
    zero = np.zeros(1, np.int32)
    state = RaceState(*[zero] * len(RaceState._fields))._replace(
        x=zero + (610 << 12), y=zero + (300 << 12), heading=zero + (1 << 20)
    )
    rays_px = observe(world, state, zero == 0)[0, :5] * 150.0
    # A ray at angle a from the tangent of radius r meets radius R at sqrt(R^2 - r^2 cos^2 a) -
    # r sin a; to the inner circle (from outside) at r sin a - sqrt(R^2 - r^2 cos^2 a).
    sine = np.sin(np.pi / 4)
    right_px = np.sqrt(250**2 - (210 * sine) ** 2) - 210 * sine
    left_px = 210 * sine - np.sqrt(170**2 - (210 * sine) ** 2)
    ahead_px = np.sqrt(250**2 - 210**2)
    assert rays_px[0] == pytest.approx(right_px, abs=0.3)
    assert rays_px[4] == pytest.approx(left_px, abs=0.3)
    assert rays_px[2] == pytest.approx(ahead_px, abs=0.3)


def test_a_mirrored_world_is_sensed_in_a_mirror():
    """Left for right, and the road's gates in reverse: each ray reads what its image reads."""
    config = TrackConfig(obstacle_placement="road", obstacles=8)
    pool = make_pool(range(20_000, 20_008), config)
    width = 800 * grid.UNITS_PER_PX

    def mirrored(packed):
        return grid.pack(width - grid.unpack_x(packed), grid.unpack_y(packed))

    image = pool._replace(edges=mirrored(pool.edges)[:, ::-1], obstacles=mirrored(pool.obstacles))
    cars = 4000
    rng = np.random.default_rng(0)
    track = rng.integers(8, size=cars).astype(np.int32)
    cell = rng.integers(config.points, size=cars).astype(np.int32)
    vertices = pool.edges[track, pool.padding + cell]
    share = rng.uniform(0.05, 0.95, cars)
    x, y = (
        (read(vertices) * np.stack([share, 1 - share], axis=1)).sum(axis=1) / grid.UNITS_PER_PX
        for read in (grid.unpack_x, grid.unpack_y)
    )
    heading = rng.integers(2**22, size=cars)
    readings = []
    for one, x_px, turn, at in (
        (pool, x, heading, cell),
        (image, 800 - x, 2**21 - heading, (config.points - 2 - cell) % config.points),
    ):
        world = make_world(RaceConfig(track=config), one, make_backend(np), "fixed")
        zero = np.zeros(cars, np.int32)
        state = RaceState(*[zero] * len(RaceState._fields))._replace(
            track=track,
            x=np.rint(x_px * 4096).astype(np.int32),
            y=np.rint(y * 4096).astype(np.int32),
            heading=(turn % 2**22).astype(np.int32),
            cell=at.astype(np.int32),
        )
        readings.append(observe(world, state, zero == 0)[:, :5] * 150.0)
    error_px = np.abs(readings[0] - readings[1][:, ::-1])
    assert error_px.mean() < 0.05
    assert (error_px > 1.0).mean() < 1e-3  # rays that graze a corner


def test_the_live_page_draws_the_rays_that_the_simulator_has():
    source = Path(live.__file__).with_name("page") / "js" / "road.js"
    found = re.search(r"RAY_ANGLES = (\[.*\]), RANGE_PX = (\d+);", source.read_text())
    assert found is not None
    assert tuple(json.loads(found[1])) == RAY_ANGLES_DEG
    assert int(found[2]) == RANGE_PX
