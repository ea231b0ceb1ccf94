"""Each algorithm for recorded data learns a small data set whose best policy is known."""

import jax
import numpy as np
import pytest

from rlcar.agents import make_agent
from rlcar.config import make_config
from rlcar.types import Batch, Spec, TimeStep

CONTINUOUS = Spec(observation_size=1, action_size=1)
CHOICES = Spec(observation_size=1, action_size=2, is_discrete=True)
UPDATES, BATCH = 400, 64
GOOD = 0.6  # the action that is rewarded in states above 0; in states below 0 it is -0.6


def _batches(spec):
    """Episodes of one step. Two thirds of the recorded actions are the bad ones."""
    rng = np.random.default_rng(0)
    shape = (UPDATES, BATCH, 2)
    observation = np.repeat(rng.choice([-1.0, 1.0], (UPDATES, BATCH, 1, 1)), 2, axis=2)
    side = observation[..., 1, 0]
    is_good = rng.random((UPDATES, BATCH)) < 1 / 3
    action = np.zeros((*shape, spec.action_size), np.float32)
    if spec.is_discrete:
        choice = (side > 0) == is_good
        action[..., 1, :] = np.eye(2)[choice.astype(int)]
    else:
        action[..., 1, 0] = GOOD * side * np.where(is_good, 1.0, -1.0)
    at_end = np.zeros(shape, bool)
    at_end[..., 1] = True
    return Batch(
        observation=observation.astype(np.float32),
        previous_action=action,
        reward=np.where(at_end, 10.0 * is_good[..., None], 0.0).astype(np.float32),
        is_first=~at_end,
        is_last=at_end,
        is_terminal=at_end,
    )


def _actions(algorithm, spec, *settings):
    overrides = [f"{algorithm}.{setting}" for setting in settings]
    agent = make_agent(make_config(algorithm, mode="test", overrides=overrides), spec)
    state, metrics = agent.learner.update(agent.learner.init(0), _batches(spec))
    assert np.isfinite(float(metrics["actor/loss" if "actor/loss" in metrics else "critic/loss"]))
    nothing = np.zeros(2, bool)
    step = TimeStep(np.array([[-1.0], [1.0]], np.float32), nothing, nothing, nothing, nothing)
    params = agent.learner.policy_params(state)
    return np.asarray(agent.policy.act(params, (), step, jax.random.PRNGKey(0), False)[1])


def test_cloning_takes_the_mean_of_the_recorded_actions():
    mean = GOOD * (1 / 3 - 2 / 3)
    action = _actions("bc", CONTINUOUS, "learning_rate=0.01")
    np.testing.assert_allclose(action[:, 0], [-mean, mean], atol=0.1)


@pytest.mark.parametrize("algorithm", ["cql", "iql"])
def test_a_critic_finds_the_better_of_the_recorded_actions(algorithm):
    action = _actions(algorithm, CONTINUOUS, "learning_rate=0.01", "reward_scale=1.0")
    np.testing.assert_allclose(action[:, 0], [-GOOD, GOOD], atol=0.25)


def test_cloning_chooses_the_more_frequent_of_discrete_actions():
    action = _actions("bc", CHOICES, "learning_rate=0.01")
    np.testing.assert_array_equal(action, np.eye(2)[::-1])


@pytest.mark.parametrize(
    ("algorithm", "setting"), [("cql", "conservative_scale=0.1"), ("iql", "reward_scale=1.0")]
)
def test_a_critic_finds_the_better_of_discrete_actions(algorithm, setting):
    action = _actions(algorithm, CHOICES, "learning_rate=0.01", setting)
    np.testing.assert_array_equal(action, np.eye(2))
