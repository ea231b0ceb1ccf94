"""PPO's parts against sums written out by hand, and the whole on a task it must solve."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcar.agents import make_agent
from rlcar.agents.ppo.networks import Output, make_distribution, make_networks
from rlcar.agents.ppo.sequences import advantages, discounted_returns
from rlcar.agents.ppo.settings import PpoConfig
from rlcar.config import make_config
from rlcar.evaluation.environment import make_rollout
from rlcar.sim import SPEC as RACE
from rlcar.training.loop import train
from rlcar.types import Batch, Weights
from tests.agents.dreamer.tiny import DISCRETE, SPEC

CONFIG = PpoConfig(discount=0.9, lambda_=0.8)


def _row(reward, is_last, is_terminal):
    """One car's block: the flags of each step, its successor being the next episode's first."""
    is_last, is_terminal = np.array([is_last], bool), np.array([is_terminal], bool)
    is_first = np.roll(is_last, 1, axis=1)
    is_first[0, 0] = False
    shape = is_last.shape
    return Batch(
        np.zeros((*shape, 6), np.float32),
        np.zeros((*shape, 2), np.float32),
        np.array([reward], np.float32),
        is_first,
        is_last,
        is_terminal,
    )


def test_advantages_within_an_episode():
    block = _row([0, 1, 2, 4], [0, 0, 0, 0], [0, 0, 0, 0])
    value = jnp.array([[0.5, 1.0, 2.0, 3.0]])
    errors = [1 + 0.9 * 1 - 0.5, 2 + 0.9 * 2 - 1, 4 + 0.9 * 3 - 2]
    third = errors[2]
    second = errors[1] + 0.72 * third
    expected = [errors[0] + 0.72 * second, second, third]
    found = advantages(CONFIG, block, block.reward, value)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_crash_ends_all_hope_and_a_time_out_keeps_the_value():
    value = jnp.array([[0.5, 1.0, 2.0, 3.0]])
    crash = _row([0, 1, 0, 4], [0, 1, 0, 0], [0, 1, 0, 0])
    time_out = _row([0, 1, 0, 4], [0, 1, 0, 0], [0, 0, 0, 0])
    assert advantages(CONFIG, crash, crash.reward, value)[0, 0] == pytest.approx(1 - 0.5)
    found = advantages(CONFIG, time_out, time_out.reward, value)[0, 0]
    assert found == pytest.approx(1 + 0.9 * 1 - 0.5)


def test_discounted_returns_start_anew_with_an_episode():
    block = _row([1, 2, 0, 4], [0, 1, 0, 0], [0, 1, 0, 0])
    found = discounted_returns(block, 0.5)
    np.testing.assert_allclose(found, [1, 2.5, 0, 4])


def test_actions_are_drawn_with_the_deviation_that_the_settings_start_with():
    networks = make_networks(PpoConfig(initial_log_deviation=-1.0), SPEC)
    params = networks.init(jax.random.PRNGKey(0))
    cars = 4000
    observation = jnp.zeros((cars, SPEC.observation_size))
    _, output = networks.step(
        params, networks.initial_memory(cars), observation, jnp.zeros(cars, bool)
    )
    drawn = make_distribution(SPEC).sample(output, jax.random.PRNGKey(1))
    np.testing.assert_allclose(np.std(drawn - output.head, axis=0), np.exp(-1.0), rtol=0.05)


def test_the_normals_log_prob_and_entropy_are_those_of_scipy():
    from scipy import stats

    output = Output(jnp.array([[0.3, -0.2]]), jnp.log(jnp.array([0.5, 2.0])), jnp.zeros(1))
    action = np.array([[0.1, 0.9]], np.float32)
    normal = stats.norm([0.3, -0.2], [0.5, 2.0])
    distribution = make_distribution(SPEC)
    expected = normal.logpdf(action).sum()
    assert distribution.log_prob(output, action)[0] == pytest.approx(expected, rel=1e-5)
    assert distribution.entropy(output)[0] == pytest.approx(normal.entropy().sum(), rel=1e-5)


def test_one_hot_actions_come_as_often_as_their_probability():
    distribution = make_distribution(DISCRETE)
    logits = jnp.log(jnp.array([0.2, 0.3, 0.5]))
    output = Output(jnp.tile(logits, (20_000, 1)), jnp.zeros(3), jnp.zeros(20_000))
    drawn = distribution.sample(output, jax.random.PRNGKey(0))
    np.testing.assert_allclose(drawn.mean(axis=0), [0.2, 0.3, 0.5], atol=0.02)
    np.testing.assert_allclose(distribution.log_prob(output, drawn)[0], logits[drawn[0] == 1][0])


def test_memory_is_cleared_by_the_first_step_and_kept_by_the_others():
    networks = make_networks(PpoConfig(recurrent_units=8), SPEC)
    params = networks.init(jax.random.PRNGKey(0))
    observation = jnp.ones((2, 6))
    memory = jnp.ones((2, 8))
    memory, output = networks.step(params, memory, observation, jnp.array([True, False]))
    fresh, _ = networks.step(params, jnp.zeros((2, 8)), observation, jnp.array([False, False]))
    np.testing.assert_allclose(memory[0], fresh[0])
    assert jnp.abs(memory[1] - fresh[1]).max() > 1e-3
    assert jnp.abs(output.head[0] - output.head[1]).max() > 0


@pytest.mark.parametrize("recurrent_units", [0, 8])
def test_the_first_minibatch_meets_the_policy_that_drove(recurrent_units):
    """With one epoch of one minibatch nothing has moved yet: no divergence, nothing clipped.

    The second block begins within episodes, with what the cars remembered of the first.
    """
    agent, state, blocks = _driven(recurrent_units)
    _, metrics = agent.learner.update(state, blocks[1])
    assert metrics["actor/kl"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["actor/clipped_share"] == 0.0


def test_what_another_policy_drove_is_weighed_as_that():
    agent, state, blocks = _driven(0)
    moved = state._replace(params=jax.tree.map(lambda x: x + 0.3, state.params))
    _, metrics = agent.learner.update(moved, blocks[1])
    assert metrics["actor/kl"] > 0.1
    assert metrics["actor/clipped_share"] > 0.5


def _driven(recurrent_units):
    """An agent, a copy of its state, which an update consumes, and the blocks that it drove."""
    agent, state, blocks = _driven_once(recurrent_units)
    return agent, jax.tree.map(jnp.copy, state), blocks


@functools.cache
def _driven_once(recurrent_units):
    """An agent, its state, and two blocks that it drove one after the other.

    Its weights are far from those at the start, whose policy is the same whatever it remembers.
    """
    overrides = [
        *("training.cars=4", "training.block_length=16", "ppo.epochs=1"),
        *("ppo.minibatch_size=4096", f"ppo.recurrent_units={recurrent_units}"),
    ]
    config = make_config("ppo", "test", overrides=overrides)
    agent = make_agent(config, RACE)
    rollout = make_rollout(config, agent.policy)
    state = agent.learner.init(0)
    leaves, structure = jax.tree.flatten(state.params)
    keys = jax.random.split(jax.random.PRNGKey(0), len(leaves))
    noisy = [x + 0.3 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    state = state._replace(params=jax.tree.unflatten(structure, noisy))
    params = agent.learner.policy_params(state)
    blocks = []
    for _ in range(2):
        trajectory, _ = rollout.collect(Weights(0, params))
        fields = (name for name in Batch._fields if getattr(trajectory, name) is not None)
        by_car = {name: np.swapaxes(getattr(trajectory, name), 0, 1)[None] for name in fields}
        blocks.append(Batch(**by_car))
    assert not blocks[1].is_first[0, :, 0].all()
    if recurrent_units:
        assert np.abs(blocks[1].carry[0, :, 0, :-1]).max() > 1e-3
    return agent, state, blocks


@pytest.mark.slow
def test_it_laps_unseen_classic_tracks(tmp_path):
    overrides = ["training.env_steps=40960"]
    outcome = train(make_config("ppo", overrides=overrides), tmp_path / "run")
    assert outcome.summary["env_steps_to_90"] is not None
