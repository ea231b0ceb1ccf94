"""Blocks of recorded episodes."""

import jax
import numpy as np
import pytest

from rlcar.config import ReplayConfig
from rlcar.datasets import Dataset, DatasetWriter, World
from rlcar.errors import CheckpointError
from rlcar.replay import Replay
from rlcar.rollout.recorded import RecordedRollout, time_steps_of
from rlcar.types import Spec, Weights
from tests.support.recordings import random_episode, record

WEIGHTS = Weights(7, None)
DISCRETE = Spec(4, 3, is_discrete=True)
IMAGES = Spec(0, 2, image_shape=(16, 16, 3))


def _blocks(rollout, number):
    return [rollout.collect(WEIGHTS)[0] for _ in range(number)]


def _lanes(blocks):
    """Returns the time steps of all lanes, one lane after another."""
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *blocks)
    return jax.tree.map(lambda leaf: np.swapaxes(leaf, 0, 1).reshape(-1, *leaf.shape[2:]), joined)


def test_an_episode_becomes_the_time_steps_that_an_environment_would_have_returned():
    spec = Spec(6, 2)
    episode = random_episode(np.random.default_rng(1), spec, 3)._replace(
        is_terminal=True, is_truncated=False
    )
    steps = time_steps_of(episode, spec)
    np.testing.assert_array_equal(steps["observation"], episode.observation)
    np.testing.assert_array_equal(steps["previous_action"][1:], episode.action)
    np.testing.assert_array_equal(steps["reward"], [0.0, *episode.reward])
    np.testing.assert_array_equal(steps["is_first"], [True, False, False, False])
    np.testing.assert_array_equal(steps["is_last"], [False, False, False, True])
    np.testing.assert_array_equal(steps["is_terminal"], steps["is_last"])
    cut_off = time_steps_of(episode._replace(is_terminal=False, is_truncated=True), spec)
    assert cut_off["is_last"][-1]
    assert not cut_off["is_terminal"].any()


@pytest.mark.parametrize("spec", [Spec(6, 2), DISCRETE, IMAGES])
def test_the_replay_buffer_takes_the_blocks_and_finds_nothing_wrong(spec, tmp_path):
    dataset = record(tmp_path / "data", world=World(name="unknown"), spec=spec)
    replay = Replay(ReplayConfig(capacity_env_steps=4096, batch_length=8), spec, 32, seed=0)
    for block in _blocks(RecordedRollout(dataset, 0, 4, 32), 10):
        replay.insert(block)
    assert replay.check_valid() == (True, "")


def test_every_pass_contains_each_episode_once_in_another_order(tmp_path):
    dataset = record(tmp_path / "data")
    assert len(dataset.parts) > 2
    rollout = RecordedRollout(dataset, 0, 1, dataset.transitions + dataset.episodes)
    (first, counted), (second, _) = (rollout.collect(WEIGHTS) for _ in range(2))
    assert counted.env_steps == dataset.transitions + dataset.episodes
    np.testing.assert_array_equal(
        np.sort(counted.steps), sorted(episode.transitions for episode in dataset.episodes_iter())
    )
    assert (first.weights_version == 7).all()
    for one, other in (
        (first, second),
        (
            first,
            _blocks(RecordedRollout(dataset, 1, 1, dataset.transitions + dataset.episodes), 1)[0],
        ),
    ):
        assert (one.reward != other.reward).any()
        np.testing.assert_array_equal(np.sort(one.reward[:, 0]), np.sort(other.reward[:, 0]))


def test_a_restored_position_continues_exactly(tmp_path):
    dataset = record(tmp_path / "data")
    whole = _blocks(RecordedRollout(dataset, 3, 4, 16), 60)
    for before in (0, 1, 7, 31):
        parted = RecordedRollout(dataset, 3, 4, 16)
        _blocks(parted, before)
        later = RecordedRollout(dataset, 3, 4, 16)
        later.restore(parted.saved())
        for one, other in zip(whole[before:], _blocks(later, 60 - before), strict=True):
            jax.tree.map(np.testing.assert_array_equal, one, other)


def test_data_that_grows_while_it_is_read_changes_nothing(tmp_path):
    dataset = record(tmp_path / "data")
    expected = _blocks(RecordedRollout(dataset, 3, 4, 16), 60)
    growing = RecordedRollout(dataset, 3, 4, 16)
    found = _blocks(growing, 10)
    with DatasetWriter(tmp_path / "data", dataset.description, resume=True) as writer:
        writer.append(random_episode(np.random.default_rng(9)))
    assert Dataset.open(tmp_path / "data").episodes == dataset.episodes + 1
    for one, other in zip(expected, found + _blocks(growing, 50), strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_position_of_other_lanes_is_refused(tmp_path):
    dataset = record(tmp_path / "data")
    saved = RecordedRollout(dataset, 0, 4, 16).saved()
    with pytest.raises(CheckpointError, match="read in 8 lanes: resume with the same"):
        RecordedRollout(dataset, 0, 8, 16).restore(saved)


def test_discrete_actions_are_one_hot(tmp_path):
    dataset = record(tmp_path / "data", world=World(name="unknown"), spec=DISCRETE)
    steps = _lanes(_blocks(RecordedRollout(dataset, 0, 2, 32), 4))
    np.testing.assert_array_equal(
        steps.previous_action.sum(axis=1), np.where(steps.is_first, 0.0, 1.0)
    )
