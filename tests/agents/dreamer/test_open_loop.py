"""The losses at dreamt steps: who learns from them, and which steps count."""

import jax
import numpy as np
import pytest

from rlcar.agents.dreamer.distributions import categorical_kl
from rlcar.agents.dreamer.model_loss import open_loop_losses
from rlcar.agents.dreamer.world_model import observe
from tests.agents.dreamer.tiny import largest, one_episode, quick_jit

KEY = jax.random.PRNGKey(1)
DISCOUNT = 0.9


@pytest.fixture(scope="module")
def config(tiny_config):
    changes = {"open_loop_scale": 1.0, "open_loop_length": 4}
    return tiny_config.dreamer.world_model.model_copy(update=changes)


def _loss(config, model, name):
    config = config.model_copy(update={"open_loop_dynamics_scale": 1.0})

    def loss(params, batch):
        observed = observe(model, config, params, batch, KEY)
        return open_loop_losses(model, config, params, observed, batch, DISCOUNT, KEY)[name]

    return loss


def _fitted(loss, params, batches, rate):
    """The parameters after one step down the gradient for each batch."""

    def step(params, batch):
        gradient = jax.grad(loss)(params, batch)
        return jax.tree.map(lambda p, g: p - rate * g, params, gradient)

    descend = quick_jit(step)
    for batch in batches:
        params = descend(params, batch)
    return params


def _steered(length, seed):
    """Cars that steer left or right by chance, and what they did `[B, T]`."""
    batch = one_episode(32, length, seed=seed)
    action = np.zeros_like(batch.previous_action)
    action[..., 0] = np.random.default_rng(seed).choice([-1.0, 1.0], action.shape[:2])
    return batch._replace(previous_action=action), action[..., 0]


@pytest.fixture(scope="module")
def loss_and_gradient(config, model):
    return quick_jit(jax.value_and_grad(_loss(config, model, "open_loop")))


@pytest.fixture(scope="module")
def drift_and_gradient(config, model):
    return quick_jit(jax.value_and_grad(_loss(config, model, "open_loop_dynamics")))


def test_only_the_heads_learn_from_rewards_and_ends_at_dreamt_steps(loss_and_gradient, params):
    _, gradient = loss_and_gradient(params, one_episode(2, 8))
    moved = {name.split("/")[0] for name, part in gradient.items() if largest(part) > 0}
    # The reward head starts with a last layer of zeros, which passes nothing back yet.
    assert moved == {"reward_out", "continue", "continue_out"}


def test_only_the_dynamics_learn_from_where_a_dream_drifts_to(drift_and_gradient, params):
    _, gradient = drift_and_gradient(params, one_episode(2, 8))
    moved = {name for name, part in gradient.items() if largest(part) > 0}
    dynamics = {name for name in params if name.startswith("rssm/") and "posterior" not in name}
    assert moved == dynamics


def test_what_follows_the_end_of_the_dreamt_episode_counts_for_nothing(loss_and_gradient, params):
    batch = one_episode(1, 8)  # one dream, of the steps 1 to 4
    is_first = batch.is_first.copy()
    is_first[:, 2] = True
    batch = batch._replace(is_first=is_first)

    def with_crash_at(step):
        is_terminal = np.zeros_like(batch.is_terminal)
        is_terminal[:, step] = True
        return loss_and_gradient(params, batch._replace(is_terminal=is_terminal))[0]

    plain = loss_and_gradient(params, batch)[0]
    assert with_crash_at(1) != plain
    for step in (2, 3, 4):
        assert with_crash_at(step) == plain


def test_after_one_blind_step_the_drift_is_the_filters_own_divergence(config, model, params):
    config = config.model_copy(update={"open_loop_length": 1})
    batch = one_episode(2, 8)
    observed = observe(model, config, params, batch, KEY)
    drift = _loss(config, model, "open_loop_dynamics")(params, batch)
    step = np.array([1, 5])  # dreams start at 0 and 4
    expected = categorical_kl(observed.posterior[step], observed.prior[step]).mean()
    assert drift == pytest.approx(float(expected), rel=1e-4)


def test_nothing_is_learnt_from_where_a_dream_drifts_to_after_its_episode(
    drift_and_gradient, params
):
    batch = one_episode(1, 8)  # one dream, of the steps 1 to 4, of which the third is learnt from
    assert drift_and_gradient(params, batch)[0] > 0
    is_first = batch.is_first.copy()
    is_first[:, 2] = True
    assert drift_and_gradient(params, batch._replace(is_first=is_first))[0] == 0


def test_a_crash_at_the_end_of_a_dream_is_learnt(config, model, params):
    """Fitted to one batch, the heads tell after two blind steps that the fourth is the end."""
    batch = one_episode(4, 8)
    is_terminal = batch.is_terminal.copy()
    is_terminal[:2, 4] = True  # the cars that steer left crash at the fourth step
    action = np.zeros_like(batch.previous_action)
    action[:2, 1:5, 0] = 1.0
    batch = batch._replace(is_terminal=is_terminal, previous_action=action)

    loss = _loss(config, model, "open_loop")
    fitted = _fitted(loss, params, [batch] * 150, 0.3)
    assert quick_jit(loss)(fitted, batch) < 0.5 * quick_jit(loss)(params, batch)


def test_a_dreamt_step_is_held_against_what_the_same_action_really_led_to(config, model, params):
    """Fitted to rewards that are the action just taken, the heads say so of drives never seen."""

    def drives(seed, late=0):
        batch, action = _steered(8, seed)
        return batch._replace(reward=np.roll(3.0 * action, late, axis=1))

    loss = _loss(config, model, "open_loop")
    params = _fitted(loss, params, map(drives, range(200)), 0.1)
    loss = quick_jit(loss)
    assert loss(params, drives(999)) < 0.5 * loss(params, drives(999, late=1))


def test_the_dynamics_learn_to_lead_back_from_where_dreams_drift_to(config, model, params):
    """Fitted at dreamt steps, they foresee what drives never seen are believed to lead to."""
    config = config.model_copy(update={"open_loop_length": 8})

    def drives(seed, late=0):
        batch, action = _steered(16, seed)
        seen = np.roll(action, late, axis=1)[..., None]  # the action just taken
        seen = np.broadcast_to(seen, batch.observation.shape).astype(np.float32)
        return batch._replace(observation=seen)

    drift = _loss(config, model, "open_loop_dynamics")
    fitted = _fitted(drift, params, map(drives, range(200)), 0.1)
    drift = quick_jit(drift)
    assert drift(fitted, drives(999)) < 0.3 * drift(params, drives(999))
    assert drift(fitted, drives(999)) < 0.5 * drift(fitted, drives(999, late=1))
