"""The coverage picture counts what the data holds."""

import numpy as np
import pytest

from rlcar.datasets.coverage import BINS, THIN, draw, measure
from rlcar.errors import DatasetError
from tests.datasets.recorded import PICTURES, make_episode, make_pictures, write


def standing(length, speed, left):
    """Returns an episode at one speed; the left rays have one length, the right ones 0.5."""
    observation = np.full((length + 1, 6), 0.5, np.float32)
    observation[:, 3:5], observation[:, 5] = left, speed
    return make_episode(length, observation=observation)


def test_speeds_and_bends_are_counted(tmp_path):
    data = write(tmp_path, [standing(THIN, 0.99, 0.5), standing(7, 0.01, 1.0)])
    found = measure(data)
    assert found.counts.sum() == THIN + 7
    assert found.counts[BINS - 1, BINS // 2] == THIN  # fast and straight
    bend = int((1.0 / 3.0 + 1.0) / 2.0 * BINS)  # (2 - 1) / (2 + 1)
    assert found.counts[0, bend] == 7
    assert found.figures()["thin_cells"] == 1
    assert found.figures()["thin_transition_rate"] == pytest.approx(7 / (THIN + 7))


def test_other_axes_are_chosen_by_name(tmp_path):
    data = write(tmp_path, [standing(5, 0.2, 0.7)])
    found = measure(data, ("ray_+45_deg", "speed"))
    assert found.counts[int(0.7 * BINS), int(0.2 * BINS)] == 5
    with pytest.raises(DatasetError, match="no observation 'sped'; did you mean 'speed'"):
        measure(data, ("sped", "speed"))


def test_a_picture_is_drawn(tmp_path):
    data = write(tmp_path / "data", [make_episode(300)])
    draw(tmp_path / "coverage.png", measure(data), "some data")
    assert (tmp_path / "coverage.png").read_bytes().startswith(b"\x89PNG")


def test_images_have_no_picture(tmp_path):
    data = write(tmp_path, [make_pictures(3)], PICTURES)
    with pytest.raises(DatasetError, match="holds images, for which there is no coverage picture"):
        measure(data)
