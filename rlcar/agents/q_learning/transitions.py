"""Single transitions from windows of two or more steps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcar.types import Batch


class Transitions(NamedTuple):
    """M env steps, each with the rewards of one or more steps."""

    observation: jax.Array  # [M, O]
    action: jax.Array  # [M, A]
    reward: jax.Array  # [M] sum of discounted rewards up to the next observation
    next_observation: jax.Array  # [M, O]
    continues: jax.Array  # [M] 0 where a crash or a finish ended the episode, otherwise 1 or, after
    # k rewards, the discount to the power of k - 1
    weight: jax.Array  # [M] sums to 1; 0 where the next step began another episode


def transitions_of(batch: Batch, discount: float = 1.0, return_steps: int = 1) -> Transitions:
    """Cuts windows `[B, L]` into `B (L - 1)` steps; a time-out is no end (Pardo et al. 2018).

    Each holds up to `return_steps` rewards, fewer where the episode or the window ends before
    (n-step returns: Sutton and Barto 2018, section 7.1).
    """
    weight = 1.0 - batch.is_first[:, 1:].astype(jnp.float32)
    reward, following = batch.reward[:, 1:], batch.observation[:, 1:]
    ends = batch.is_terminal[:, 1:].astype(jnp.float32)
    continues, goes_on = 1.0 - ends, 1.0 - ends
    for step in range(1, min(return_steps, weight.shape[1])):
        # The step that comes `step` later, if it belongs to the window and to the same episode.
        goes_on = goes_on * _later(weight, step)
        reward = reward + discount**step * goes_on * _later(batch.reward[:, 1:], step)
        later = _later(batch.observation[:, 1:], step)
        following = jnp.where(goes_on[..., None] > 0.0, later, following)
        is_open = goes_on * (1.0 - _later(ends, step))
        continues = jnp.where(goes_on > 0.0, discount**step * is_open, continues)
        goes_on = is_open
    weight = _flat(weight)
    return Transitions(
        _flat(batch.observation[:, :-1]),
        jnp.clip(_flat(batch.previous_action[:, 1:]), -1.0, 1.0),
        _flat(reward),
        _flat(following),
        _flat(continues),
        weight / jnp.maximum(weight.sum(), 1.0),
    )


def _flat(x: jax.Array) -> jax.Array:
    return x.reshape(-1, *x.shape[2:])


def _later(x: jax.Array, steps: int) -> jax.Array:
    """Returns what comes so many steps later, and zeros after the end of the window."""
    return jnp.pad(x[:, steps:], [(0, 0), (0, steps), *[(0, 0)] * (x.ndim - 2)])
