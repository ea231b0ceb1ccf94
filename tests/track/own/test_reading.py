"""Files of centre lines become tracks, or one sentence says what is wrong with them."""

import hashlib
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from rlcar.config import dump_config, make_race_config, parse_config
from rlcar.config.race import RaceConfig, TrackConfig
from rlcar.errors import ConfigError
from rlcar.track import TRACK_SETS, make_pool, make_tracks, set_seeds
from rlcar.track.own.csv_file import LARGEST_BYTES, MOST_ROWS
from rlcar.track.own.export import file_name, write_csv
from rlcar.track.own.fitting import Scale
from rlcar.track.own.reading import with_own_tracks
from tests.track.own.shapes import HEADER, centre_lines, write

CLASSIC = TrackConfig()


def _read(path: Path, config: TrackConfig = CLASSIC, **scale: float) -> TrackConfig:
    return with_own_tracks(config, path, Scale(**scale))


def _write(path: Path, rows: np.ndarray, header: str = HEADER) -> Path:
    lines = [",".join(f"{value:.6g}" for value in row) for row in rows]
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def _ring(points: int = 40, radius: float = 50.0, width: float = 5.0) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    half = np.full(points, width)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), half, half], axis=1)


def test_five_shapes_fill_the_world_and_keep_their_proportions(tmp_path):
    config = _read(write(tmp_path))
    tracks = make_tracks(set_seeds("test", config), config)
    assert [track.name for track in tracks] == ["bean", "ell", "hairpins", "needle", "oval"]
    for track, (name, rows) in zip(tracks, centre_lines().items(), strict=True):
        edges_px = np.concatenate([track.inner_px, track.outer_px])
        assert edges_px.min() > 0
        assert (edges_px < (800, 600)).all()
        assert max(np.ptp(edges_px, axis=0) / (800, 600)) > 0.9, name
        hop = np.roll(rows[:, :2], -1, axis=0) - rows[:, :2]
        scale = track.length_px / np.hypot(*hop.T).sum()
        width_px = scale * rows[:, 2:].sum(axis=1)
        assert 2 * track.half_widths_px.min() == pytest.approx(width_px.min(), rel=0.03)
        assert 2 * track.half_widths_px.max() == pytest.approx(width_px.max(), rel=0.03)


def test_the_first_row_is_the_start_and_rows_follow_in_driving_order(tmp_path):
    config = _read(_write(tmp_path / "ring.csv", _ring()))
    left_hand = make_tracks([0], config)[0]
    config = _read(_write(tmp_path / "ring.csv", _ring()[::-1]))
    right_hand = make_tracks([0], config)[0]
    for track, turn in ((left_hand, 1), (right_hand, -1)):
        centre = track.centre_px - (400, 300)
        following = np.roll(centre, -1, axis=0)
        # On the screen y points down, so a positive sum is a clockwise turn.
        turned = centre[:, 0] * following[:, 1] - centre[:, 1] * following[:, 0]
        assert (turned * turn < 0).all()
        ahead = following - centre
        to_left = track.inner_px - track.centre_px
        assert (ahead[:, 0] * to_left[:, 1] - ahead[:, 1] * to_left[:, 0] < 0).all()
    assert left_hand.borders_px[0] is left_hand.inner_px
    assert right_hand.borders_px[0] is right_hand.outer_px
    np.testing.assert_allclose(left_hand.centre_px[0], (692, 300), atol=30)
    assert left_hand.centre_px[0, 1] == pytest.approx(300, abs=0.1)


def test_widths_are_measured_to_the_right_and_to_the_left(tmp_path):
    """A ring driven counter-clockwise has its right edge outside: by hand, at radius 50 + 8."""
    rows = _ring(400)
    rows[:, 2:] = 8.0, 4.0
    track = make_tracks([0], _read(_write(tmp_path / "ring.csv", rows), px_per_unit=4.0))[0]
    radius_px = np.hypot(*(track.outer_px - (400, 300)).T)
    np.testing.assert_allclose(radius_px, 4 * 58, atol=0.7)
    radius_px = np.hypot(*(track.inner_px - (400, 300)).T)
    np.testing.assert_allclose(radius_px, 4 * 46, atol=0.7)


def test_every_named_track_survives_a_file_bit_for_bit(tmp_path):
    for world in ("classic", "grand-prix"):
        config = make_race_config(world).track
        seeds = [*TRACK_SETS["test"][:8], *TRACK_SETS["circuits"]]
        drawn = make_tracks(seeds, config)
        folder = tmp_path / world
        folder.mkdir()
        for track in drawn:
            write_csv(folder / file_name(track), track)
        own = _read(folder, config)
        read = {track.name: track for track in make_tracks(set_seeds("test", own), own)}
        pools = make_pool(seeds, config), make_pool(set_seeds("test", own), own)
        names = [track.name for track in own.own]
        for row, track in enumerate(drawn):
            again = read[f"track-{track.seed}"]
            np.testing.assert_array_equal(track.inner_px, again.inner_px)
            np.testing.assert_array_equal(track.outer_px, again.outer_px)
            np.testing.assert_array_equal(track.centre_px, again.centre_px)
            other = names.index(again.name)
            for field in ("cell_start", "cell_reach", "half_width", "start_heading", "length"):
                drawn_row, own_row = getattr(pools[0], field)[row], getattr(pools[1], field)[other]
                np.testing.assert_array_equal(drawn_row, own_row)


