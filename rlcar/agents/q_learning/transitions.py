"""Single transitions from windows of two or more steps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcar.types import Batch


class Transitions(NamedTuple):
    """M env steps."""

    observation: jax.Array  # [M, O]
    action: jax.Array  # [M, A]
    reward: jax.Array  # [M]
    next_observation: jax.Array  # [M, O]
    continues: jax.Array  # [M] 0 where a crash or a finish ended the episode, otherwise 1
    weight: jax.Array  # [M] sums to 1; 0 where the next step began another episode


def transitions_of(batch: Batch) -> Transitions:
    """Cuts windows `[B, L]` into `B (L - 1)` steps; a time-out is no end (Pardo et al. 2018)."""

    def flat(x: jax.Array) -> jax.Array:
        return x.reshape(-1, *x.shape[2:])

    weight = 1.0 - flat(batch.is_first[:, 1:]).astype(jnp.float32)
    return Transitions(
        flat(batch.observation[:, :-1]),
        jnp.clip(flat(batch.previous_action[:, 1:]), -1.0, 1.0),
        flat(batch.reward[:, 1:]),
        flat(batch.observation[:, 1:]),
        1.0 - flat(batch.is_terminal[:, 1:]).astype(jnp.float32),
        weight / jnp.maximum(weight.sum(), 1.0),
    )
