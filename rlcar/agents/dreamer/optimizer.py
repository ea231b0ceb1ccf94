"""LaProp with adaptive gradient clipping, with the settings of the public code."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rlcar.agents.dreamer.settings import OptimizerConfig

_ROW = 4096  # squares of one tensor are added in so many parallel sums


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clips each tensor, divides by its running RMS, then averages (Hafner et al. 2025, Methods).

    Unlike Adam, LaProp (Ziyin et al. 2020) applies the momentum after the scaling.
    """
    return optax.chain(
        clip_by_parameter_norm(config.clip_ratio),
        # All parameters as one vector: tensor by tensor, this would dominate a small model's step.
        optax.flatten(_laprop(config)),
    )


def _laprop(config: OptimizerConfig) -> optax.GradientTransformation:
    return optax.chain(
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
    """Limits each gradient's norm to `ratio` times that of its parameter (Brock et al. 2021)."""

    def update(gradients: optax.Updates, state: optax.EmptyState, params: optax.Params) -> tuple:
        limit = ratio * jnp.maximum(minimum_norm, tensor_norms(params))
        shrink = list(jnp.maximum(1.0, tensor_norms(gradients) / limit))
        leaves, structure = jax.tree.flatten(gradients)
        clipped = [leaf / factor for leaf, factor in zip(leaves, shrink, strict=True)]
        return jax.tree.unflatten(structure, clipped), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def tensor_norms(tree: Any) -> jax.Array:
    """Returns the Euclidean norm of each leaf, `[leaves]`.

    A GPU reduces all leaves together, because each reduction alone would cost a kernel launch.
    """
    leaves = jax.tree.leaves(tree)
    return jnp.asarray(jax.lax.platform_dependent(leaves, cpu=_each_norm, default=_norms_at_once))


def _each_norm(leaves: list[jax.Array]) -> jax.Array:
    # One product for each: a sum of squares would be three loops.
    return jnp.sqrt(jnp.stack([jnp.vdot(leaf, leaf, precision="highest") for leaf in leaves]))


def _norms_at_once(leaves: list[jax.Array]) -> jax.Array:
    counts = [-(-leaf.size // _ROW) for leaf in leaves]
    padded = [
        jnp.pad(leaf.ravel(), (0, count * _ROW - leaf.size))
        for leaf, count in zip(leaves, counts, strict=True)
    ]
    rows = jnp.sum(jnp.square(jnp.concatenate(padded).reshape(-1, _ROW)), axis=1)
    # A product instead of a scatter, whose order of additions is not deterministic.
    leaf_of_row = np.repeat(np.eye(len(leaves), dtype=np.float32), counts, axis=1)
    return jnp.sqrt(jnp.dot(leaf_of_row, rows, precision="highest"))
