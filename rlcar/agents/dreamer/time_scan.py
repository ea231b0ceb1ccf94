"""A scan over time whose gradient with respect to the parameters is one batched product."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Var

Tree = Any

# A GPU unrolls this many steps into one iteration: the overhead of an iteration (its counter, and
# a slice of each array to read and write) is a quarter of a filter's kernels. On a CPU unrolling
# would only take longer to compile.
_GPU_UNROLL = 8


def scan(step: Callable, start: Tree, inputs: Tree) -> tuple[Tree, Tree]:
    """Scans as `jax.lax.scan` does, with fewer iterations where kernel launches dominate."""

    def in_rounds_of(steps: int) -> Callable:
        return lambda start, inputs: jax.lax.scan(step, start, inputs, unroll=steps)

    return jax.lax.platform_dependent(
        start, inputs, cpu=in_rounds_of(1), default=in_rounds_of(_GPU_UNROLL)
    )


def time_scan(step: Callable, params: Tree, start: Tree, inputs: Tree) -> tuple[Tree, Tree]:
    """Scans `step` from `start` over `inputs [T, N, ...]`; returns all states, and all outputs.

    `step(params, state [N, ...], inputs [N, ...])` treats each row independently. Reverse-mode
    differentiation of a plain scan stores every residual of every step, and accumulates the
    parameter gradients step by step, which is most of its kernels on a GPU. Here the forward pass
    stores only the states, each after its step, and the backward pass carries only the adjoint of
    the state. At its end the gradient of the parameters is computed for all times at once, as if
    they were rows of one batch. All leaves are floating point.
    """

    @jax.custom_vjp
    def run(params: Tree, start: Tree, inputs: Tree) -> tuple[Tree, Tree]:
        def keep(state: Tree, x: Tree) -> tuple[Tree, tuple]:
            after, output = step(params, state, x)
            return after, (after, output)

        return scan(keep, start, inputs)[1]

    def forward(params: Tree, start: Tree, inputs: Tree) -> tuple[tuple, tuple]:
        states, outputs = run(params, start, inputs)
        return (states, outputs), (params, start, states, inputs)

    def backward(residuals: tuple, adjoints: tuple) -> tuple[Tree, Tree, Tree]:
        params, start, after, inputs = residuals
        states = jax.tree.map(lambda x, y: jnp.concatenate([x[None], y[:-1]]), start, after)
        zero = jax.tree.map(jnp.zeros_like, start)

        def pull_one(params: Tree, state: Tree, x: Tree) -> Callable:
            return jax.vjp(lambda state: step(params, state, x), state)[1]

        def again(params: Tree, states: Tree, inputs: Tree, adjoints: tuple) -> tuple:
            return _back(lambda x: pull_one(params, *x), zero, (states, inputs), adjoints, 1)

        def all_at_once(params: Tree, states: Tree, inputs: Tree, adjoints: tuple) -> tuple:
            pull_at, stacked = _stacked_pulls(partial(pull_one, params), states, inputs)
            return _back(pull_at, zero, stacked, adjoints, _GPU_UNROLL)

        # A GPU avoids the launches of a second, stepwise forward pass. In the cache of a CPU such a
        # pass is cheaper than reading the residuals of all times from memory.
        start_adjoint, after_adjoints = jax.lax.platform_dependent(
            params, states, inputs, adjoints, cpu=again, default=all_at_once
        )
        output_adjoints = adjoints[1]
        rows = jax.tree.map(_rows, (states, inputs, after_adjoints, output_adjoints))
        states, inputs_rows, after_adjoints, output_adjoints = rows
        _, pull = jax.vjp(lambda params, x: step(params, states, x), params, inputs_rows)
        params_adjoint, input_adjoints = pull((after_adjoints, output_adjoints))
        input_adjoints = jax.tree.map(lambda x, like: x.reshape(like.shape), input_adjoints, inputs)
        return params_adjoint, start_adjoint, input_adjoints

    run.defvjp(forward, backward)
    return run(params, start, inputs)


def _back(
    pull_at: Callable, zero: Tree, kept: Tree, adjoints: tuple, unroll: int
) -> tuple[Tree, Tree]:
    """Carries the state's adjoint from the end to the start; returns the first and all adjoints."""

    def back(carried: Tree, x: tuple) -> tuple[Tree, Tree]:
        kept, adjoint, output_adjoint = x
        after_adjoint = jax.tree.map(jnp.add, carried, adjoint)
        (state_adjoint,) = pull_at(kept)((after_adjoint, output_adjoint))
        return state_adjoint, after_adjoint

    return jax.lax.scan(back, zero, (kept, *adjoints), reverse=True, unroll=unroll)


def _stacked_pulls(pull: Callable, states: Tree, inputs: Tree) -> tuple[Callable, list[jax.Array]]:
    """Computes the residuals of `pull(state, x)` for all times at once.

    Returns a function that makes the pullback of one time from its residuals, and the residuals
    `[T, ...]`. Residuals that depend on no input (the weights) are stored only once.
    """
    structure: list[Any] = []

    def leaves(state: Tree, x: Tree) -> list[jax.Array]:
        kept, found = jax.tree.flatten(pull(state, x))
        structure[:] = [found]
        return kept

    first = jax.tree.map(lambda x: x[0], (states, inputs))
    program = jax.make_jaxpr(leaves)(*first).jaxpr
    varying = set(program.invars)
    for equation in program.eqns:
        if any(isinstance(x, Var) and x in varying for x in equation.invars):
            varying.update(equation.outvars)
    is_varying = [isinstance(x, Var) and x in varying for x in program.outvars]
    axes = [0 if one else None for one in is_varying]
    kept = jax.vmap(leaves, out_axes=axes)(states, inputs)

    def pull_at(part: list[jax.Array]) -> Callable:
        parts = iter(part)
        both = zip(kept, is_varying, strict=True)
        all_leaves = [next(parts) if one else leaf for leaf, one in both]
        return jax.tree.unflatten(structure[0], all_leaves)

    return pull_at, [leaf for leaf, one in zip(kept, is_varying, strict=True) if one]


def _rows(x: jax.Array) -> jax.Array:
    """Reshapes `[T, N, ...]` to `[T * N, ...]`."""
    return jnp.reshape(x, (x.shape[0] * x.shape[1], *x.shape[2:]))
