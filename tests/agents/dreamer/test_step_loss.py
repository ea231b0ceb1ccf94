"""A loss over many imagined steps, whose gradient is taken in the same pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcar.agents.dreamer import step_loss as module
from rlcar.agents.dreamer.step_loss import step_loss
from tests.agents.dreamer.tiny import assert_trees_close, quick_jit

STEPS, ROWS, SIZE = 5, 3, 4


def _random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _loss(params, entry, fixed):
    target, weight = fixed
    error = jnp.square(jnp.tanh(entry @ params["w"]) - target)
    return jnp.mean(weight * error), {"error": jnp.mean(error)}


@pytest.fixture
def inputs():
    params = {"w": _random(SIZE, seed=1)}
    fixed = _random(STEPS, ROWS, seed=2), jnp.abs(_random(STEPS, ROWS, seed=3))
    return params, _random(STEPS, ROWS, SIZE), fixed


@pytest.mark.parametrize("cached_rows", [0, 4096])
def test_it_is_the_mean_over_all_steps_with_the_gradient_of_autodiff(
    inputs, monkeypatch, cached_rows
):
    monkeypatch.setattr(module, "CACHED_ROWS", cached_rows)
    params, entry, fixed = inputs

    def ours(params, entry):
        loss, metrics = step_loss(_loss, params, entry, fixed)
        return 3.0 * loss, metrics

    def plain(params, entry):
        rows = jax.tree.map(lambda x: x.reshape(STEPS * ROWS, *x.shape[2:]), (entry, fixed))
        loss, metrics = _loss(params, *rows)
        return 3.0 * loss, metrics

    out, expected = (
        quick_jit(jax.value_and_grad(f, argnums=(0, 1), has_aux=True))(params, entry)
        for f in (ours, plain)
    )
    assert_trees_close(out, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(expected[1][0]["w"]).max() > 0.01
