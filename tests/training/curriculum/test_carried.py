"""Statistics that are lost at a boundary are noticed, whatever has happened to them."""

import re

import numpy as np
import pytest

from rlcar.agents import make_agent
from rlcar.errors import CheckpointError
from rlcar.training.curriculum.carried import (
    Statistics,
    distance,
    problem_of,
    statistics_of,
    warning_of,
)
from rlcar.types import Spec
from tests.support.tiny_curriculum import curriculum, stage

MEAN, VARIANCE = np.array([0.5, -2.0]), np.array([0.04, 9.0])
SOUND = Statistics(MEAN, VARIANCE, 5000.0)
EXPECTED = {"observation": SOUND.summary()}


def _problem(statistics, is_continued=False, expected=EXPECTED):
    found = {"observation": statistics}
    return problem_of(found, expected, least_count=1000, is_continued=is_continued)


def test_statistics_that_were_carried_unchanged_are_sound():
    assert _problem(SOUND) == ""
    assert _problem(SOUND._replace(observations=6000.0), is_continued=True) == ""


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (SOUND._replace(observations=1e-4), "count 0 observations, and at least 1,000 were driven"),
        (SOUND._replace(variance=np.ones(2)), "are not those with which the attempt before ended"),
        (SOUND._replace(mean=np.zeros(2)), "are not those with which the attempt before ended"),
        (SOUND._replace(variance=np.zeros(2)), "a variance is 0, and each has to be above 0"),
        (SOUND._replace(variance=-VARIANCE), "a variance is -9"),
        (SOUND._replace(mean=np.array([np.nan, 0.0])), "mean: not every number is finite"),
        (SOUND._replace(variance=np.array([np.inf, 1.0])), "variance: not every number is finite"),
        (SOUND._replace(observations=np.nan), "observations: not every number is finite"),
        (SOUND._replace(mean=np.zeros(3)), r"mean \(3,\) and variance \(2,\) differ"),
    ],
)
def test_broken_statistics_are_refused_with_their_numbers(broken, sentence):
    assert re.search(sentence, _problem(broken))


def test_statistics_that_vanish_or_shrink_during_training_are_noticed():
    assert problem_of({}, EXPECTED, least_count=0, is_continued=True) == (
        "it holds no statistics, and the attempt before ended with the statistics observation"
    )
    for observations in (4999.0, 5000.0):
        problem = _problem(SOUND._replace(observations=observations), is_continued=True)
        assert "not more than the 5,000" in problem


def test_near_observations_pass_and_far_ones_are_refused():
    rng = np.random.default_rng(0)
    near = MEAN + np.sqrt(VARIANCE) * rng.standard_normal((1000, 2))
    assert distance(SOUND, near).greatest_nats < 0.01
    assert warning_of(distance(SOUND, near), "save", "far") == ""
    one_moved = near + np.array([4.0, 0.0])  # 20 deviations: 200 nats in one number
    assert "differ much" in warning_of(distance(SOUND, one_moved), "save", "far")
    reset = Statistics(np.zeros(2), np.full(2, 1e-4), 5000.0)
    with pytest.raises(CheckpointError, match="do not describe stage far at all"):
        warning_of(distance(reset, near), "save", "far")


def test_the_divergence_of_a_mean_that_moved_by_one_deviation_is_a_half():
    moved = np.array([[1.5], [-0.5], [1.5], [-0.5]]) + 0.5  # mean 1, variance 1
    carried = Statistics(np.zeros(1), np.ones(1), 9.0)
    assert distance(carried, moved).median_nats == pytest.approx(0.5)


def test_a_learner_names_its_statistics_itself():
    ppo = make_agent(curriculum(stage("a")).config(0, 1), Spec(2, 1)).learner
    found = statistics_of(ppo, ppo.init(0))
    assert set(found) == {"observation", "return"}
    assert found["observation"].mean.shape == (2,)
    assert statistics_of(ppo._replace(moments_of=None), ppo.init(0)) == {}
