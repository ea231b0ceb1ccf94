"""A process whose values are known: the action is a speed, and speed pays."""

import numpy as np
import pytest

from rlcar.datasets import Episode
from rlcar.errors import DatasetError
from rlcar.evaluation.off_policy.fitted_q import FittedQSettings
from rlcar.evaluation.off_policy.logged import Logged, logged_of
from rlcar.evaluation.off_policy.policies import PolicyActions
from rlcar.evaluation.off_policy.prepared import prepare
from rlcar.evaluation.off_policy.report import evaluate

SETTINGS = FittedQSettings(discount=0.8, members=3, hidden_units=32, updates=1600, batch_size=128)
NOISE = 0.25


def recorded(episodes: int = 60, steps: int = 20, *, with_logp: bool = True) -> Logged:
    """The reward is the action; the observation says nothing. The behaviour's mean is 0."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(episodes):
        action = np.clip(NOISE * random.normal(size=(steps, 1)), -1, 1).astype(np.float32)
        observation = random.random((steps + 1, 2), np.float32)
        logp = -0.5 * (action[:, 0] / NOISE) ** 2 - np.log(NOISE * np.sqrt(2 * np.pi))
        found.append(
            Episode(observation, action, action[:, 0], False, True, logp if with_logp else None)
        )
    return logged_of(found, 1, is_discrete=False)


def constant(value: float, logged: Logged) -> PolicyActions:
    return PolicyActions(*(np.full_like(logged.action, value) for _ in range(2)))


@pytest.fixture(scope="module")
def report() -> dict:
    logged = recorded()
    policies = {str(value): constant(value, logged) for value in (-0.3, 0.0, 0.3, 1.0)}
    return evaluate(logged, policies, SETTINGS)


def test_estimates_contain_the_known_values(report):
    for value in (-0.3, 0.3):
        estimate = report["policies"][str(value)]["estimate"]
        assert estimate["low"] <= value / (1 - 0.8) <= estimate["high"]
        assert estimate["mean"] == pytest.approx(value / (1 - 0.8), abs=0.3)


def test_verdicts_say_which_policy_is_better_than_the_one_that_drove(report):
    assert report["policies"]["0.3"]["verdict"] == "better"
    assert report["policies"]["-0.3"]["verdict"] == "worse"
    assert report["policies"]["0.0"]["verdict"] == "unknown"
    assert "contains 0" in report["policies"]["0.0"]["reason"]


def test_an_unsupported_policy_gets_no_number(report):
    result = report["policies"]["1.0"]
    assert result["verdict"] == "unknown"
    assert "outside the data's support" in result["reason"]
    assert result["estimate"] is None
    assert result["difference"] is None
    assert result["importance"] is None
    assert result["checks"] is None  # nothing was learned about it


def test_the_highest_estimate_comes_first_and_unknown_ones_last(report):
    assert list(report["policies"]) == ["0.3", "0.0", "-0.3", "1.0"]


def test_an_estimate_above_every_recorded_episode_is_reported(report):
    highest = report["behaviour"]["highest_episode_return"]
    result = report["policies"]["0.3"]
    assert bool(result["warnings"]) == (result["estimate"]["mean"] > highest)
    assert "is above" in result["warnings"][0]


def test_the_behaviour_is_estimated_as_it_was(report):
    behaviour = report["behaviour"]
    assert behaviour["is_converged"]
    assert behaviour["estimate"] == pytest.approx(behaviour["return"], abs=0.2)


def test_the_behaviour_is_tested_by_episodes_that_a_member_did_not_learn_from(report):
    prepared = prepare(recorded(), SETTINGS, seed=0)
    assert np.bincount(prepared.fold).tolist() == [20, 20, 20]
    for member, episodes in enumerate(prepared.member_episodes):
        assert len(episodes) == 60
        assert not (prepared.fold[episodes] == member).any()


def test_policies_are_compared_with_a_baseline(report):
    """Both drive better than the recorded behaviour, and one of them better than the other."""
    logged = recorded()
    policies = {str(value): constant(value, logged) for value in (0.1, 0.3, 1.0)}
    found = evaluate(logged, policies, SETTINGS, baseline="0.3")
    assert set(found["policies"]) == {"0.1", "1.0"}
    result = found["policies"]["0.1"]
    assert result["verdict"] == "worse"
    assert result["difference"]["mean"] == pytest.approx(-1.0, abs=0.3)
    assert found["baseline"]["name"] == "0.3"
    assert found["baseline"]["verdict"] == "better"  # than the recorded behaviour
    assert report["baseline"] is None


def test_an_unknown_baseline_makes_every_verdict_unknown():
    logged = recorded()
    policies = {str(value): constant(value, logged) for value in (0.3, 1.0)}
    found = evaluate(logged, policies, SETTINGS, baseline="1.0")
    result = found["policies"]["0.3"]
    assert result["verdict"] == "unknown"
    assert result["reason"].startswith("the baseline 1.0 is unknown: ")
    assert result["estimate"] is not None
    assert result["difference"] is None


@pytest.mark.long
def test_what_an_estimate_adds_after_truncated_ends_does_not_hide_its_error():
    logged = recorded(steps=10)
    logged = logged._replace(reward=logged.reward + 1.0)
    settings = SETTINGS._replace(discount=0.9, updates=3200)
    policies = {"same": PolicyActions(logged.action, logged.action)}
    report = evaluate(logged, policies, settings)
    behaviour = report["behaviour"]
    share = 0.9**9
    assert behaviour["continued_share"] == pytest.approx(share)
    error = behaviour["estimate"] - behaviour["return"]
    assert behaviour["bias"] == pytest.approx(error / (1.0 - share))
    # 10 rewards of about 1 add up to 6.5, and all that would follow to 10.
    result = report["policies"]["same"]
    assert result["reason"].startswith("the interval of the difference contains 0")
    assert result["estimate"]["mean"] > 8.0
    assert not result["warnings"]


def test_episodes_that_are_cut_off_too_early_have_the_verdict_unknown():
    logged = recorded(20)
    few = SETTINGS._replace(discount=0.99, updates=80)
    result = evaluate(logged, {"fast": constant(0.3, logged)}, few)["policies"]["fast"]
    assert result["verdict"] == "unknown"
    assert "the episodes are cut off too early for this discount" in result["reason"]
    assert result["estimate"] is None


def test_known_action_probabilities_give_more_estimates(report):
    found = report["policies"]["0.3"]["importance"]
    assert 1.0 <= found["effective_episodes"] <= 60.0
    assert found["doubly_robust"]["mean"] == pytest.approx(1.5, abs=0.1)
    logged = recorded(20, with_logp=False)
    few = SETTINGS._replace(updates=80)
    without = evaluate(logged, {"same": PolicyActions(logged.action, logged.action)}, few)
    assert without["policies"]["same"]["importance"] is None


@pytest.mark.parametrize("episodes", [1, 9])
def test_too_few_episodes_are_refused(episodes):
    logged = recorded(episodes)
    with pytest.raises(DatasetError, match=f"{episodes} episodes? (is|are) too few"):
        evaluate(logged, {"fast": constant(0.3, logged)}, SETTINGS)


def test_rewards_that_are_all_zero_are_refused():
    logged = recorded(20)
    logged = logged._replace(reward=np.zeros_like(logged.reward))
    with pytest.raises(DatasetError, match="every recorded reward is 0, so no policy is better"):
        evaluate(logged, {"fast": constant(0.3, logged)}, SETTINGS)


def test_an_unfinished_evaluation_has_the_verdict_unknown():
    logged = recorded(20)
    few = SETTINGS._replace(updates=16, learning_rate=1e-5)
    result = evaluate(logged, {"fast": constant(0.3, logged)}, few)["policies"]["fast"]
    assert result["verdict"] == "unknown"
    assert "converged" in result["reason"]
    assert result["estimate"] is None
