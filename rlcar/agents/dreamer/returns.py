"""Lambda returns and their scale."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

# Recursions up to this length are unrolled into one kernel, instead of several for each step.
ONE_KERNEL_STEPS = 64


def lambda_returns(
    reward: jax.Array, discount: jax.Array, value: jax.Array, lambda_: float
) -> jax.Array:
    """TD(lambda) targets  Gₜ = rₜ + γₜ ((1 - λ) vₜ + λ Gₜ₊₁),  G_T = v_T₋₁.  All `[T, N]`.

    Entry t belongs to the transition after step t: its reward, discount, and next state's value
    (Sutton and Barto 2018, section 12.1; Hafner et al. 2025, Eq. 5).
    """
    chex.assert_equal_shape([reward, discount, value])

    def backup(next_return: jax.Array, step: tuple) -> tuple[jax.Array, jax.Array]:
        reward, discount, value = step
        target = reward + discount * ((1.0 - lambda_) * value + lambda_ * next_return)
        return target, target

    steps = reward, discount, value
    return jax.lax.scan(backup, value[-1], steps, reverse=True, unroll=ONE_KERNEL_STEPS)[1]


class ReturnRange(NamedTuple):
    """Running 5th and 95th percentile of the returns."""

    low: jax.Array  # []
    high: jax.Array  # []
    weight: jax.Array  # [], sum of the weights so far; corrects the bias of the start at zero


def initial_return_range() -> ReturnRange:
    """Returns the range before any return was seen."""
    return ReturnRange(jnp.zeros(()), jnp.zeros(()), jnp.zeros(()))


def update_return_range(state: ReturnRange, returns: jax.Array, rate: float) -> ReturnRange:
    """Moves the percentiles towards those of `returns` (any shape).

    Percentiles, not max - min: one lucky lap must not flatten all other advantages
    (Hafner et al. 2025, Eq. 7).
    """
    low, high = jnp.percentile(returns, jnp.array([5.0, 95.0]))
    keep = 1.0 - rate
    return ReturnRange(
        keep * state.low + rate * low,
        keep * state.high + rate * high,
        keep * state.weight + rate,
    )


def return_scale(state: ReturnRange) -> jax.Array:
    """S = max(1, Per(R, 95) - Per(R, 5))  (Eq. 7), `[]`."""
    return jnp.maximum(1.0, (state.high - state.low) / jnp.maximum(state.weight, 1e-8))
