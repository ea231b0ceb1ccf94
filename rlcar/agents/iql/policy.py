"""Acting: the actor's output, limited by tanh, or the most likely of discrete actions."""

import jax
import jax.numpy as jnp

from rlcar.agents.iql.settings import IqlConfig
from rlcar.agents.offline_learning.policy import drawn, make_normalised_policy, most_likely
from rlcar.agents.q_learning.networks import make_actor
from rlcar.types import Policy, Spec


def make_policy(config: IqlConfig, spec: Spec) -> Policy:
    """Builds `Policy`; to explore, noise is added, or a discrete action is drawn."""

    def choose(output: jax.Array, key: jax.Array, explore: bool) -> jax.Array:
        if spec.is_discrete:
            return drawn(key, output) if explore else most_likely(output)
        action = jnp.tanh(output)
        if not explore:
            return action
        noise = config.exploration_noise * jax.random.normal(key, action.shape)
        return jnp.clip(action + noise, -1.0, 1.0)

    return make_normalised_policy(make_actor(config.hidden_units, spec, 1), choose)