def test_a_resampled_line_stays_within_a_pixel(tmp_path):
    """Read with other points, a file of a track lies within 1 px of the track of the file."""
    drawn = make_tracks([20_000], CLASSIC)[0]
    write_csv(tmp_path / "one.csv", drawn)
    again = make_tracks([0], _read(tmp_path / "one.csv", TrackConfig(points=160)))[0]
    start, along = drawn.centre_px, np.roll(drawn.centre_px, -1, axis=0) - drawn.centre_px
    to = again.centre_px[:, None] - start[None]
    part = np.clip((to * along).sum(-1) / (along * along).sum(-1), 0, 1)
    gap_px = np.sqrt(((to - part[..., None] * along) ** 2).sum(-1)).min(axis=1)
    assert gap_px.max() < 1.0


def test_settings_hold_the_tracks_and_not_the_file(tmp_path):
    race = RaceConfig(track=_read(write(tmp_path / "files", ["oval"])))
    (tmp_path / "files" / "oval.csv").unlink()
    config = parse_config({"race": race.model_dump()})
    again = parse_config(json.loads(dump_config(config))).race.track
    assert again == race.track
    digests = [
        hashlib.sha256(make_pool([3], track).edges.tobytes()).hexdigest()
        for track in (race.track, again)
    ]
    assert digests[0] == digests[1]


def test_seeds_count_through_the_tracks_and_vary_their_obstacles(tmp_path):
    files = write(tmp_path)
    config = _read(files)
    assert list(set_seeds("train", config)) == [0, 1, 2, 3, 4]
    assert len(set_seeds("validation", config)) == len(set_seeds("test", config)) == 5
    config = _read(files, TrackConfig(obstacle_placement="road", obstacles=3))
    assert set_seeds("train", config) == TRACK_SETS["train"]
    assert [make_tracks([seed], config)[0].name for seed in (1, 6, 20_001)] == ["ell"] * 3
    one, other = make_tracks([1, 6], config)
    np.testing.assert_array_equal(one.centre_px, other.centre_px)
    assert (one.obstacles_px != other.obstacles_px).any()


def test_obstacles_stand_beside_an_own_road(tmp_path):
    config = _read(write(tmp_path))
    for track in make_tracks(set_seeds("test", config), config):
        gap_px = np.linalg.norm(track.obstacles_px[:, None] - track.centre_px[None], axis=2)
        assert gap_px.min() > track.half_widths_px.max() + track.obstacle_radius_px
    wide = _read(tmp_path / "oval.csv", TrackConfig(obstacle_radius_px=200.0))
    with pytest.raises(ConfigError, match="do not fit beside the road of the own track 'oval'"):
        make_tracks([0], wide)


def _row(rows: np.ndarray, index: int, column: int, value: float) -> np.ndarray:
    changed = rows.copy()
    changed[index, column] = value
    return changed


_EIGHT = np.roll(
    np.stack(
        [
            60 * np.sin(np.linspace(0, 2 * np.pi, 80, endpoint=False)),
            40 * np.sin(np.linspace(0, 4 * np.pi, 80, endpoint=False)),
            *np.full((2, 80), 3.0),
        ],
        axis=1,
    ),
    10,
    axis=0,
)
_WRONG = {
    "NaN": (_row(_ring(), 4, 1, np.nan), "line 6: y is nan: give a finite number"),
    "infinity": (_row(_ring(), 4, 0, np.inf), "line 6: x is inf: give a finite number"),
    "negative width": (_row(_ring(), 0, 2, -3), "line 2: the width to the right is -3: give"),
    "no width": (_row(_ring(), 1, 3, 0), "line 3: the width to the left is 0: give"),
    "single point": (_ring(1), "a single point, 50, 0: a track is a closed line"),
    "one point many times": (np.repeat(_ring(1), 9, axis=0), "a single point, 50, 0"),
    "few points": (_ring(6), "only 6 different points: a track needs at least 8"),
    "open": (_ring(80)[:60], "lines 2 and 61: the line is open, because its end is"),
    "crossing": (_EIGHT, "lines 11 and 52: the line crosses itself"),
    "there and back": (
        np.concatenate([_ring(80)[:40], _ring(80)[38:0:-1]]),
        "the line crosses itself",
    ),
    "narrow": (_ring(width=0.5), "the road is 5.8 px wide, which is too narrow for the car"),
    "folded": (_ring(width=30), "the road folds over itself, because a bend is tighter"),
    "too few columns": (_ring()[:, :3], "line 2 has 3 columns in place of 4"),
    "too many columns": (np.tile(_ring(), 2), "line 2 has 8 columns in place of 4"),
    "no points": (np.zeros((0, 4)), "it has no points: write the line x_m"),
}


