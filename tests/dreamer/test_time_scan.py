"""The scan with batched parameter gradients is a scan."""

import jax
import jax.numpy as jnp
import numpy as np

from rlcar.dreamer.time_scan import time_scan

LENGTH, ROWS, UNITS = 7, 3, 4


def _step(params, state, inputs):
    x, keep = inputs
    hidden = jnp.tanh((state * keep[:, None]) @ params["w"] + x)
    return hidden, {"hidden": hidden, "norm": jnp.sum(jnp.square(hidden) * params["b"], axis=-1)}


def _plain(step, params, start, inputs):
    return jax.lax.scan(lambda state, x: step(params, state, x), start, inputs)


def test_values_and_gradients_are_those_of_a_plain_scan():
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(UNITS, UNITS))), "b": jnp.ones((1, UNITS))}
    start = jnp.asarray(rng.normal(size=(ROWS, UNITS)))
    inputs = (
        jnp.asarray(rng.normal(size=(LENGTH, ROWS, UNITS))),
        jnp.asarray(rng.random((LENGTH, ROWS)) < 0.8, jnp.float32),
    )

    def loss(scan, *arguments):
        last, outputs = scan(_step, *arguments)
        return jnp.sum(last**3) + jnp.sum(jnp.sin(outputs["hidden"])) + jnp.sum(outputs["norm"])

    found, expected = (
        jax.jit(jax.value_and_grad(lambda *a, scan=scan: loss(scan, *a), argnums=(0, 1, 2)))(
            params, start, inputs
        )
        for scan in (time_scan, _plain)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5), found, expected
    )
    assert float(jnp.abs(expected[1][2][0]).min()) > 0  # every input had an influence


def test_no_residuals_but_the_states_are_kept():
    """What the forward pass hands to the backward pass: parameters, states, inputs."""
    params = {"w": jnp.ones((UNITS, UNITS)), "b": jnp.ones((1, UNITS))}
    inputs = jnp.ones((LENGTH, ROWS, UNITS)), jnp.ones((LENGTH, ROWS))
    _, pull = jax.vjp(
        lambda params: time_scan(_step, params, jnp.ones((ROWS, UNITS)), inputs)[1]["norm"], params
    )
    sizes = sorted(leaf.size for leaf in jax.tree.leaves(pull))
    state = LENGTH * ROWS * UNITS
    assert sizes == sorted([UNITS * UNITS, UNITS, state, state, LENGTH * ROWS])
