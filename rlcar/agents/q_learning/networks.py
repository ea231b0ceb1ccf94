"""Networks with two hidden layers; two critics are computed as one batch."""

from collections.abc import Callable
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from rlcar.types import Array, Params, Spec


class Network(NamedTuple):
    """Pure functions of one `params`."""

    init: Callable  # (key) -> params
    apply: Callable  # (params, *inputs) -> output


def make_actor(hidden_units: int, spec: Spec, numbers_per_action: int) -> Network:
    """Maps observations `[N, O]` to `[N, A * numbers_per_action]`."""
    size = spec.action_size * numbers_per_action
    return _mlp(hidden_units, size, np.zeros((1, spec.observation_size), np.float32))


def make_critics(hidden_units: int, spec: Spec) -> Network:
    """Maps observations and actions to the values `[2, N]` of two critics."""
    pair = np.zeros((1, spec.observation_size + spec.action_size), np.float32)
    critic = _mlp(hidden_units, 1, pair)

    def init(key: jax.Array) -> Params:
        return jax.vmap(critic.init)(jax.random.split(key))

    def apply(params: Params, observation: jax.Array, action: jax.Array) -> jax.Array:
        pair = jnp.concatenate([observation, action], axis=-1)
        return jax.vmap(critic.apply, in_axes=(0, None))(params, pair)[..., 0]

    return Network(init, apply)


def _mlp(hidden_units: int, size: int, example: Array) -> Network:
    network = hk.without_apply_rng(
        hk.transform(lambda x: hk.nets.MLP([hidden_units, hidden_units, size])(x))
    )
    return Network(lambda key: network.init(key, example), network.apply)
