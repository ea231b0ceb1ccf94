"""Building blocks whose faster forms must agree with the plain ones."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcar.agents.dreamer.layers import (
    GruWeights,
    Linear,
    Mlp,
    block_gru,
    entries,
    init_with_one_draw,
)
from rlcar.agents.dreamer.products import known_product, products_in
from tests.agents.dreamer.tiny import assert_trees_close, quick_jit

ROWS, BLOCKS, UNITS, INPUTS = 5, 3, 4, 7


def _random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _gru_by_hand(weights, state, shared):
    """The GRU with its blocks as one block-diagonal matrix."""
    own = jax.scipy.linalg.block_diag(*weights.block_w)
    hidden = shared @ weights.shared_w + state @ own
    mean_square = jnp.mean(jnp.square(hidden), axis=-1, keepdims=True)
    hidden = jax.nn.silu(hidden / jnp.sqrt(mean_square + 1e-4) * weights.scale[None])

    def gate(index):
        columns = slice(index * UNITS, (index + 1) * UNITS)
        matrix = jax.scipy.linalg.block_diag(*weights.gates_w[:, :, columns])
        return hidden @ matrix + weights.gates_b[:, 0, columns].reshape(1, -1)

    candidate = jnp.tanh(jax.nn.sigmoid(gate(0)) * gate(1))
    update = jax.nn.sigmoid(gate(2) - 1.0)
    return update * candidate + (1.0 - update) * state


@pytest.fixture(params=[5, 80], ids=["few-rows", "many-rows"])
def gru(request):
    width = BLOCKS * UNITS
    weights = GruWeights(
        shared_w=_random(INPUTS, width, seed=1),
        block_w=_random(BLOCKS, UNITS, UNITS, seed=2),
        scale=1.0 + 0.1 * _random(width, seed=3),
        gates_w=_random(BLOCKS, UNITS, 3 * UNITS, seed=4),
        gates_b=_random(BLOCKS, 1, 3 * UNITS, seed=5),
    )
    return weights, _random(request.param, width, seed=6), _random(request.param, INPUTS, seed=7)


def test_every_form_of_the_gru_is_that_of_a_block_diagonal_matrix(gru):
    np.testing.assert_allclose(quick_jit(block_gru)(*gru), _gru_by_hand(*gru), atol=1e-5)


def test_the_gradient_of_the_gru_is_that_of_a_block_diagonal_matrix(gru):
    def loss(function):
        return lambda *inputs: jnp.sum(jnp.sin(3.0 * function(*inputs)))

    ours, expected = (
        quick_jit(jax.value_and_grad(loss(f), argnums=(0, 1, 2)))(*gru)
        for f in (block_gru, _gru_by_hand)
    )
    assert_trees_close(ours, expected, rtol=1e-3, atol=1e-4)


def test_first_weights_are_cut_normals_of_variance_one_over_fan_in_and_no_two_the_same():
    def network(x):
        return Linear(300, "out", scale=4.0)(Mlp(200, 1, "in")(x))

    init = hk.transform(network).init
    params = init_with_one_draw(init, jax.random.PRNGKey(3), jnp.zeros((1, 100)))
    again = init_with_one_draw(init, jax.random.PRNGKey(3), jnp.zeros((1, 100)))
    jax.tree.map(np.testing.assert_array_equal, params, again)
    first, last = (np.asarray(params[name]["w"]) for name in ("in/layer_0", "out"))
    for weight, variance in ((first, 1 / 100), (last, 4 / 200)):
        assert weight.var() == pytest.approx(variance, rel=0.05)
        assert np.abs(weight).max() < 2.0 * (variance**0.5) / 0.8796
    both = np.concatenate([first.ravel() * 10.0, last.ravel() * 50.0**0.5])
    assert len(np.unique(both.round(5))) > 0.8 * len(both)
    assert not np.asarray(params["out"]["b"]).any()


def test_several_first_layers_in_one_product_are_each_its_own():
    x, weights = _random(ROWS, 6), [_random(6, size, seed=size) for size in (2, 3, 1)]
    for out, weight in zip(entries(x, weights), weights, strict=True):
        np.testing.assert_allclose(out, x @ weight, atol=1e-5)


def test_a_known_product_teaches_its_weights_alone():
    x, weight = _random(ROWS, 6), _random(6, 2, seed=1)

    def loss(product):
        return lambda x, weight: jnp.sum(jnp.sin(product(x, weight)))

    known = loss(lambda x, weight: known_product(x, weight, x @ jax.lax.stop_gradient(weight)))
    ours = jax.grad(known, argnums=1)(x, weight)
    np.testing.assert_allclose(ours, jax.grad(loss(jnp.matmul), argnums=1)(x, weight), atol=1e-5)
    into_result = jax.grad(lambda result: jnp.sum(known_product(x, weight, result)))(x @ weight)
    assert (into_result == 0).all()


def test_the_gru_multiplies_in_the_precision_asked_for(gru):
    with products_in("bfloat16"):
        half = quick_jit(lambda *inputs: block_gru(*inputs))(*gru)
    whole = quick_jit(lambda *inputs: block_gru(*inputs))(*gru)
    assert half.dtype == jnp.float32
    assert 1e-4 < np.abs(half - whole).max() < 0.2
