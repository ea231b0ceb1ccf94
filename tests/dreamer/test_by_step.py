"""Dreamt steps one at a time and all together."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from rlcar.dreamer.by_step import map_steps, mean_over_steps

STEPS = {"x": jnp.arange(12.0).reshape(4, 3), "y": jnp.arange(4.0)}
PARAMS = {"w": jnp.array([0.5, -1.0, 2.0])}


def _loss(params, step):
    error = jnp.sum(params["w"] * step["x"]) - step["y"]
    return error**2, {"error": error}


def test_the_mean_and_its_gradient_are_those_of_all_steps_together():
    def plain(params):
        losses, metrics = jax.vmap(partial(_loss, params))(STEPS)
        return jnp.mean(losses), jax.tree.map(jnp.mean, metrics)

    def alongside(params):
        return mean_over_steps(_loss, params, STEPS)

    (expected, metrics), gradient = jax.value_and_grad(plain, has_aux=True)(PARAMS)
    (found, found_metrics), found_gradient = jax.jit(jax.value_and_grad(alongside, has_aux=True))(
        PARAMS
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(found_metrics["error"], metrics["error"], rtol=1e-6)
    np.testing.assert_allclose(found_gradient["w"], gradient["w"], rtol=1e-6)


def test_the_gradient_is_scaled_by_what_comes_after():
    def thrice(params):
        return 3.0 * mean_over_steps(_loss, params, STEPS)[0]

    gradient = jax.grad(lambda params: mean_over_steps(_loss, params, STEPS)[0])(PARAMS)
    np.testing.assert_allclose(jax.grad(thrice)(PARAMS)["w"], 3.0 * gradient["w"], rtol=1e-6)


def test_every_step_is_mapped_for_itself():
    found = map_steps(lambda step: (jnp.sum(step["x"]), step["y"]), STEPS)
    np.testing.assert_array_equal(found[0], [3.0, 12.0, 21.0, 30.0])
    np.testing.assert_array_equal(found[1], STEPS["y"])
