"""The plain agent is the documented one: its sizes, its exploration, its two losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcar.agents.documented import agent as documented
from rlcar.agents.documented.agent import make_learner, make_networks, make_policy
from rlcar.types import TimeStep
from tests.agents.dreamer.tiny import SPEC, largest, quick_jit, quick_learner, random_batch

MODEL_PARTS = {"encoder", "dynamics", "reward", "decoder"}


@pytest.fixture(scope="module")
def config(tiny_config):
    return tiny_config.documented


@pytest.fixture(scope="module")
def learner(config):
    return quick_learner(make_learner(config, SPEC))


@pytest.fixture(scope="module")
def networks(config):
    return make_networks(config, SPEC)


@pytest.fixture(scope="module")
def params(networks):
    return quick_jit(networks.init)(jax.random.PRNGKey(0))


@pytest.fixture(scope="module")
def batches():
    return random_batch(2, 8, 16)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("encoder", [6, 64, 32]),
        ("dynamics", [34, 64, 32]),
        ("reward", [32, 32, 1]),
        ("decoder", [32, 64, 6]),
        ("actor", [32, 64, 32, 2]),
    ],
)
def test_each_network_has_the_documented_sizes(params, name, sizes):
    layers = [params[key]["w"].shape for key in sorted(params) if key.split("/")[0] == name]
    assert layers == list(zip(sizes[:-1], sizes[1:], strict=True))


def test_there_are_five_networks(params):
    assert {name.split("/")[0] for name in params} == MODEL_PARTS | {"actor"}


def test_the_exploration_probability_decays_by_a_thousandth_with_each_train_step(learner, batches):
    state = learner.init(0)
    assert state.exploration_probability == 1.0
    state, _ = learner.update(state, batches)
    assert state.exploration_probability == pytest.approx(0.999**2, rel=1e-6)
    assert state.train_steps == 2


def test_the_exploration_probability_stops_at_a_tenth(learner, batches):
    state = learner.init(0)._replace(exploration_probability=jnp.asarray(0.1001))
    state, _ = learner.update(state, batches)
    assert state.exploration_probability == pytest.approx(0.1, rel=1e-6)


def test_the_actors_loss_gives_no_gradient_to_the_model(networks, config, params):
    latent = jnp.asarray(np.random.default_rng(0).normal(size=(4, 32)), jnp.float32)

    def imagined_return(params, latent):
        return documented._imagined_return(networks, config, params, latent)

    gradient, into_latent = quick_jit(jax.grad(imagined_return, argnums=(0, 1)))(params, latent)
    for name, module in gradient.items():
        assert (largest(module) > 0) == (name.split("/")[0] == "actor")
    assert largest(into_latent) == 0


def test_the_actor_climbs_the_return_it_imagines(networks, config, params):
    latent = jnp.asarray(np.random.default_rng(0).normal(size=(16, 32)), jnp.float32)
    value_and_gradient = quick_jit(
        jax.value_and_grad(
            lambda params: documented._imagined_return(networks, config, params, latent)
        )
    )
    before, gradient = value_and_gradient(params)
    after, _ = value_and_gradient(jax.tree.map(lambda x, g: x + 1e-2 * g, params, gradient))
    assert after > before


def test_the_models_losses_fall_on_a_batch_seen_again_and_again(learner):
    batch = random_batch(1, 8, 16)
    batches = jax.tree.map(lambda x: np.concatenate([x, x]), batch)
    state, first = learner.update(learner.init(0), batches)
    first = jax.device_get(first)
    for _ in range(150):
        state, metrics = learner.update(state, batches)
    for name in ("reconstruction", "dynamics", "reward"):
        assert metrics[f"model/{name}_loss"] < 0.6 * first[f"model/{name}_loss"], name


def test_what_follows_a_reset_teaches_no_dynamics(networks, params):
    batch = random_batch(2, 4)
    is_first = np.zeros((2, 4), bool)
    is_first[:, 2] = True
    batch = batch._replace(is_first=is_first)
    action, reward = batch.previous_action.copy(), batch.reward.copy()
    action[:, 2] *= -1.0
    reward[:, 2] += 5.0
    other = batch._replace(previous_action=action, reward=reward)
    loss = quick_jit(lambda batch: documented._model_loss(networks, params, batch)[0])
    assert loss(batch) == loss(other)
    never = np.zeros_like(is_first)
    assert loss(batch._replace(is_first=never)) != loss(other._replace(is_first=never))


def test_two_runs_of_one_seed_are_equal_bit_for_bit(learner, batches):
    one, other = (jax.device_get(learner.update(learner.init(1), batches)) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_extreme_observations_and_rewards_leave_everything_finite(learner, batches):
    extreme = batches._replace(
        observation=(1e6 * np.sign(batches.observation - 0.5)).astype(np.float32),
        reward=1e6 * np.sign(batches.reward),
    )
    state = learner.init(0)
    for _ in range(5):
        state, metrics = learner.update(state, extreme)
    assert np.isfinite(largest(state))
    assert np.isfinite(largest(metrics))


class TestActing:
    """A drive with the parameters that `policy_params` hands out."""

    cars = 400
    time_step = TimeStep(
        np.random.default_rng(0).uniform(size=(cars, 6)).astype(np.float32),
        np.zeros(cars, np.float32),
        *np.zeros((3, cars), bool),
    )

    def _act(self, config, learner, probability, explore, key=0):
        policy = make_policy(config, SPEC)
        params = learner.policy_params(learner.init(0))
        params = {**params, "exploration_probability": jnp.asarray(probability)}
        carry = policy.initial(self.cars)
        _, action = policy.act(params, carry, self.time_step, jax.random.PRNGKey(key), explore)
        return np.asarray(action)

    def test_policy_params_hold_encoder_actor_and_the_exploration_probability(self, learner):
        params = learner.policy_params(learner.init(0))
        assert set(params) == {"networks", "exploration_probability"}
        assert {name.split("/")[0] for name in params["networks"]} == {"encoder", "actor"}

    def test_without_exploration_the_key_does_not_matter(self, config, learner):
        one, other = (self._act(config, learner, 1.0, False, key) for key in (0, 1))
        np.testing.assert_array_equal(one, other)

    def test_as_many_cars_explore_as_the_probability_says(self, config, learner):
        calm = self._act(config, learner, 0.0, True)
        np.testing.assert_array_equal(calm, self._act(config, learner, 1.0, False))
        moved = (self._act(config, learner, 0.5, True) != calm).all(axis=1)
        assert moved.mean() == pytest.approx(0.5, abs=0.1)

    def test_the_noise_has_the_documented_deviation(self, config, learner):
        noise = self._act(config, learner, 1.0, True) - self._act(config, learner, 0.0, True)
        assert noise.std() == pytest.approx(0.2, rel=0.1)
