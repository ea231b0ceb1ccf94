"""What SAC and TD3 share, and each on a task with a known answer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcar.agents.q_learning.networks import make_actor, make_critics
from rlcar.agents.q_learning.transitions import transitions_of
from rlcar.agents.sac import learner as sac_learner
from rlcar.agents.sac import policy as sac_policy
from rlcar.agents.sac.settings import SacConfig
from rlcar.agents.td3 import learner as td3_learner
from rlcar.agents.td3 import policy as td3_policy
from rlcar.agents.td3.settings import Td3Config
from rlcar.types import Batch, TimeStep
from tests.agents.dreamer.tiny import SPEC, random_batch


def test_a_window_is_cut_into_its_steps():
    batch = random_batch(3, 5)
    transitions = transitions_of(batch)
    assert transitions.observation.shape == (12, 6)
    np.testing.assert_array_equal(transitions.observation[5], batch.observation[1, 1])
    np.testing.assert_array_equal(transitions.action[5], batch.previous_action[1, 2])
    np.testing.assert_array_equal(transitions.reward[5], batch.reward[1, 2])
    np.testing.assert_array_equal(transitions.next_observation[5], batch.observation[1, 2])
    counted = transitions.weight.reshape(3, 4) > 0
    np.testing.assert_array_equal(counted, ~batch.is_first[:, 1:])
    assert transitions.weight.sum() == pytest.approx(1.0)


def test_only_a_true_end_ends_the_future():
    batch = random_batch(8, 12)
    transitions = transitions_of(batch)
    ended = np.asarray(transitions.continues).reshape(8, 11) == 0.0
    np.testing.assert_array_equal(ended, batch.is_terminal[:, 1:])
    assert (batch.is_last & ~batch.is_terminal).any()


def test_returns_of_several_steps_stop_where_the_episode_or_the_window_ends():
    batch, discount, steps = random_batch(8, 12), 0.9, 4
    transitions = transitions_of(batch, discount, steps)
    counted = 0
    for window in range(8):
        for start in range(11):
            if batch.is_first[window, start + 1]:
                continue
            last = start + 1
            while not batch.is_terminal[window, last] and last < min(11, start + steps):
                if batch.is_first[window, last + 1]:
                    break
                last += 1
            rewards = batch.reward[window, start + 1 : last + 1]
            expected = sum(discount**i * reward for i, reward in enumerate(rewards))
            row = window * 11 + start
            assert transitions.reward[row] == pytest.approx(expected, rel=1e-5, abs=1e-6)
            np.testing.assert_array_equal(
                transitions.next_observation[row], batch.observation[window, last]
            )
            future = 0.0 if batch.is_terminal[window, last] else discount ** (len(rewards) - 1)
            assert transitions.continues[row] == pytest.approx(future, rel=1e-6)
            counted += len(rewards) == steps
    assert counted > 10  # otherwise nothing was shown


def test_two_critics_differ_and_see_the_same():
    critics = make_critics(16, SPEC)
    params = critics.init(jax.random.PRNGKey(0))
    values = critics.apply(params, jnp.ones((5, 6)), jnp.ones((5, 2)))
    assert values.shape == (2, 5)
    assert jnp.abs(values[0] - values[1]).max() > 1e-3
    np.testing.assert_allclose(values, np.tile(values[:, :1], (1, 5)), rtol=1e-5)


def test_the_squashed_normals_density_integrates_to_one():
    spec = SPEC._replace(action_size=1)
    actor = make_actor(8, spec, 2)
    params = actor.init(jax.random.PRNGKey(1))
    observation = jnp.tile(jnp.linspace(0, 1, 6), (200_000, 1))
    action, log_prob = sac_policy.sample(actor, params, observation, jax.random.PRNGKey(2))
    assert jnp.abs(action).max() <= 1.0
    # E[1 / density] over where it is not small is the length of that interval.
    inside = jnp.abs(action[:, 0]) < 0.8
    assert jnp.mean(jnp.exp(-log_prob) * inside) == pytest.approx(1.6, rel=0.02)


def _one_step_task(updates=8, size=64):
    """Reward -(a - (0.5, -0.3))^2, then it is over: the best action is known."""
    random = np.random.default_rng(0)
    observation = random.random((updates, size, 2, 6)).astype(np.float32)
    action = random.uniform(-1, 1, (updates, size, 2, 2)).astype(np.float32)
    reward = -np.square(action - np.array([0.5, -0.3], np.float32)).sum(axis=-1)
    reward[..., 0] = 0.0
    is_first = np.zeros((updates, size, 2), bool)
    is_last = np.zeros_like(is_first)
    is_last[..., 1] = True
    return Batch(observation, action, reward, is_first, is_last, is_last)


@pytest.mark.parametrize(
    ("learner", "policy", "config"),
    [
        (sac_learner, sac_policy, SacConfig(hidden_units=32, learning_rate=3e-3)),
        (td3_learner, td3_policy, Td3Config(hidden_units=32, learning_rate=3e-3)),
    ],
    ids=["sac", "td3"],
)
def test_the_best_action_of_a_one_step_task_is_found(learner, policy, config):
    learn = learner.make_learner(config, SPEC)
    state, batches = learn.init(0), _one_step_task()
    for _ in range(100):
        state, metrics = learn.update(state, batches)
    no = np.zeros(50, bool)
    step = TimeStep(np.random.default_rng(1).random((50, 6), np.float32), no, no, no, no)
    params = learn.policy_params(state)
    _, action = policy.make_policy(config, SPEC).act(
        params, (), step, jax.random.PRNGKey(0), explore=False
    )
    np.testing.assert_allclose(action.mean(axis=0), [0.5, -0.3], atol=0.1)
    assert metrics["critic/loss"] < 0.05


def test_sacs_temperature_brings_the_entropy_to_its_target():
    config = SacConfig(hidden_units=32, learning_rate=3e-3, target_entropy=-1.0)
    learn = sac_learner.make_learner(config, SPEC)
    state, batches = learn.init(0), _one_step_task()
    for _ in range(200):
        state, metrics = learn.update(state, batches)
    assert metrics["actor/entropy"] == pytest.approx(-1.0, abs=0.3)


def test_td3_moves_its_actor_at_every_other_update_only():
    learn = td3_learner.make_learner(Td3Config(hidden_units=16), SPEC)
    batches = _one_step_task(updates=1)
    start = jax.device_get(learn.init(0))
    one, _ = learn.update(learn.init(0), batches)
    one = jax.device_get(one)
    two, _ = learn.update(jax.tree.map(jnp.asarray, one), batches)
    jax.tree.map(np.testing.assert_array_equal, start.actor, one.actor)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), one.actor, two.actor)
    assert max(jax.tree.leaves(moved)) > 0
