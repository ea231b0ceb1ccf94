"""The racing line lies inside its borders and is as fast as grip and brakes allow."""

import numpy as np
import pytest

from rlcar.config import make_race_config
from rlcar.config.race import TrackConfig
from rlcar.track import make_tracks
from rlcar.track.racing_line import MARGIN_PX, racing_lines

SEEDS = range(20_000, 20_016)


def _offsets_px(track, line):
    across = (track.outer_px - track.centre_px) / track.half_width_px
    to_px = line.point_px - track.centre_px
    return (to_px * across).sum(axis=1) / (across * across).sum(axis=1)


def test_the_line_keeps_its_margin_from_the_edges_and_clear_of_the_circles():
    config = make_race_config("grand-prix", track={"half_width_low_px": 30.0})
    tracks = make_tracks(SEEDS, config.track)
    for track, line in zip(tracks, racing_lines(tracks, config), strict=True):
        limit_px = track.half_width_px - MARGIN_PX
        assert np.abs(_offsets_px(track, line)).max() <= limit_px + 1e-6
        gap_px = np.linalg.norm(line.point_px[:, None] - track.obstacles_px[None], axis=2)
        assert gap_px.min() > track.obstacle_radius_px + 1.0


def test_on_a_circle_grip_sets_the_speed():
    config = make_race_config(
        "grand-prix-1", track={"noise_amplitude": 0.0, "half_width_low_px": 40.0}
    )
    tracks = make_tracks([0], config.track)
    (line,) = racing_lines(tracks, config, grip_share=0.5)
    radius_px = np.linalg.norm(line.point_px - [400, 300], axis=1)
    grip = config.vehicle.grip_px_per_step2.low * 0.5
    np.testing.assert_allclose(
        line.speed_px_per_step,
        np.minimum(np.sqrt(grip * radius_px), config.vehicle.top_speed_px_per_step),
        rtol=0.02,
    )


@pytest.mark.parametrize("world", ["grand-prix-1", "grand-prix"])
def test_no_speed_asks_for_more_than_grip_or_brakes_give(world):
    config = make_race_config(world)
    tracks = make_tracks(SEEDS, config.track)
    for line in racing_lines(tracks, config):
        hop_px = np.linalg.norm(np.roll(line.point_px, -1, axis=0) - line.point_px, axis=1)
        speed, following = line.speed_px_per_step, np.roll(line.speed_px_per_step, -1)
        assert speed.min() >= 1.0
        assert speed.max() <= config.vehicle.top_speed_px_per_step
        assert ((speed**2 - following**2) / (2 * hop_px)).max() <= 0.4 + 0.01 * 8 + 1e-6


def test_more_grip_is_never_slower():
    config = make_race_config("grand-prix")
    tracks = make_tracks(SEEDS, config.track)
    little, much = (racing_lines(tracks, config, grip_share=share) for share in (0.5, 1.0))
    for slow, fast in zip(little, much, strict=True):
        np.testing.assert_array_equal(slow.point_px, fast.point_px)
        assert slow.lap_time_steps > fast.lap_time_steps


def test_the_classic_line_is_driven_at_the_top_speed():
    config = make_race_config("classic", track={"noise_amplitude": 0.2})
    tracks = make_tracks(SEEDS, TrackConfig(noise_amplitude=0.2))
    for line in racing_lines(tracks, config):
        assert (line.speed_px_per_step == 5.0).all()