@pytest.mark.parametrize(("rows", "message"), _WRONG.values(), ids=_WRONG)
def test_a_line_that_is_no_track_is_refused_in_one_sentence(tmp_path, rows, message):
    path = _write(tmp_path / "track.csv", rows)
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        _read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_roads_that_overlap_are_refused_with_both_places(tmp_path):
    """A bone: round ends, and two straights between them with 12 m from middle to middle."""
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    y = np.sin(angle) * (6 + 30 * np.cos(angle) ** 2)
    bone = np.stack([100 * np.cos(angle), y, *np.full((2, 200), 6.8)], axis=1)
    with pytest.raises(ConfigError, match=r"lines (\d+) and (\d+): the road overlaps") as caught:
        _read(_write(tmp_path / "bone.csv", bone))
    one, other = map(int, re.findall(r"lines (\d+) and (\d+)", str(caught.value))[0])
    assert one + other == pytest.approx(2 * (2 + 100), abs=8)  # mirror images, above and below
    bone[:, 2:] = 5.0
    assert _read(_write(tmp_path / "bone.csv", bone)).own


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("x,y,w_tr_right,w_tr_left", "its first line names no unit: write x_m,y_m"),
        ("# a comment alone", "its first line names no unit"),
        ("x_ft,y_ft,w_tr_right_ft,w_tr_left_ft", "line 1 names the unit 'ft'"),
        ("x_m,y_px,w_tr_right_m,w_tr_left_m", "line 1 names the unit 'm, px'"),
        ("y_m,x_m,w_tr_right_m,w_tr_left_m", "line 1 names the columns 'y_m, x_m"),
        ("s_m,x_m,y_m,kappa", "line 1 names the columns 's_m, x_m"),
    ],
)
def test_a_file_must_name_its_columns_and_their_unit(tmp_path, header, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        _read(_write(tmp_path / "track.csv", _ring(), header))


def test_a_scale_replaces_a_missing_unit(tmp_path):
    path = _write(tmp_path / "track.csv", _ring(), "x, y, width right, width left")
    track = make_tracks([0], _read(path, px_per_unit=4.0))[0]
    assert track.length_px == pytest.approx(2 * np.pi * 200, rel=0.01)
    assert track.half_width_px == 20.0


def test_a_width_for_all_roads_lets_narrow_ones_be_driven(tmp_path):
    path = _write(tmp_path / "track.csv", _ring(width=0.5))
    assert make_tracks([0], _read(path, road_width_px=30.0))[0].half_width_px == 15.0


def test_huge_and_foreign_files_are_refused_before_they_are_read(tmp_path):
    huge = tmp_path / "huge.csv"
    with huge.open("wb") as file:
        file.truncate(10**7 * 20)  # the size of 10^7 points, without their bytes
    with pytest.raises(ConfigError, match=f"at most {LARGEST_BYTES:,} bytes and {MOST_ROWS:,} po"):
        _read(huge)
    many = tmp_path / "many.csv"
    many.write_text(HEADER + "\n" + "1,1,1,1\n" * (MOST_ROWS + 1))
    with pytest.raises(ConfigError, match="more than 100,000 points"):
        _read(many)
    picture = tmp_path / "picture.csv"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    with pytest.raises(ConfigError, match="it is not a text file"):
        _read(picture)
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    with pytest.raises(ConfigError, match=r"empty.csv: it has no points"):
        _read(empty)
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(ConfigError, match="holds no track: name a folder with files"):
        _read(folder)
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(ConfigError, match="it is a FIFO, not a regular file"):
        _read(tmp_path / "pipe.csv")


def test_own_tracks_of_settings_are_checked_again(tmp_path):
    """Settings may come from elsewhere: a config.json or a version of a registry."""
    config = _read(write(tmp_path, ["oval"]))
    tree = config.model_dump()
    with pytest.raises(ValueError, match="'oval' has 100 points, and points is 50"):
        TrackConfig.model_validate(tree | {"points": 50})
    with pytest.raises(ValueError, match="two tracks with the name 'oval'"):
        TrackConfig.model_validate(tree | {"own": [*tree["own"], *tree["own"]]})
    points = tree["own"][0]["line"].split(";")
    points[10], points[60] = points[60], points[10]
    folded = TrackConfig.model_validate(
        tree | {"own": [{"name": "oval", "line": ";".join(points)}]}
    )
    with pytest.raises(ConfigError, match="the own track 'oval' cannot be driven: the line"):
        make_pool([0], folded)
    for line in (
        ";".join([points[0]] * 100),
        ";".join([*points[:51], *points[49:0:-1]]),
    ):
        broken = TrackConfig.model_validate(tree | {"own": [{"name": "oval", "line": line}]})
        with pytest.raises(ConfigError, match="too short for 100 points|turns back on itself"):
            make_pool([0], broken)
    with pytest.raises(ValueError, match="should match pattern"):
        TrackConfig.model_validate(tree | {"own": [{"name": "oval", "line": "1,2,x"}]})
