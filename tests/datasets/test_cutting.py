"""Blocks of time steps become whole episodes, wherever the blocks are cut."""

import numpy as np
import pytest

from rlcar.datasets.cutting import Block, Cutter


def make_steps(lengths_by_car, steps):
    """Numbers the time steps of each car; an action is as large as the observation before it."""
    cars = len(lengths_by_car)
    number = np.tile(np.arange(steps, dtype=np.float32)[:, None], (1, cars))
    is_first, is_last = np.zeros((2, steps, cars), bool)
    for car, lengths in enumerate(lengths_by_car):
        ends = np.cumsum(lengths)
        is_last[ends[ends <= steps] - 1, car] = True
        starts = np.concatenate([[0], ends[:-1]])
        is_first[starts[starts < steps], car] = True
    observation = number[:, :, None]
    return Block(
        observation, 100 + number, is_first, is_last, is_last, -observation / 1000, number / 10
    )


@pytest.mark.parametrize("block_length", [1, 3, 5, 12])
def test_the_length_of_blocks_changes_nothing(block_length):
    steps = make_steps([(3, 4, 5), (12,), (2, 2, 9)], 12)
    cutter = Cutter(3, "driver", knows_log_probability=True)
    episodes = []
    for start in range(0, 12, block_length):
        block = Block(*(field[start : start + block_length] for field in steps))
        episodes += cutter.add(block)
    episodes += cutter.finish()
    first_of = sorted(float(episode.observation[0, 0]) for episode in episodes)
    assert first_of == [0, 0, 0, 2, 3, 4, 7]
    for episode in episodes:
        start, transitions = episode.observation[0, 0], episode.transitions
        numbers = start + np.arange(transitions + 1, dtype=np.float32)
        np.testing.assert_array_equal(episode.observation[:, 0], numbers)
        np.testing.assert_array_equal(episode.action[:, 0], -numbers[:-1] / np.float32(1000))
        np.testing.assert_array_equal(episode.reward, 100 + numbers[1:])
        np.testing.assert_array_equal(episode.action_logp, numbers[:-1] / np.float32(10))
        assert episode.is_truncated == (start == 4)  # the episode that the recording cuts off
    assert sum(episode.transitions for episode in episodes) == 36 - 7


def test_no_episode_begins_after_the_request():
    steps = make_steps([(3, 4, 5), (12,)], 12)
    cutter = Cutter(2, "driver", knows_log_probability=False)
    episodes = list(cutter.add(Block(*(field[:5] for field in steps))))
    cutter.begin_no_more()
    assert not cutter.is_done
    episodes += cutter.add(Block(*(field[5:] for field in steps)))
    assert cutter.is_done
    assert sorted(episode.transitions for episode in episodes) == [2, 3, 11]
    assert all(episode.action_logp is None for episode in episodes)
