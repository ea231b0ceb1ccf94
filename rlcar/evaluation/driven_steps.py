"""Every step of an evaluation: what the policy observed, what it did, and what that earned."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcar.sim import SPEC
from rlcar.types import Array


class DrivenSteps(NamedTuple):
    """The steps of N episodes; NaN after the end of each.

    Row t is the observation, the action for it, and the reward of that action. NumPy arrays on the
    host, and JAX arrays while they are driven.
    """

    observation: np.ndarray  # [T, N, O] float32
    action: np.ndarray  # [T, N, A] float32, in [-1, 1]
    reward: np.ndarray  # [T, N] float32


def no_steps(limit: int, cars: int) -> Any:
    """Returns room for `limit` steps of each car."""

    def room(*shape: int) -> Any:
        return jnp.full((limit, cars, *shape), jnp.nan, jnp.float32)

    return DrivenSteps(room(SPEC.observation_size), room(SPEC.action_size), room())


def with_step(driven: Any, step: Array, now: tuple[Array, ...], is_driving: Array) -> Any:
    """Writes row `step`, with NaN for cars whose episode had ended before.

    `now` are the observations `[N, O]`, actions `[N, A]` and rewards `[N]` of the step.
    """

    def write(rows: Array, value: Array) -> Array:
        is_kept = is_driving.reshape(-1, *[1] * (value.ndim - 1))
        row = jnp.where(is_kept, value, jnp.nan).astype(jnp.float32)
        return jax.lax.dynamic_update_index_in_dim(rows, row, step, axis=0)

    return DrivenSteps(*map(write, driven, now))
