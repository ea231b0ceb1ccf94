"""Products in bfloat16 beside those in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcar.agents.dreamer.products import known_product, product, products_in
from tests.agents.dreamer.tiny import quick_jit


def _random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


PRODUCTS = {
    "narrower": ("...i,io->...o", (9, 12), (12, 3)),
    "wider": ("ni,io->no", (9, 3), (3, 12)),
    "of more axes": ("...i,io->...o", (2, 9, 12), (12, 3)),
    "grouped": ("gni,gio->gno", (4, 9, 12), (4, 12, 3)),
    "grouped and wider": ("gni,gio->gno", (4, 9, 3), (4, 3, 12)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_and_its_gradients_are_in_bfloat16_with_sums_in_float32(name):
    equation, left, right = PRODUCTS[name]
    # What bfloat16 holds exactly, so that only the precision of sums and adjoints can differ.
    x, weight = (
        _random(*shape).astype(jnp.bfloat16).astype(jnp.float32) for shape in (left, right)
    )
    out = jnp.einsum(equation, x, weight)
    adjoint = 1.0 + _random(*out.shape, seed=2) / 64.0

    def pulled(dtype, adjoint):
        with products_in(dtype):
            result, pull = jax.vjp(lambda *pair: product(equation, *pair), x, weight)
            return result, *pull(adjoint)

    rounded = adjoint.astype(jnp.bfloat16).astype(jnp.float32)
    found = quick_jit(lambda adjoint: pulled("bfloat16", adjoint))(adjoint)
    for one, other in zip(found, pulled("float32", rounded), strict=True):
        assert one.dtype == jnp.float32
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    assert np.abs(found[1] - pulled("float32", adjoint)[1]).max() > 1e-4


def test_a_known_products_gradient_is_in_bfloat16_too():
    x, weight = _random(9, 12), _random(12, 3, seed=1)

    def gradient(dtype):
        with products_in(dtype):
            return jax.grad(lambda weight: known_product(x, weight, x @ weight).sum())(weight)

    near, exact = gradient("bfloat16"), gradient("float32")
    np.testing.assert_allclose(near, exact, rtol=0.01, atol=0.05)
    assert np.any(near != exact)
