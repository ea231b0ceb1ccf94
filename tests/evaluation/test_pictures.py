"""Pictures are whole PNG files, whatever they are given."""

from pathlib import Path

import numpy as np
import pytest

from rlcar.config.race import TrackConfig
from rlcar.evaluation.laps import Laps
from rlcar.evaluation.pictures import draw_best, draw_laps, draw_learning_curve
from rlcar.track import make_tracks


def is_png(path: Path) -> bool:
    content = path.read_bytes()
    return content.startswith(b"\x89PNG") and content.endswith(b"IEND\xaeB`\x82")


def laps_on_the_centre_line(tracks) -> Laps:
    """The first car laps, the second crashes half-way, the rest time out there."""
    count = len(tracks)
    steps = np.full(count, 50, np.int32)
    steps[0] = 99
    line_px = np.stack([track.centre_px for track in tracks], axis=1).astype(np.float32)
    line_px[51:, 1:] = np.nan
    return Laps(
        lap_time_steps=np.where(np.arange(count) == 0, 99, 0).astype(np.int32),
        is_crash=np.arange(count) == 1,
        progress=np.where(np.arange(count) == 0, 1.0, 0.5).astype(np.float32),
        steps=steps,
        smoothness=np.zeros(count, np.float32),
        reward=np.zeros(count, np.float32),
        x_px=line_px[..., 0],
        y_px=line_px[..., 1],
        speed_px_per_step=np.full(line_px.shape[:2], 4.0, np.float32),
    )


@pytest.mark.parametrize("count", [1, 3, 6])
@pytest.mark.parametrize("draw", [draw_laps, draw_best])
def test_laps_of_any_number_of_tracks_are_drawn(tmp_path, draw, count):
    tracks = make_tracks(range(count), TrackConfig())
    path = tmp_path / "laps.png"
    draw(path, tracks, laps_on_the_centre_line(tracks), "a title")
    assert is_png(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"env_steps": 100}],
        [{"evaluation/lap_rate": 0.5}],
        [{"env_steps": 0, "evaluation/lap_rate": 0.0, "episode/reward": None}],
        [{"env_steps": 0, "evaluation/lap_rate": 0.0}, {"env_steps": 9, "episode/reward": 3.0}],
    ],
)
def test_a_learning_curve_tolerates_missing_keys(tmp_path, rows):
    draw_learning_curve(tmp_path / "curve.png", rows)
    assert is_png(tmp_path / "curve.png")


def test_a_picture_replaces_an_older_one(tmp_path):
    path = tmp_path / "curve.png"
    path.write_text("torn")
    draw_learning_curve(path, [])
    assert is_png(path)
