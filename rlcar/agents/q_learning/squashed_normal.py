"""A normal distribution squashed by tanh (Haarnoja et al. 2018, Appendix C)."""

import jax
import jax.numpy as jnp

from rlcar.agents.gaussian import HALF_LOG_TWO_PI

_LOG_DEVIATION = (-20.0, 2.0)


def squashed_mode(output: jax.Array) -> jax.Array:
    """Returns the action `[..., A]` at the mean, for an actor's output `[..., 2 A]`."""
    mean, _ = jnp.split(output, 2, axis=-1)
    return jnp.tanh(mean)


def squashed_sample(output: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns actions `[..., A]` and their log-densities `[...]`.

    `output [..., 2 A]` is that of the actor, and `noise [..., A]` is standard normal; they may
    broadcast.
    """
    mean, log_deviation = jnp.split(output, 2, axis=-1)
    log_deviation = jnp.clip(log_deviation, *_LOG_DEVIATION)
    raw = mean + jnp.exp(log_deviation) * noise
    # log(1 - tanh(raw)^2) in a form that float32 does not round to minus infinity.
    log_slope = 2.0 * (jnp.log(2.0) - raw - jax.nn.softplus(-2.0 * raw))
    log_prob = -0.5 * jnp.square(noise) - log_deviation - HALF_LOG_TWO_PI - log_slope
    return jnp.tanh(raw), jnp.sum(log_prob, axis=-1)
