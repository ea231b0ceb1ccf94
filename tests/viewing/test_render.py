"""Films and sheets on disk: readable, of the right length, complete or absent."""

import sys

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from rlcar.config import make_race_config
from rlcar.errors import UserError
from rlcar.evaluation.drivers import full_throttle, longest_ray
from rlcar.viewing.car_policy import CarPolicy, drive_episode
from rlcar.viewing.render import render_lap, render_tracks

RACE = make_race_config("classic")
POLICIES = [
    CarPolicy(full_throttle, None, "full_throttle"),
    CarPolicy(longest_ray, None, "longest_ray"),
]


def test_a_drive_is_the_races_own_lap():
    moments = list(drive_episode(POLICIES[0], RACE, 20_000))
    assert moments[0].time_step.is_first.all()
    assert moments[-1].lap_time_steps == len(moments) - 1
    assert moments[-1].view.progress[0] == 1.0


def test_a_gif_holds_the_lap_with_its_ghost(tmp_path):
    out = tmp_path / "deep" / "lap.gif"
    said = render_lap(out, POLICIES, RACE, 20_000)
    assert said.startswith("full_throttle: a lap in ")
    assert "; longest_ray: a lap in " in said
    with Image.open(out) as film:
        assert film.n_frames > 100
        assert film.size == (480, 360)
    assert [path.name for path in out.parent.iterdir()] == ["lap.gif"]


def test_a_png_shows_the_last_moment(tmp_path):
    out = tmp_path / "end.png"
    render_lap(out, POLICIES[:1], RACE, 20_000)
    assert np.asarray(Image.open(out)).shape == (600, 800, 3)


def test_an_mp4_is_a_film_of_the_whole_lap(tmp_path):
    out = tmp_path / "lap.mp4"
    said = render_lap(out, POLICIES[:1], RACE, 20_000)
    frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(out))
    steps = int(said.split()[-2])
    assert frames == steps + 1
    assert seconds == pytest.approx(frames / 30, abs=0.1)
    assert [path.name for path in tmp_path.iterdir()] == ["lap.mp4"]


def test_an_mp4_without_ffmpeg_is_a_sentence_on_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)  # what an import of it meets then
    with pytest.raises(UserError, match=r"pip install 'rlcar\[video\]'"):
        render_lap(tmp_path / "lap.mp4", POLICIES[:1], RACE, 20_000)
    assert not list(tmp_path.iterdir())


def test_a_sheet_of_tracks(tmp_path):
    out = tmp_path / "sheet.png"
    render_tracks(out, make_race_config("grand-prix"), range(20_000, 20_004), columns=2)
    assert np.asarray(Image.open(out)).shape == (1200, 1600, 3)


@pytest.mark.parametrize("name", ["lap.avi", "lap"])
def test_another_format_is_refused_before_anything_is_driven(tmp_path, name):
    with pytest.raises(UserError, match=r"must end in one of .gif, .mp4, .png"):
        render_lap(tmp_path / name, POLICIES, RACE, 20_000)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_refuses_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="^cannot write "):
        render_lap(tmp_path / "file" / "end.png", POLICIES[:1], RACE, 20_000)
