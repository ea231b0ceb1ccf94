"""What the world model may see, and its loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcar.agents.dreamer.model_loss import world_model_loss
from rlcar.agents.dreamer.rssm import RssmState, initial_state, sample_latent
from rlcar.agents.dreamer.world_model import features, observe, observe_step
from tests.agents.dreamer.tiny import (
    assert_trees_close,
    largest,
    one_episode,
    quick_jit,
    random_batch,
)

LENGTH, NOW = 6, 3
DISCOUNT = 0.9
KEY = jax.random.PRNGKey(1)


@pytest.fixture(scope="module")
def config(tiny_config):
    return tiny_config.dreamer.world_model.model_copy(
        update={"free_nats": 0.0, "open_loop_scale": 0.0, "open_loop_dynamics_scale": 0.0}
    )


@pytest.fixture(scope="module")
def filtered(config, model, params):
    return quick_jit(lambda batch: observe(model, config, params, batch, KEY))


@pytest.fixture(scope="module")
def loss_and_gradient(config, model):
    def loss(params, batch):
        total, (_, metrics) = world_model_loss(model, config, params, batch, DISCOUNT, KEY)
        return total, metrics

    return quick_jit(jax.value_and_grad(loss, has_aux=True))


def _with_other_observations(batch, where):
    observation = batch.observation.copy()
    observation[:, where] += 1.0
    return batch._replace(observation=observation)


def test_posterior_at_t_ignores_observations_after_t(filtered):
    batch = one_episode(2, LENGTH)
    one = filtered(batch)
    other = filtered(_with_other_observations(batch, slice(NOW + 1, None)))
    for before, after in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(before[: NOW + 1], after[: NOW + 1])
    assert (one.posterior[NOW + 1] != other.posterior[NOW + 1]).any()


def test_a_filter_takes_the_steps_that_driving_takes(config, model, params, filtered):
    batch = random_batch(2, LENGTH)
    batch.is_first[1, NOW] = True
    observed = filtered(batch)
    uniform = jax.random.uniform(KEY, (LENGTH, 2, config.latent_groups))
    state = initial_state(config, 2)
    for t in range(LENGTH):
        action, is_first = batch.previous_action[:, t], jnp.asarray(batch.is_first[:, t])
        recurrent = observe_step(model, params, state, action, is_first)
        embedding = model.encode(params, batch.observation[:, t])
        posterior = model.posterior(params, recurrent, embedding)
        state = RssmState(recurrent, sample_latent(posterior, uniform[t]))
        expected = state, posterior, model.prior(params, recurrent)
        found = jax.tree.map(lambda x, t=t: x[t], tuple(observed))
        assert_trees_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "seen"), [("posterior", NOW + 1), ("prior", NOW)])
def test_gradients_reach_every_observation_seen_and_no_later_one(config, model, params, kind, seen):
    batch = one_episode(2, LENGTH)
    weight = np.random.default_rng(0).normal(size=(2, config.latent_groups, config.latent_classes))

    def probe(observation):
        changed = batch._replace(observation=observation)
        observed = observe(model, config, params, changed, KEY)
        return jnp.sum(weight * getattr(observed, kind)[NOW])

    gradient = np.abs(quick_jit(jax.grad(probe))(batch.observation)).max(axis=(0, 2))
    assert (gradient[:seen] > 0).all()
    assert (gradient[seen:] == 0).all()


def test_nothing_before_the_first_step_of_an_episode_matters_after_it(filtered):
    batch = one_episode(2, LENGTH)
    is_first = batch.is_first.copy()
    is_first[:, NOW] = True
    batch = batch._replace(is_first=is_first)
    action = batch.previous_action.copy()
    action[:, : NOW + 1] *= -1.0  # the action that led to a reset is no cause of it either
    other = _with_other_observations(batch, slice(0, NOW))._replace(previous_action=action)
    one, other = filtered(batch), filtered(other)
    for before, after in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(before[NOW:], after[NOW:])
        assert (before[:NOW] != after[:NOW]).any()


def test_the_rows_of_a_batch_do_not_mix(filtered):
    batch = one_episode(2, LENGTH)
    observation = batch.observation.copy()
    observation[1] += 1.0
    one, other = filtered(batch), filtered(batch._replace(observation=observation))
    np.testing.assert_array_equal(one.posterior[:, 0], other.posterior[:, 0])
    assert (one.posterior[:, 1] != other.posterior[:, 1]).any()


def test_an_untrained_reward_head_loses_the_log_of_its_bins(loss_and_gradient, params):
    (_, metrics), _ = loss_and_gradient(params, random_batch(2, LENGTH))
    assert metrics["model/reward_loss"] == pytest.approx(np.log(255), rel=1e-5)


def test_an_untrained_reward_head_predicts_exactly_zero(config, model, params, filtered):
    batch = random_batch(2, LENGTH)
    feature = features(filtered(batch).state).reshape(2 * LENGTH, -1)
    assert largest(model.reward(params, feature)) == 0.0


def test_the_loss_is_the_sum_of_its_five_parts(loss_and_gradient, params):
    (total, metrics), _ = loss_and_gradient(params, random_batch(2, LENGTH))
    names = ("reconstruction", "reward", "continue", "dynamics", "representation")
    assert total == pytest.approx(
        sum(float(metrics[f"model/{name}_loss"]) for name in names), rel=1e-5
    )


def test_a_terminal_step_teaches_that_nothing_goes_on_and_others_the_discount(
    loss_and_gradient, model, params, filtered
):
    batch = random_batch(2, LENGTH)
    is_terminal = np.zeros((2, LENGTH), bool)
    is_terminal[0, -1] = True
    batch = batch._replace(is_terminal=is_terminal)
    (_, metrics), _ = loss_and_gradient(params, batch)
    logit = model.continues(params, features(filtered(batch).state).reshape(2 * LENGTH, -1))
    chance = np.asarray(jax.nn.sigmoid(logit)).reshape(LENGTH, 2)
    target = np.where(is_terminal.T, 0.0, DISCOUNT)
    expected = -np.mean(target * np.log(chance) + (1 - target) * np.log(1 - chance))
    assert metrics["model/continue_loss"] == pytest.approx(expected, rel=1e-4)


def test_each_side_of_the_divergence_is_pulled_by_its_own_loss_only(config, model, params):
    # One step only: later priors depend on the encoder through the latents before them.
    batch = one_episode(2, 1)

    def part(name):
        def loss(params):
            _, (_, metrics) = world_model_loss(model, config, params, batch, DISCOUNT, KEY)
            return metrics[f"model/{name}_loss"]

        gradient = quick_jit(jax.grad(loss))(params)
        prior = {name: value for name, value in gradient.items() if "prior" in name}
        posterior = {name: value for name, value in gradient.items() if "posterior" in name}
        return largest(prior), largest(posterior)

    prior, posterior = part("dynamics")
    assert prior > 0
    assert posterior == 0
    prior, posterior = part("representation")
    assert prior == 0
    assert posterior > 0


def test_below_the_free_nats_the_divergence_pulls_at_nothing(tiny_config, model, params):
    config = tiny_config.dreamer.world_model.model_copy(update={"free_nats": 1e3})

    def divergence(params):
        batch = one_episode(2, 2)
        _, (_, metrics) = world_model_loss(model, config, params, batch, DISCOUNT, KEY)
        return metrics["model/dynamics_loss"] + metrics["model/representation_loss"]

    loss, gradient = quick_jit(jax.value_and_grad(divergence))(params)
    expected = 1e3 * (config.dynamics_scale + config.representation_scale)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert largest(gradient) == 0


def test_gradients_stay_finite_over_long_windows_of_extreme_numbers(loss_and_gradient, params):
    batch = random_batch(1, 512)
    sign = np.sign(batch.observation - 0.5)
    batch = batch._replace(
        observation=(1e6 * sign).astype(np.float32), reward=1e6 * np.sign(batch.reward)
    )
    (total, _), gradient = loss_and_gradient(params, batch)
    assert np.isfinite(total)
    assert np.isfinite(largest(gradient))
