"""Running mean and variance of observations and returns, as in the `VecNormalize` of SB3.

There are two differences. A learner normalises a block with the moments from before that block,
with which the cars were driven. The running returns restart with each block, because the blocks of
several simulators arrive in no fixed order.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlcar.agents.observation_scaling import NORMALISER

_LIMIT, _EPSILON = NORMALISER["limit"], NORMALISER["epsilon"]


class Moments(NamedTuple):
    """Moments of arrays of one shape; they start as 1e-4 observations of a standard normal."""

    mean: Any
    variance: Any
    count: Any  # [] float32


def initial_moments(shape: tuple[int, ...] = ()) -> Moments:
    """Returns the moments before any observation."""
    return Moments(jnp.zeros(shape), jnp.ones(shape), jnp.asarray(1e-4, jnp.float32))


def update_moments(moments: Moments, batch: jax.Array) -> Moments:
    """Returns the moments after `batch [N, ...]` (Chan et al. 1983, parallel variance)."""
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
    """Returns `(value - mean) / deviation`, limited to +-10."""
    axes = (1,) * (value.ndim - moments.mean.ndim)
    mean = moments.mean.reshape(axes + moments.mean.shape)
    variance = moments.variance.reshape(mean.shape)
    scaled = (value - mean) * jax.lax.rsqrt(variance + _EPSILON)
    return jnp.clip(scaled, -_LIMIT, _LIMIT)


def scale_reward(returns: Moments, reward: jax.Array) -> jax.Array:
    """Returns the reward divided by the deviation of the discounted returns, limited to +-10."""
    return jnp.clip(reward * jax.lax.rsqrt(returns.variance + _EPSILON), -_LIMIT, _LIMIT)
