"""Self-play: which cars learn, who drives the others, and what a checkpoint keeps."""

import jax
import numpy as np
import pytest

from rlcar.agents import make_agent
from rlcar.config import make_config
from rlcar.evaluation.environment import make_rollout
from rlcar.rollout.compiled import Rollout
from rlcar.rollout.self_play import SelfPlayRollout, past_cars
from rlcar.sim import SPEC
from rlcar.types import Weights


def _config(*overrides, share=0.5):
    settings = [
        "race.cars_per_track=2", "training.cars=8", "training.block_length=32",
        f"training.past_opponents_share={share}",
        "training.past_opponents_every_env_steps=512",
        "training.past_opponents_kept=2", *overrides,
    ]  # fmt: skip
    return make_config("ppo", mode="test", overrides=settings)


def _weights(config, version, scale=1.0):
    agent = make_agent(config, SPEC)
    params = jax.device_get(agent.learner.policy_params(agent.learner.init(config.seed)))
    return Weights(version, jax.tree.map(lambda leaf: np.asarray(leaf * scale), params))


def _rollout(config, first_car=0):
    agent = make_agent(config, SPEC)
    return make_rollout(config, agent.policy, first_car)


@pytest.mark.parametrize(("share", "cars"), [(0.0, 0), (0.2, 0), (0.25, 2), (0.6, 4), (1.0, 8)])
def test_whole_groups_meet_earlier_versions(share, cars):
    assert past_cars(_config(share=share)) == cars
    assert past_cars(make_config(overrides=["training.past_opponents_share=1.0"])) == 0


def test_a_learner_sees_its_own_cars_alone_and_hidden_ones_drive_with_earlier_versions():
    config = _config()
    rollout = _rollout(config)
    assert isinstance(rollout, SelfPlayRollout)
    trajectory, episodes = rollout.collect(_weights(config, 3))
    assert trajectory.observation.shape == (32, 8, SPEC.observation_size)
    assert (trajectory.weights_version == 3).all()
    assert episodes.env_steps == 32 * 8
    environment = rollout.state.environment
    assert environment.race.car_id.tolist() == list(range(12))  # four cars together, four apart
    assert len(environment.hidden.reward) == 4
    # Every group shares a track, also those with a hidden car.
    track = np.asarray(environment.race.track).reshape(-1, 2)
    assert (track[:, 0] == track[:, 1]).all()


def test_opponents_are_drawn_from_the_newest_earlier_versions():
    config = _config()
    rollout = _rollout(config)
    first = jax.tree.leaves(rollout.state.environment.past)
    seen = set()
    for block in range(12):  # a version is remembered every second block of 256 env steps
        rollout.prepare(_weights(config, block, scale=2.0 + block))
        past = jax.tree.leaves(rollout.state.environment.past)
        biggest = max(range(len(past)), key=lambda index: np.abs(first[index]).max())
        ratio = np.abs(past[biggest]).max() / np.abs(first[biggest]).max()
        seen.add((block, round(float(ratio))))
    kept = {0: {1}, 1: {1, 3}, 5: {5, 7}, 11: {11, 13}}
    for block, ratios in kept.items():
        assert {ratio for at, ratio in seen if at == block} <= ratios
    assert len({ratio for _, ratio in seen}) > 3


@pytest.mark.slow
@pytest.mark.long
def test_a_checkpoint_keeps_the_races_and_the_present_opponent():
    config = _config()
    rollout = _rollout(config)
    rollout.collect(_weights(config, 0))
    for version in range(3):
        rollout.prepare(_weights(config, version, scale=0.5))
    saved = rollout.saved()
    continued = _rollout(config)
    continued.restore(saved)
    for leaf, other in zip(
        jax.tree.leaves(rollout.state), jax.tree.leaves(continued.state), strict=True
    ):
        np.testing.assert_array_equal(leaf, other)


def test_without_earlier_versions_or_with_a_single_car_the_rollout_is_the_usual_one():
    assert type(_rollout(_config(share=0.0))) is Rollout
    assert type(_rollout(make_config("ppo", mode="test"))) is Rollout
