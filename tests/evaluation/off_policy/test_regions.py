"""Regions of the race have the same bends and thin cells as the coverage picture."""

import numpy as np

from rlcar.datasets.coverage import THIN, measure
from rlcar.evaluation.off_policy.logged import read_logged
from rlcar.evaluation.off_policy.regions import regions_of
from tests.datasets.recorded import make_episode, write


def standing(length, speed, left):
    """Returns an episode at one speed; the left rays have one length, the right ones 0.5."""
    observation = np.full((length + 1, 6), 0.5, np.float32)
    observation[:, 3:5], observation[:, 5] = left, speed
    return make_episode(length, observation=observation)


def test_bends_and_thin_cells_are_those_of_the_coverage(tmp_path):
    data = write(tmp_path, [standing(THIN, 0.99, 0.4), standing(7, 0.01, 1.0)])
    regions = regions_of(data, read_logged(data, 1_000))
    assert sorted(set(np.round(regions.bend, 4))) == [-0.1111, 0.3333]
    expected = measure(data)
    assert (regions.bend_edges[0], regions.bend_edges[-1]) == (-1.0, 1.0)
    assert expected.figures()["thin_cells"] == 1
    (warning,) = regions.warnings()
    assert warning.startswith("1 of 2 visited cells of speed and bend hold fewer than 50 ")
    assert (regions.counts() > 0).sum() == expected.figures()["visited_cells"]


def test_data_without_thin_cells_gives_no_warning(tmp_path):
    data = write(tmp_path, [standing(THIN, 0.99, 0.4)])
    assert regions_of(data, read_logged(data, 1_000)).warnings() == []
