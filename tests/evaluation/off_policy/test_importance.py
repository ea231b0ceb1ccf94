import numpy as np
import pytest

from rlcar.evaluation.off_policy.importance import (
    PaddedEpisodes,
    choose,
    doubly_robust,
    effective_episodes,
    log_ratios,
    pad,
    per_decision_importance,
    weighted_importance,
)

DISCOUNT = 0.5
# Two episodes of two steps with ratios (2, 3) and (1, 0.5).
EPISODES = PaddedEpisodes(np.log([[2.0, 3.0], [1.0, 0.5]]), np.array([[1.0, 4.0], [2.0, 8.0]]))


def test_weighted_importance_by_hand():
    # Weights 6 and 0.5; returns 1 + 0.5 4 = 3 and 2 + 0.5 8 = 6.
    assert weighted_importance(EPISODES, DISCOUNT) == pytest.approx((6 * 3 + 0.5 * 6) / 6.5)


def test_per_decision_importance_by_hand():
    # Step 0: weights 2 and 1. Step 1: weights 6 and 0.5.
    first = (2 * 1 + 1 * 2) / 3
    second = (6 * 4 + 0.5 * 8) / 6.5
    assert per_decision_importance(EPISODES, DISCOUNT) == pytest.approx(first + 0.5 * second)


def test_doubly_robust_by_hand():
    episodes = EPISODES._replace(
        action_value=np.array([[2.0, 3.0], [1.0, 5.0]]),
        state_value=np.array([[4.0, 2.0, 0.0], [3.0, 6.0, 0.0]]),
    )
    # Differences r + 0.5 V' - Q: 1 + 1 - 2 = 0, 4 - 3 = 1; 2 + 3 - 1 = 4, 8 - 5 = 3.
    first = (2 * 0 + 1 * 4) / 3
    second = (6 * 1 + 0.5 * 3) / 6.5
    expected = (4 + 3) / 2 + first + 0.5 * second
    assert doubly_robust(episodes, DISCOUNT) == pytest.approx(expected)


def test_exact_values_need_no_correction():
    reward = np.array([[1.0, 2.0], [1.0, 2.0]])
    value = np.array([[2.0, 2.0, 0.0]] * 2)
    episodes = PaddedEpisodes(EPISODES.log_ratio, reward, np.array([[2.0, 2.0]] * 2), value)
    assert doubly_robust(episodes, DISCOUNT) == pytest.approx(2.0)


def test_all_estimators_are_the_mean_return_for_the_policy_that_drove():
    episodes = PaddedEpisodes(np.zeros((2, 2)), EPISODES.reward, np.zeros((2, 2)), np.zeros((2, 3)))
    for estimator in (weighted_importance, per_decision_importance, doubly_robust):
        assert estimator(episodes, DISCOUNT) == pytest.approx(4.5)


def test_an_action_that_the_policy_never_takes_ends_an_episodes_weight():
    episodes = EPISODES._replace(log_ratio=np.array([[-np.inf, 0.0], [0.0, 0.0]]))
    assert weighted_importance(episodes, DISCOUNT) == pytest.approx(6.0)
    assert effective_episodes(episodes.log_ratio) == pytest.approx(1.0)
    nothing = EPISODES._replace(log_ratio=np.full((2, 2), -np.inf))
    assert weighted_importance(nothing, DISCOUNT) == 0.0
    assert effective_episodes(nothing.log_ratio) == 0.0


def test_effective_episodes_by_hand():
    assert effective_episodes(np.log([[3.0], [1.0]])) == pytest.approx(16 / 10)


def test_enormous_weights_do_not_overflow():
    episodes = EPISODES._replace(log_ratio=np.full((2, 2), 800.0))
    assert weighted_importance(episodes, DISCOUNT) == pytest.approx(4.5)


def test_ratio_of_discrete_actions():
    policy, action = np.eye(2)[[0, 1]], np.eye(2)[[0, 0]]
    ratio = log_ratios(policy, action, np.log([0.25, 0.5]), is_discrete=True)
    np.testing.assert_allclose(ratio, [np.log(4.0), -np.inf])


def test_ratio_of_continuous_actions_is_that_of_a_normal_density():
    policy, action = np.zeros((1, 2)), np.array([[0.1, 0.0]])
    ratio = log_ratios(policy, action, np.zeros(1), is_discrete=False, bandwidth=0.1)
    # Two normal densities with a deviation of 0.1, one of them a deviation away.
    expected = -0.5 - 2 * np.log(0.1 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(ratio, [expected])


@pytest.mark.parametrize("centre", [-1.0, 0.3, 0.95, 1.0])
def test_the_density_around_a_continuous_action_integrates_to_1(centre):
    action = np.linspace(-1.0, 1.0, 20_001)[:, None]
    ratio = log_ratios(np.full_like(action, centre), action, np.zeros(20_001), is_discrete=False)
    assert np.trapezoid(np.exp(ratio), action[:, 0]) == pytest.approx(1.0, abs=1e-3)


def test_padding_and_choosing_keep_episodes_apart():
    padded = pad(np.array([1.0, 2.0, 3.0]), np.array([0, 1, 3]))
    np.testing.assert_array_equal(padded, [[1.0, 0.0], [2.0, 3.0]])
    chosen = choose(PaddedEpisodes(padded, padded + 1.0), np.array([1, 1]))
    np.testing.assert_array_equal(chosen.log_ratio, [[2.0, 3.0]] * 2)
    assert chosen.state_value is None
