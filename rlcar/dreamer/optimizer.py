"""LaProp with adaptive gradient clipping, as the public code configures it."""

import jax
import jax.numpy as jnp
import optax

from rlcar.algorithm_config import OptimizerConfig


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clips each tensor, scales by its running RMS, then averages (Hafner et al. 2025, Methods).

    LaProp (Ziyin et al. 2020) puts the momentum after the scaling, unlike Adam.
    """
    return optax.chain(
        clip_by_parameter_norm(config.clip_ratio),
        optax.scale_by_rms(config.beta2, config.epsilon, eps_in_sqrt=False, bias_correction=True),
        optax.ema(config.beta1, debias=True),
        optax.scale_by_learning_rate(
            optax.linear_schedule(0.0, config.learning_rate, config.warmup_updates)
            if config.warmup_updates
            else config.learning_rate
        ),
    )


def clip_by_parameter_norm(
    ratio: float, minimum_norm: float = 1e-3
) -> optax.GradientTransformation:
    """Keeps each gradient tensor's norm under `ratio` times its parameter's (Brock et al. 2021)."""

    def clip(gradient: jax.Array, parameter: jax.Array) -> jax.Array:
        limit = ratio * jnp.maximum(minimum_norm, jnp.linalg.norm(parameter.ravel()))
        norm = jnp.linalg.norm(gradient.ravel())
        return gradient / jnp.maximum(1.0, norm / limit)

    def update(gradients: optax.Updates, state: optax.EmptyState, params: optax.Params) -> tuple:
        return jax.tree.map(clip, gradients, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
