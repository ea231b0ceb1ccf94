"""Sensors and the road against a brute-force reference in float64."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from rlcar.config import RaceConfig, TrackConfig, make_race_config
from rlcar.sim.backend import make_backend
from rlcar.sim.race import make_world, observe
from rlcar.sim.road import locate
from rlcar.sim.state import RaceState
from rlcar.track import make_pool, make_tracks


def _brute_force():
    path = Path(__file__).with_name("brute_force.py")
    spec = importlib.util.spec_from_file_location("brute_force", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


brute_force = _brute_force()


def _compare(config: TrackConfig, seeds: range, poses: int):
    """Returns ray errors in px, and how far from the road's border the wrong verdicts are."""
    world = make_world(
        RaceConfig(track=config), make_pool(seeds, config), make_backend(np), "fixed"
    )
    rng = np.random.default_rng(0)
    errors_px, misjudged_px = [], [np.zeros(1)]
    for index, track in enumerate(make_tracks(seeds, config)):
        cell = rng.integers(config.points, size=poses)
        part, side = rng.uniform(0, 1, (poses, 1)), rng.uniform(-1.15, 1.15, (poses, 1))
        following = (cell + 1) % config.points
        middle = track.centre_px[cell] * (1 - part) + track.centre_px[following] * part
        offset = track.inner_px - track.centre_px
        point = middle + side * (offset[cell] * (1 - part) + offset[following] * part)
        x = np.clip(np.rint(point[:, 0] * 4096), 0, 800 * 4096).astype(np.int32)
        y = np.clip(np.rint((600 - point[:, 1]) * 4096), 0, 600 * 4096).astype(np.int32)
        heading = rng.integers(2**22, size=poses).astype(np.int32)
        zero = np.zeros(poses, np.int32)
        place = locate(
            world.backend, world.tables, zero + index, x, y, cell.astype(np.int32), zero, gates=2
        )
        x_px, y_px = x / 4096, 600 - y / 4096
        distance_px = brute_force.distance_to_centre_line_px(track, x_px, y_px)
        is_wrong = (distance_px <= track.half_width_px) != place.is_on_road
        misjudged_px.append(np.abs(distance_px - track.half_width_px)[is_wrong])
        state = RaceState(*[zero] * len(RaceState._fields))._replace(
            track=zero + index, x=x, y=y, heading=heading, cell=place.cell
        )
        is_on_road = place.is_on_road
        rays_px = observe(world, state, is_on_road)[is_on_road, :5] * 150.0
        pose = brute_force.Pose(
            x_px[is_on_road], y_px[is_on_road], heading[is_on_road] * (360 / 2**22)
        )
        is_with_obstacles = config.obstacle_placement == "road"
        truth_px = brute_force.ray_distances_px(track, pose, is_with_obstacles)
        errors_px.append(np.abs(rays_px - truth_px).ravel())
    return np.concatenate(errors_px), np.concatenate(misjudged_px)


def test_a_quarter_of_a_million_rays_agree_with_brute_force_over_all_edges():
    errors_px, misjudged_px = _compare(TrackConfig(), range(10_000, 10_032), 2_000)
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
    errors_px, misjudged_px = _compare(config, range(6), 1_500)
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
