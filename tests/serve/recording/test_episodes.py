"""The steps of a session become episodes; what is unknown is cut out or left out."""

from collections import Counter

import numpy as np

from serve.api.outcomes import Executions, Outcome
from serve.recording.episodes import NO_REWARD, SessionEpisodes
from serve.recording.messages import Step, with_outcome

NO = np.zeros(1, bool)


def _step(sequence, *, is_first=False, reward=None, is_terminal=False, executed=None, step=None):
    seen = np.full((1, 6), sequence / 100, np.float32)
    action = np.full((1, 2), sequence / 200, np.float32)
    first = np.array([is_first])
    message = Step(
        *(0, sequence, step, 1, 1, "model"), seen.tobytes(), first.tobytes(), action.tobytes()
    )
    if reward is None and not is_terminal and executed is None:
        return message
    rewards = None if reward is None else np.array([reward], np.float32)
    return with_outcome(message, Outcome(rewards, np.array([is_terminal]), NO, executed))


def _episodes(steps, **options):
    session, lost, found = SessionEpisodes(1), Counter(), []
    for step in steps:
        found += session.add(step, lost, **options)
    return found + list(session.finish(lost)), lost


def test_rewards_and_ends_come_with_the_next_observation():
    steps = [_step(0, is_first=True), _step(1, reward=1.0), _step(2, reward=2.0, is_terminal=True)]
    (episode,), lost = _episodes([*steps, _step(3, is_first=True)])
    assert episode.reward.tolist() == [1.0, 2.0]
    assert episode.is_terminal
    assert not episode.is_truncated
    np.testing.assert_allclose(episode.observation[:, 0], [0.0, 0.01, 0.02])
    np.testing.assert_allclose(episode.action[:, 0], [0.0, 0.005])
    assert (episode.policy, episode.source, episode.action_logp) == ("version-1", "model", None)
    assert not lost


def test_the_policy_says_which_arm_of_a_rollout_drove():
    steps = [_step(0, is_first=True), _step(1, reward=1.0), _step(2, reward=1.0)]
    steps[0].rollout = steps[1].rollout = "4f1c"
    steps[1].is_canary = True
    (episode,), _ = _episodes([*steps, _step(3, reward=1.0)])
    assert list(episode.policy) == [
        "version-1 (stable of 4f1c)",
        "version-1 (canary of 4f1c)",
        "version-1",
    ]


def test_an_episode_whose_end_was_not_reported_is_truncated():
    steps = [_step(0, is_first=True), _step(1, reward=1.0), _step(2, is_first=True)]
    (episode,), _ = _episodes(steps)
    assert episode.is_truncated
    assert episode.transitions == 1


def test_a_lost_step_cuts_the_episode():
    steps = [_step(0, is_first=True), _step(1, reward=1.0), _step(3, reward=1.0)]
    found, _ = _episodes([*steps, _step(4, reward=5.0)])
    assert [episode.reward.tolist() for episode in found] == [[1.0], [5.0]]
    assert all(episode.is_truncated for episode in found)


def test_a_jump_in_the_clients_own_numbers_cuts_it_too():
    steps = [_step(0, is_first=True, step=7), _step(1, reward=1.0, step=8)]
    found, _ = _episodes([*steps, _step(2, reward=9.0, step=10), _step(3, reward=2.0, step=11)])
    assert [episode.reward.tolist() for episode in found] == [[1.0], [2.0]]


def test_an_episode_without_rewards_is_left_out_and_counted():
    found, lost = _episodes([_step(0, is_first=True), _step(1), _step(2, reward=1.0)])
    assert found == []
    assert lost == {NO_REWARD: 2}


def test_what_a_person_did_takes_the_place_of_the_answer():
    executed = Executions(
        np.array([4], np.uint8), np.array([[0.5, -0.5]], np.float32), np.array([-1.5], np.float32)
    )
    steps = [_step(0, is_first=True), _step(1, reward=1.0), _step(2, reward=1.0, executed=executed)]
    (episode,), _ = _episodes(steps)
    assert episode.source.tolist() == ["model", "human"]
    assert episode.action[1].tolist() == [0.5, -0.5]
    assert episode.action_logp is None  # it is not known of every step
    (known,), _ = _episodes([_step(0, is_first=True), _step(1, reward=1.0, executed=executed)])
    assert known.action_logp.tolist() == [-1.5]


def test_an_endless_episode_is_cut_into_pieces():
    steps = [_step(number, is_first=number == 0, reward=1.0) for number in range(8)]
    found, _ = _episodes(steps, most_steps=3)
    assert [episode.transitions for episode in found] == [3, 3, 1]
    np.testing.assert_array_equal(found[0].observation[-1], found[1].observation[0])
