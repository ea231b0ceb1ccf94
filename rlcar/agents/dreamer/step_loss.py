"""A loss over many imagined steps, with its gradient taken in the same pass."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Tree = Any

# The logits of this many rows fill a core's cache (255 float32 each, 4 MB).
CACHED_ROWS = 4096


def by_cache(rows: int, step_by_step: Callable, at_once: Callable, *arguments: Any) -> Any:
    """Calls one of two forms of the same computation over `rows` rows in total.

    A CPU computes step by step if all rows together exceed its cache. A GPU, where each step costs
    separate kernels, computes one batch, and so does a CPU with few rows.
    """
    if rows <= CACHED_ROWS:
        return at_once(*arguments)
    return jax.lax.platform_dependent(*arguments, cpu=step_by_step, default=at_once)


def step_loss(loss: Callable, params: Tree, entry: jax.Array, fixed: Tree) -> tuple:
    """Returns the mean of `loss(params, entry[t], fixed[t]) -> (scalar, metrics)` over steps t.

    `entry` and the leaves of `fixed` are `[H, N, ...]`; `loss` takes means over its rows. Gradients
    flow to `params` and `entry`, from the scalar alone.
    """
    both = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)

    def step_by_step(params: Tree, entry: jax.Array, fixed: Tree) -> tuple:
        def step(total: Tree, x: tuple) -> tuple[Tree, tuple]:
            out, (into_params, into_entry) = both(params, *x)
            return jax.tree.map(jnp.add, total, into_params), (out, into_entry)

        nothing = jax.tree.map(jnp.zeros_like, params)
        total, (out, into_entry) = jax.lax.scan(step, nothing, (entry, fixed))
        share = 1.0 / entry.shape[0]
        out = jax.tree.map(lambda x: jnp.mean(x, axis=0), out)
        return out, (jax.tree.map(lambda x: share * x, total), share * into_entry)

    def at_once(params: Tree, entry: jax.Array, fixed: Tree) -> tuple:
        rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (entry, fixed))
        out, (into_params, into_entry) = both(params, *rows)
        return out, (into_params, into_entry.reshape(entry.shape))

    def forward(params: Tree, entry: jax.Array, fixed: Tree) -> tuple:
        rows = entry.shape[0] * entry.shape[1]
        out, gradients = by_cache(rows, step_by_step, at_once, params, entry, fixed)
        return out, (gradients, fixed)

    def backward(residuals: tuple, adjoints: tuple) -> tuple:
        gradients, fixed = residuals
        into_params, into_entry = jax.tree.map(lambda x: adjoints[0] * x, gradients)
        return into_params, into_entry, jax.tree.map(jnp.zeros_like, fixed)

    @jax.custom_vjp
    def run(params: Tree, entry: jax.Array, fixed: Tree) -> tuple:
        return forward(params, entry, fixed)[0]

    run.defvjp(forward, backward)
    return run(params, entry, fixed)
