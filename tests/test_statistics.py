"""Interquartile means on numbers whose answer is known."""

import numpy as np
import pytest

from rlcar.statistics import bootstrap_interquartile_mean, interquartile_mean


@pytest.mark.parametrize(
    ("scores", "mean"),
    [
        ([1, 2, 3, 4], 2.5),
        ([1, 2, 3, 4, 5, 6, 7, 1000], 4.5),
        ([7], 7.0),
        ([0, 10], 5.0),
        # The middle half of five is one and a half of their neighbours: (0.75 + 1 + 0.75) / 2.5.
        ([0, 1, 2, 3, 100], 2.0),
        ([0, 0, 1, 100, 100], (0.75 * 0 + 1 + 0.75 * 100) / 2.5),
    ],
)
def test_the_middle_half_alone_counts(scores, mean):
    assert interquartile_mean(np.array(scores)) == pytest.approx(mean)


def test_it_is_scipys_trimmed_mean_where_the_quarters_are_whole():
    from scipy import stats

    scores = np.random.default_rng(0).normal(size=64)
    assert interquartile_mean(scores) == pytest.approx(stats.trim_mean(scores, 0.25))


def test_an_interval_holds_the_truth_as_often_as_it_says():
    random = np.random.default_rng(0)
    held = 0
    for trial in range(100):
        scores = random.normal(size=(5, 20))
        found = bootstrap_interquartile_mean(scores, resamples=200, seed=trial)
        assert found.low <= found.mean <= found.high
        held += found.low <= 0.0 <= found.high
    assert 80 <= held <= 100


def test_one_run_has_no_spread_and_equal_runs_neither():
    one = bootstrap_interquartile_mean(np.arange(8.0)[None])
    assert one == (3.5, 3.5, 3.5)
    assert bootstrap_interquartile_mean(np.tile(np.arange(8.0), (3, 1))).low == 3.5


def test_what_has_no_mean_is_refused():
    with pytest.raises(ValueError, match="not all finite"):
        interquartile_mean(np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match=r"not \[runs, tracks\]"):
        bootstrap_interquartile_mean(np.ones(3))
