"""A scan over time whose gradient with respect to the parameters is one batched product."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


def time_scan(step: Callable, params: Tree, start: Tree, inputs: Tree) -> tuple[Tree, Tree]:
    """Returns `lax.scan(partial(step, params), start, inputs)`: the last state, and all outputs.

    `step(params, state [N, ...], inputs [N, ...])` treats every row for itself. Reverse-mode
    differentiation of a plain scan writes every residual of every step, and adds every step's
    parameter gradients to those so far: on a GPU most of its kernels. Here the forward pass keeps
    the states alone, the way back carries only the state's adjoint, and the parameters' gradient
    is taken at the end for all times at once, as if they were rows of one batch. All leaves are
    floating point.
    """

    @jax.custom_vjp
    def run(params: Tree, start: Tree, inputs: Tree) -> tuple[Tree, Tree]:
        return jax.lax.scan(lambda state, x: step(params, state, x), start, inputs)

    def forward(params: Tree, start: Tree, inputs: Tree) -> tuple[tuple, tuple]:
        def keep(state: Tree, x: Tree) -> tuple[Tree, tuple]:
            after, output = step(params, state, x)
            return after, (state, output)

        last, (states, outputs) = jax.lax.scan(keep, start, inputs)
        return (last, outputs), (params, states, inputs)

    def backward(residuals: tuple, adjoints: tuple) -> tuple[Tree, Tree, Tree]:
        params, states, inputs = residuals
        last_adjoint, output_adjoints = adjoints

        def back(after_adjoint: Tree, x: tuple) -> tuple[Tree, Tree]:
            state, inputs, output_adjoint = x
            _, pull = jax.vjp(lambda state: step(params, state, inputs), state)
            (state_adjoint,) = pull((after_adjoint, output_adjoint))
            return state_adjoint, after_adjoint

        start_adjoint, after_adjoints = jax.lax.scan(
            back, last_adjoint, (states, inputs, output_adjoints), reverse=True
        )
        rows = jax.tree.map(_rows, (states, inputs, after_adjoints, output_adjoints))
        states, inputs_rows, after_adjoints, output_adjoints = rows
        _, pull = jax.vjp(lambda params, x: step(params, states, x), params, inputs_rows)
        params_adjoint, input_adjoints = pull((after_adjoints, output_adjoints))
        input_adjoints = jax.tree.map(lambda x, like: x.reshape(like.shape), input_adjoints, inputs)
        return params_adjoint, start_adjoint, input_adjoints

    run.defvjp(forward, backward)
    return run(params, start, inputs)


def _rows(x: jax.Array) -> jax.Array:
    """`[T, N, ...]` to `[T * N, ...]`."""
    return jnp.reshape(x, (x.shape[0] * x.shape[1], *x.shape[2:]))
