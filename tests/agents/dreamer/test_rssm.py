"""One step of the recurrent state-space model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcar.agents.dreamer.rssm import RssmState, initial_state, most_likely_latent, sample_latent
from rlcar.agents.dreamer.world_model import observe_step
from tests.agents.dreamer.tiny import quick_jit


@pytest.fixture(scope="module")
def config(tiny_config):
    return tiny_config.dreamer.world_model


@pytest.fixture(scope="module")
def step(model, params):
    return quick_jit(lambda state, action, first: observe_step(model, params, state, action, first))


def _random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _state(config, number=3, seed=0):
    latent_size = config.latent_groups * config.latent_classes
    return RssmState(
        _random(number, config.recurrent_units, seed=seed), _random(number, latent_size, seed=seed)
    )


def test_the_first_step_of_an_episode_forgets_belief_and_action(config, step):
    first = jnp.array([False, True, False])
    one = step(_state(config, seed=0), _random(3, 2, seed=0), first)
    other = step(_state(config, seed=1), _random(3, 2, seed=1), first)
    blank = step(initial_state(config, 3), jnp.zeros((3, 2)), jnp.zeros(3, bool))
    np.testing.assert_array_equal(one[1], other[1])
    np.testing.assert_array_equal(one[1], blank[1])
    assert (one[0] != other[0]).any()
    assert (one[2] != other[2]).any()


def test_an_action_beyond_the_limits_counts_as_the_limit(config, step):
    never = jnp.zeros(3, bool)
    beyond = step(_state(config), jnp.tile(jnp.array([[7.0, -1.5]]), (3, 1)), never)
    limit = step(_state(config), jnp.tile(jnp.array([[1.0, -1.0]]), (3, 1)), never)
    inside = step(_state(config), jnp.tile(jnp.array([[0.9, -1.0]]), (3, 1)), never)
    np.testing.assert_array_equal(beyond, limit)
    assert (inside != limit).any()


def test_prior_and_posterior_are_probabilities_with_a_floor(config, model, params):
    recurrent = 100.0 * _state(config).recurrent
    embedding = 100.0 * _random(3, config.units)
    for log_probabilities in (
        model.prior(params, recurrent),
        model.posterior(params, recurrent, embedding),
    ):
        probabilities = jnp.exp(log_probabilities)
        assert probabilities.shape == (3, config.latent_groups, config.latent_classes)
        np.testing.assert_allclose(jnp.sum(probabilities, -1), 1.0, rtol=1e-5)
        assert probabilities.min() >= 0.999 * config.unimix / config.latent_classes


def test_a_latent_is_one_class_of_each_group_side_by_side():
    log_probabilities = jax.nn.log_softmax(_random(5, 4, 3))
    uniform = jax.random.uniform(jax.random.PRNGKey(0), (5, 4))
    for latent in (
        sample_latent(log_probabilities, uniform),
        most_likely_latent(log_probabilities),
    ):
        groups = latent.reshape(5, 4, 3)
        np.testing.assert_allclose(jnp.sum(groups, -1), 1.0, atol=1e-6)
        np.testing.assert_allclose(jnp.max(groups, -1), 1.0, atol=1e-6)
    chosen = jnp.argmax(most_likely_latent(log_probabilities).reshape(5, 4, 3), -1)
    np.testing.assert_array_equal(chosen, jnp.argmax(log_probabilities, -1))
