"""The uncertainty of the world model."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcar.agents import make_agent
from rlcar.agents.dreamer.ensemble import disagreement
from rlcar.config import make_config
from tests.agents.dreamer.tiny import LEARNS_AT_ONCE, SPEC, largest, quick_learner, random_batch


def test_heads_that_agree_have_no_uncertainty_and_opposite_ones_have_a_known_one():
    sure, other = jnp.log(jnp.array([1.0 - 1e-9, 1e-9])), jnp.log(jnp.array([1e-9, 1.0 - 1e-9]))
    agreeing = jnp.stack([sure, sure]).reshape(2, 1, 1, 2)
    opposite = jnp.stack([sure, other]).reshape(2, 1, 1, 2)
    assert disagreement(agreeing)[0] == pytest.approx(0.0, abs=1e-6)
    assert disagreement(opposite)[0] == pytest.approx(math.log(2.0), rel=1e-5)


def test_uncertainty_adds_up_over_the_groups():
    half, most = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.9, 0.1]))
    one = disagreement(jnp.stack([half, most]).reshape(2, 1, 1, 2))
    both = disagreement(jnp.stack([half, half, most, most]).reshape(2, 1, 2, 2))
    np.testing.assert_allclose(both, 2.0 * one, rtol=1e-5)


def _learner(*overrides):
    config = make_config(mode="test", overrides=[*LEARNS_AT_ONCE, *overrides])
    return quick_learner(make_agent(config, SPEC).learner)


def _with_heads(penalty):
    return _learner("dreamer.uncertainty.heads=3", f"dreamer.uncertainty.penalty={penalty}")


@pytest.fixture(scope="module")
def free():
    """A learner whose uncertainty costs nothing."""
    return _with_heads(0.0)


def _imagined_reward(learner):
    state, metrics = learner.update(learner.init(0), random_batch(1, 4, 12))
    assert np.isfinite(largest(jax.device_get(state)))
    return {name: float(value) for name, value in metrics.items()}


@pytest.mark.long
def test_the_penalty_lowers_imagined_rewards_by_the_uncertainty(free):
    without, charged = _imagined_reward(free), _imagined_reward(_with_heads(2.0))
    uncertainty = without["model/uncertainty_nats"]
    assert uncertainty > 0.0
    assert charged["model/uncertainty_nats"] == pytest.approx(uncertainty)
    lower = without["model/imagined_reward"] - charged["model/imagined_reward"]
    assert lower == pytest.approx(2.0 * uncertainty, rel=1e-4)


def test_heads_learn_to_predict_and_do_not_change_what_the_model_learns(free):
    without = _learner()  # compiled for tests/agents/dreamer/test_learner.py too
    batches = random_batch(1, 4, 12)
    state, other = free.init(0), without.init(0)
    losses = []
    for _ in range(30):
        state, metrics = free.update(state, batches)
        other, _ = without.update(other, batches)
        losses.append(float(metrics["model/ensemble_loss"]))
    assert losses[-1] < losses[0]
    jax.tree.map(
        lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4),
        jax.device_get(state.params["world_model"]),
        jax.device_get(other.params["world_model"]),
    )
