import numpy as np
import pytest

from rlcar.datasets import Episode
from rlcar.evaluation.off_policy.logged import (
    Logged,
    discounted_returns,
    held_out_episodes,
    logged_of,
    rows_of,
)


def episode(rewards: list[float], *, is_terminal: bool, first: float) -> Episode:
    steps = len(rewards)
    observation = np.arange(steps + 1, dtype=np.float32)[:, None] + first
    action = np.full((steps, 2), 0.5, np.float32) * np.arange(1, steps + 1)[:, None] / steps
    return Episode(observation, action, np.array(rewards, np.float32), is_terminal, not is_terminal)


@pytest.fixture
def logged() -> Logged:
    return logged_of(
        [
            episode([1.0, 2.0, 4.0], is_terminal=True, first=0.0),
            episode([8.0, 16.0], is_terminal=False, first=10.0),
        ],
        2,
        is_discrete=False,
    )


def test_rows_stand_one_episode_after_the_other(logged: Logged):
    assert logged.episodes == 2
    np.testing.assert_array_equal(logged.bounds, [0, 3, 5])
    np.testing.assert_array_equal(logged.observation[:, 0], [0, 1, 2, 10, 11])
    np.testing.assert_array_equal(logged.next_observation[:, 0], [1, 2, 3, 11, 12])
    np.testing.assert_array_equal(logged.is_terminal, [0, 0, 1, 0, 0])
    np.testing.assert_array_equal(logged.episode, [0, 0, 0, 1, 1])
    assert np.isnan(logged.action_logp).all()


def test_the_memory_of_an_episode_begins_anew(logged: Logged):
    np.testing.assert_array_equal(logged.earned, [0, 1, 3, 0, 8])
    np.testing.assert_array_equal(logged.previous_action[[0, 3]], np.zeros((2, 2)))
    np.testing.assert_array_equal(logged.previous_action[[1, 2, 4]], logged.action[[0, 1, 3]])


def test_discounted_returns_by_hand(logged: Logged):
    np.testing.assert_allclose(discounted_returns(logged, 0.5), [3.0, 4.0, 4.0, 16.0, 16.0])


def test_a_held_out_fifth_is_the_same_for_the_same_seed():
    held_out = held_out_episodes(20, 3)
    assert len(held_out) == 4
    np.testing.assert_array_equal(held_out, held_out_episodes(20, 3))
    assert len(held_out_episodes(1, 0)) == 1


def test_an_episode_that_is_drawn_twice_is_there_twice(logged: Logged):
    np.testing.assert_array_equal(rows_of(logged, np.array([1, 0, 1])), [3, 4, 0, 1, 2, 3, 4])


def test_discrete_actions_become_one_hot():
    recorded = Episode(
        np.zeros((3, 1), np.float32), np.array([2, 0], np.int32), np.zeros(2), True, False
    )
    action = logged_of([recorded], 3, is_discrete=True).action
    np.testing.assert_array_equal(action, [[0, 0, 1], [1, 0, 0]])
