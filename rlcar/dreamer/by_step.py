"""Work on every step of a dream: one step at a time on a CPU, where it then stays in the cache.

All steps at once are arrays of tens of megabytes, mostly the logits of two-hot heads, and a CPU
waits for its memory: twice as long in all. A GPU waits for kernel launches instead, and takes all
steps together.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from rlcar.types import Params


def map_steps(function: Callable, steps: Any) -> Any:
    """Returns `function` of each step, stacked: `[T, ...]` to `[T, ...]`; not to be derived."""

    def one_by_one(steps: Any) -> Any:
        return jax.lax.map(function, steps)

    return jax.lax.platform_dependent(steps, cpu=one_by_one, default=jax.vmap(function))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def mean_over_steps(loss: Callable, params: Params, steps: Any) -> Any:
    """Returns the mean over steps of `loss(params, step) -> (number, metrics)`.

    The gradient by `params` is taken alongside the loss, so that nothing of a step needs to be
    kept; none flows into `steps`, nor out of the metrics.
    """
    return _forward(loss, params, steps)[0]


def _forward(loss: Callable, params: Params, steps: Any) -> tuple[Any, Params]:
    number = jax.tree.leaves(steps)[0].shape[0]
    gradient_of = jax.value_and_grad(loss, has_aux=True)

    def one_by_one(params: Params, steps: Any) -> tuple[Any, Params]:
        def add(total: Params, step: Any) -> tuple[Params, Any]:
            value, gradient = gradient_of(params, step)
            return jax.tree.map(jnp.add, total, gradient), value

        total, values = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), steps)
        return _mean(values), jax.tree.map(lambda x: x / number, total)

    def together(params: Params, steps: Any) -> tuple[Any, Params]:
        def mean_loss(params: Params) -> Any:
            return _mean(jax.vmap(partial(loss, params))(steps))

        return jax.value_and_grad(mean_loss, has_aux=True)(params)

    return jax.lax.platform_dependent(params, steps, cpu=one_by_one, default=together)


def _backward(loss: Callable, gradient: Params, adjoint: Any) -> tuple[Params, None]:
    return jax.tree.map(lambda x: adjoint[0] * x, gradient), None


mean_over_steps.defvjp(_forward, _backward)


def _mean(values: Any) -> Any:
    return jax.tree.map(partial(jnp.mean, axis=0), values)
