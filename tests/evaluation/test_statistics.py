"""Interquartile means on numbers whose answer is known."""

import numpy as np
import pytest

from rlcar.evaluation.statistics import (
    bootstrap_interquartile_mean,
    impossible_moments,
    interquartile_mean,
)


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


@pytest.mark.parametrize(("runs", "share"), [(3, 0.6), (5, 0.75), (10, 0.85)])
def test_an_interval_holds_the_truth_though_a_run_is_good_or_bad_on_every_track(runs, share):
    random = np.random.default_rng(0)
    held = 0
    for trial in range(60):
        scores = random.normal(size=(runs, 1)) + 0.5 * random.normal(size=(runs, 64))
        found = bootstrap_interquartile_mean(scores, resamples=100, seed=trial)
        assert found.low <= found.mean <= found.high
        held += found.low <= 0.0 <= found.high
    assert 60 * share <= held < 60


def test_runs_are_redrawn_whole():
    # Of two runs, a quarter of the resamples has the first alone, a quarter the second.
    found = bootstrap_interquartile_mean(np.repeat([[10.0], [20.0]], 64, axis=1))
    assert found == (15.0, 10.0, 20.0)


def test_one_run_has_no_spread_and_equal_runs_neither():
    one = bootstrap_interquartile_mean(np.arange(8.0)[None])
    assert one == (3.5, 3.5, 3.5)
    assert bootstrap_interquartile_mean(np.tile(np.arange(8.0), (3, 1))).low == 3.5


def test_what_has_no_mean_is_refused():
    with pytest.raises(ValueError, match="not all finite"):
        interquartile_mean(np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match=r"not \[runs, tracks\]"):
        bootstrap_interquartile_mean(np.ones(3))


def test_moments_that_no_data_can_have_are_named():
    good = {"a.mean": np.zeros(2), "a.variance": np.array([0.0, 1.0]), "a.count": np.array(1e-4)}
    assert impossible_moments(good) == impossible_moments({"adam.count": np.array(0)}) == ""
    negative = good | {"a.variance": np.array([1.0, -0.5])}
    assert impossible_moments(negative) == "a.variance is -0.5, and a variance is never negative"
    assert (
        impossible_moments(good | {"a.count": np.array(0.0)})
        == "a.count is 0, and a count is positive"
    )
