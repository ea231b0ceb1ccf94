"""What an evaluation proves, and what counts as forgotten."""

import pytest

from rlcar.errors import UserError
from rlcar.training.curriculum.settings import Stage
from rlcar.training.curriculum.thresholds import fresh_seeds, judge, recheck, score_of
from rlcar.types import Outcomes
from tests.support.tiny_curriculum import curriculum, stage

STAGE = Stage(name="far", success_rate=0.6, mean_reward=5.0, max_env_steps=1)


@pytest.mark.parametrize(
    ("successes", "mean_reward", "passed"),
    [(70, 6.0, True), (66, 6.0, False), (70, 4.9, False), (100, 5.0, True), (0, 9.0, False)],
)
def test_the_lower_bound_of_success_and_the_mean_reward_have_to_reach_their_thresholds(
    successes, mean_reward, passed
):
    assert judge(STAGE, Outcomes(100, successes, mean_reward), 0.975).passed is passed


def test_success_that_is_not_reported_is_refused_only_where_it_counts():
    with pytest.raises(UserError, match="does not report whether an episode succeeded: let it set"):
        judge(STAGE, Outcomes(100, None, 9.0), 0.9)
    by_reward = STAGE.model_copy(update={"success_rate": None})
    assert judge(by_reward, Outcomes(100, None, 9.0), 0.9).passed


def test_policies_are_ordered_by_what_a_stage_demands():
    often = judge(STAGE, Outcomes(100, 50, 1.0), 0.9)
    well = judge(STAGE, Outcomes(100, 40, 9.0), 0.9)
    assert score_of(STAGE, often) > score_of(STAGE, well)
    by_reward = STAGE.model_copy(update={"success_rate": None})
    assert score_of(by_reward, well) > score_of(by_reward, often)


def test_a_reward_that_is_not_finite_is_one_sentence():
    with pytest.raises(UserError, match="mean reward of 9 episodes of stage 'far' is nan"):
        judge(STAGE, Outcomes(9, 9, float("nan")), 0.9)
    with pytest.raises(UserError, match="is inf"):
        recheck(STAGE, Outcomes(9, 9, float("inf")), {"success_rate": 1.0, "mean_reward": 6.0})


def test_a_stage_is_forgotten_only_if_the_drop_is_no_chance():
    before = {"success_rate": 0.8, "mean_reward": 6.0}
    assert not recheck(STAGE, Outcomes(100, 55, 6.0), before).is_forgotten
    assert recheck(STAGE, Outcomes(100, 40, 6.0), before).is_forgotten
    assert recheck(STAGE, Outcomes(100, 90, 1.0), before).is_forgotten


def test_fresh_episodes_differ_between_purposes_and_are_repeated_for_the_same_one():
    made = curriculum(stage("a"), confirmation_episodes=200)
    assert fresh_seeds(made, 0, 1, 2) == fresh_seeds(made, 0, 1, 2)
    assert not set(fresh_seeds(made, 0, 1, 2)) & set(fresh_seeds(made, 0, 1, 3))
