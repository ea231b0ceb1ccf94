"""The critics of many actions at once: what depends on the observation is computed only once."""

import jax
import jax.numpy as jnp

from rlcar.agents.q_learning.networks import Network, make_actor
from rlcar.types import Params, Spec

_LAYERS = tuple(f"mlp/~/linear_{index}" for index in range(3))


def values_of_actions(params: Params, observation: jax.Array, action: jax.Array) -> jax.Array:
    """Returns the values `[2, N, K]` that two critics give to K actions for each observation.

    `params` are those of `make_critics`; `observation [N, O]`, `action [N, K, A]`.
    """
    return jnp.stack([_values(_critic(params, index), observation, action) for index in range(2)])


def make_discrete_critics(hidden_units: int, spec: Spec) -> Network:
    """Maps observations `[N, O]` to the values `[2, N, A]` of all discrete actions."""
    critic = make_actor(hidden_units, spec, 1)

    def init(key: jax.Array) -> Params:
        return jax.vmap(critic.init)(jax.random.split(key))

    def apply(params: Params, observation: jax.Array) -> jax.Array:
        return jnp.stack([critic.apply(_critic(params, index), observation) for index in range(2)])

    return Network(init, apply)


def _critic(params: Params, index: int) -> Params:
    return jax.tree.map(lambda leaf: leaf[index], params)


def _values(params: Params, observation: jax.Array, action: jax.Array) -> jax.Array:
    first, second, last = (params[name] for name in _LAYERS)
    observation_weight, action_weight = jnp.split(first["w"], [observation.shape[-1]])
    number, samples, _ = action.shape
    of_observation = observation @ observation_weight + first["b"][None]
    hidden = jax.nn.relu(of_observation[:, None] + action @ action_weight)
    # One product for all actions: it is several times as fast as one for each observation.
    hidden = jax.nn.relu(hidden.reshape(number * samples, -1) @ second["w"] + second["b"][None])
    return (hidden @ last["w"] + last["b"][None]).reshape(number, samples)
