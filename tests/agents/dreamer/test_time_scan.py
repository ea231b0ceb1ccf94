"""The scan with batched parameter gradients is a scan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcar.agents.dreamer.time_scan import time_scan

LENGTH, ROWS, UNITS = 19, 3, 4  # on a GPU two rounds of the loop and a part of one


def _step(params, state, inputs):
    x, keep = inputs
    hidden = jnp.tanh((state * keep[:, None]) @ params["w"] + x)
    return hidden, {"twice": 2 * hidden, "norm": jnp.sum(jnp.square(hidden) * params["b"], axis=-1)}


def _plain(step, params, start, inputs):
    def keep(state, x):
        after, output = step(params, state, x)
        return after, (after, output)

    return jax.lax.scan(keep, start, inputs)[1]


@pytest.mark.parametrize("platform", ["cpu", "default"])
def test_values_and_gradients_are_those_of_a_plain_scan(platform, monkeypatch):
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *x, **forms: forms[platform](*x))
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(UNITS, UNITS))), "b": jnp.ones((1, UNITS))}
    start = jnp.asarray(rng.normal(size=(ROWS, UNITS)))
    inputs = (
        jnp.asarray(rng.normal(size=(LENGTH, ROWS, UNITS))),
        jnp.asarray(rng.random((LENGTH, ROWS)) < 0.8, jnp.float32),
    )

    def loss(scan, *arguments):
        states, outputs = scan(_step, *arguments)
        last, twice = jnp.sum(states[-1] ** 3), jnp.sum(jnp.cos(outputs["twice"]))
        return last + jnp.sum(jnp.sin(states)) + twice + jnp.sum(outputs["norm"])

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
    start = ROWS * UNITS
    assert sizes == sorted([UNITS * UNITS, UNITS, start, state, state, LENGTH * ROWS])
