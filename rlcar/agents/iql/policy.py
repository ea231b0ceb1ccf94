"""Acting: a deterministic action, with noise for exploration."""

import jax
import jax.numpy as jnp

from rlcar.agents.iql.settings import IqlConfig
from rlcar.agents.offline_learning.policy import make_normalised_policy
from rlcar.agents.q_learning.networks import make_actor
from rlcar.types import Policy, Spec


def make_policy(config: IqlConfig, spec: Spec) -> Policy:
    """Builds `Policy` for continuous actions."""

    def choose(output: jax.Array, key: jax.Array, explore: bool) -> jax.Array:
        action = jnp.tanh(output)
        if not explore:
            return action
        noise = config.exploration_noise * jax.random.normal(key, action.shape)
        return jnp.clip(action + noise, -1.0, 1.0)

    return make_normalised_policy(make_actor(config.hidden_units, spec, 1), choose)
