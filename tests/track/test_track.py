"""Tracks have the same bits everywhere and can be driven."""

import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from rlcar.config import make_race_config
from rlcar.config.race import TrackConfig
from rlcar.errors import ConfigError
from rlcar.track import TRACK_SETS, TrackPool, make_pool, make_track, make_tracks

GOLDEN = Path(__file__).parents[1] / "golden" / "tracks.json"
GOLDEN_CONFIGS = {
    "classic": TrackConfig(),
    "road": TrackConfig(obstacle_placement="road", obstacles=8),
    "grand-prix": make_race_config("grand-prix").track,
    "sharp": TrackConfig(points=150, noise_amplitude=0.6, half_width_px=25.0),
}
SEEDS = range(10_000, 10_064)


def _digest(pool: TrackPool) -> str:
    digest = hashlib.sha256()
    for name, array in pool._asdict().items():
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _turns_deg(line_px: np.ndarray) -> np.ndarray:
    step = np.roll(line_px, -1, axis=0) - line_px
    heading = np.rad2deg(np.arctan2(-step[:, 1], step[:, 0]))
    return (np.roll(heading, -1) - heading + 180) % 360 - 180


def test_the_same_seeds_give_the_same_tracks_bit_for_bit():
    digests = {
        name: _digest(make_pool(range(200), config)) for name, config in GOLDEN_CONFIGS.items()
    }
    if os.environ.get("RLCAR_UPDATE_GOLDEN") == "1":
        GOLDEN.write_text(json.dumps(digests, indent=2) + "\n")
    assert digests == json.loads(GOLDEN.read_text()), (
        "tracks changed. Not meant? A bug. Meant? `make golden` and say why in the commit."
    )


def test_a_track_does_not_depend_on_its_neighbours_in_the_pool():
    together = make_pool(range(600), TrackConfig())
    for seed in (0, 511, 512, 599):
        alone = make_pool([seed], TrackConfig())
        for one, many in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], many[seed])


def test_ten_thousand_tracks_take_seconds():
    start_s = time.process_time()
    make_pool(TRACK_SETS["train"], TrackConfig())
    assert time.process_time() - start_s < 3.0


def test_roads_run_counter_clockwise_on_the_screen_with_the_inner_edge_on_the_left():
    for track in make_tracks(SEEDS, TrackConfig()):
        assert _turns_deg(track.centre_px).sum() == pytest.approx(360)
        ahead = np.roll(track.centre_px, -1, axis=0) - track.centre_px
        to_inner = track.inner_px - track.centre_px
        left_on_screen = ahead[:, 1] * to_inner[:, 0] - ahead[:, 0] * to_inner[:, 1]
        assert (left_on_screen > 0).all()


def test_edges_keep_the_half_width_from_every_centre_segment():
    for track in make_tracks(SEEDS, TrackConfig()):
        along = np.roll(track.centre_px, -1, axis=0) - track.centre_px
        length = np.hypot(along[:, 0], along[:, 1])
        for edge in (track.inner_px, track.outer_px):
            for vertex in (edge, np.roll(edge, -1, axis=0)):
                offset = vertex - track.centre_px
                across = np.abs(along[:, 0] * offset[:, 1] - along[:, 1] * offset[:, 0]) / length
                np.testing.assert_allclose(across, track.half_width_px, atol=0.05)


def test_both_edges_are_seen_whole_from_the_middle_of_the_world():
    for config in GOLDEN_CONFIGS.values():
        for track in make_tracks(SEEDS, config):
            for edge in (track.inner_px, track.outer_px):
                spoke = edge - (400, 300)
                following = np.roll(spoke, -1, axis=0)
                assert (spoke[:, 1] * following[:, 0] > spoke[:, 0] * following[:, 1]).all()


def test_all_coordinates_lie_on_the_grid_and_the_centre_line_in_the_world():
    for config in GOLDEN_CONFIGS.values():
        for track in make_tracks(SEEDS, config):
            for line in (track.centre_px, track.inner_px, track.outer_px, track.obstacles_px):
                assert (line * 32 == np.rint(line * 32)).all()
            assert (track.centre_px >= 0).all()
            assert (track.centre_px <= (800, 600)).all()


def test_the_classic_start_is_at_angle_zero_and_radii_keep_the_amplitude():
    for track in make_tracks(SEEDS, TrackConfig()):
        assert track.centre_px[0, 1] == 300.0
        radius_px = np.hypot(*(track.centre_px - (400, 300)).T)
        assert radius_px.min() > 210 * 0.7 - 0.1
        assert radius_px.max() < 210 * 1.3 + 0.1


def test_the_lap_of_a_circle_is_as_long_as_its_polygon():
    track = make_track(0, TrackConfig(noise_amplitude=0.0))
    assert track.length_px == pytest.approx(100 * 2 * 210 * np.sin(np.pi / 100), abs=0.3)


def test_infield_obstacles_stand_inside_the_loop_off_the_road_and_apart():
    for track in make_tracks(SEEDS, TrackConfig()):
        along = np.roll(track.inner_px, -1, axis=0) - track.inner_px
        for obstacle_px in track.obstacles_px:
            offset = obstacle_px - track.inner_px
            part = np.clip((offset * along).sum(-1) / (along * along).sum(-1), 0, 1)
            gap_px = np.hypot(*(offset - part[:, None] * along).T).min()
            assert gap_px > track.obstacle_radius_px
            # From a point inside the loop, all edges pass counter-clockwise.
            assert (along[:, 1] * offset[:, 0] > along[:, 0] * offset[:, 1]).sum() > 50
        apart = track.obstacles_px[:, None] - track.obstacles_px[None]
        apart_px = np.hypot(apart[..., 0], apart[..., 1]) + 1000 * np.eye(5)
        assert apart_px.min() > 2 * track.obstacle_radius_px


def test_road_obstacles_stand_on_the_road_and_leave_a_gap():
    config = TrackConfig(obstacle_placement="road", obstacles=5)
    for track in make_tracks(SEEDS, config):
        centre_px = track.centre_px
        along = np.roll(centre_px, -1, axis=0) - centre_px
        for obstacle_px in track.obstacles_px:
            offset = obstacle_px - centre_px
            part = np.clip((offset * along).sum(-1) / (along * along).sum(-1), 0, 1)
            off_centre_px = np.hypot(*(offset - part[:, None] * along).T).min()
            assert off_centre_px <= 40.0
            assert 40.0 + off_centre_px - 10.0 >= 29.9
            assert np.hypot(*(obstacle_px - centre_px[0])) > 50.0
        apart = track.obstacles_px[:, None] - track.obstacles_px[None]
        apart_px = np.hypot(apart[..., 0], apart[..., 1]) + 1000 * np.eye(5)
        assert apart_px.min() > 50.0


def test_impossible_roads_are_refused_with_the_numbers():
    with pytest.raises(ConfigError, match="points = 400"):
        make_track(0, TrackConfig(points=400))
    with pytest.raises(ConfigError, match="half_width_px = 60"):
        make_track(0, TrackConfig(base_radius_px=50.0, half_width_px=60.0))
    with pytest.raises(ConfigError, match="inside the loop"):
        make_track(0, TrackConfig(obstacle_radius_px=150.0))
    with pytest.raises(ConfigError, match="pool of 0 tracks"):
        make_pool([], TrackConfig())
