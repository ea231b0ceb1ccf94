"""Running mean and variance of what an agent sees, by the rules of SB3's `VecNormalize`.

But for two: what a learner sees of a block is scaled by the moments from before it, those that the
cars drove with, and the running returns start anew with each block, as blocks of several simulators
follow no order.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlcar.agents.observation_scaling import NORMALISER

_LIMIT, _EPSILON = NORMALISER["limit"], NORMALISER["epsilon"]


class Moments(NamedTuple):
    """Of numbers of one shape; starts as if one ten-thousandth of a standard normal was seen."""

    mean: Any
    variance: Any
    count: Any  # [] float32


def initial_moments(shape: tuple[int, ...] = ()) -> Moments:
    """Returns the moments before anything was seen."""
    return Moments(jnp.zeros(shape), jnp.ones(shape), jnp.asarray(1e-4, jnp.float32))


def update_moments(moments: Moments, batch: jax.Array) -> Moments:
    """Takes in `batch [N, ...]` (Chan et al. 1983, parallel variance)."""
    count = jnp.asarray(batch.shape[0], jnp.float32)
    mean, variance = batch.mean(axis=0), batch.var(axis=0)
    total = moments.count + count
    difference = mean - moments.mean
    both = (
        moments.variance * moments.count
        + variance * count
        + jnp.square(difference) * moments.count * count / total
    )
    return Moments(moments.mean + difference * count / total, both / total, total)


def normalise(moments: Moments, value: jax.Array) -> jax.Array:
    """Returns `(value - mean) / deviation` within +-10."""
    axes = (1,) * (value.ndim - moments.mean.ndim)
    mean = moments.mean.reshape(axes + moments.mean.shape)
    variance = moments.variance.reshape(mean.shape)
    scaled = (value - mean) * jax.lax.rsqrt(variance + _EPSILON)
    return jnp.clip(scaled, -_LIMIT, _LIMIT)


def scale_reward(returns: Moments, reward: jax.Array) -> jax.Array:
    """Returns the reward over the deviation of the running discounted returns, within +-10."""
    return jnp.clip(reward * jax.lax.rsqrt(returns.variance + _EPSILON), -_LIMIT, _LIMIT)
