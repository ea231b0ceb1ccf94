"""Acting: a squashed normal distribution, or the discrete action of the highest value."""

import jax
import jax.numpy as jnp

from rlcar.agents.cql.networks import make_discrete_critics
from rlcar.agents.cql.settings import CqlConfig
from rlcar.agents.offline_learning.policy import make_normalised_policy, most_likely
from rlcar.agents.q_learning.networks import make_actor
from rlcar.agents.q_learning.squashed_normal import squashed_mode, squashed_sample
from rlcar.types import Policy, Spec


def make_policy(config: CqlConfig, spec: Spec) -> Policy:
    """Builds `Policy`; to explore, it samples, or sometimes takes a random discrete action."""

    def choose(output: jax.Array, key: jax.Array, explore: bool) -> jax.Array:
        if not explore:
            return squashed_mode(output)
        noise = jax.random.normal(key, (*output.shape[:-1], spec.action_size))
        return squashed_sample(output, noise)[0]

    def choose_discrete(values: jax.Array, key: jax.Array, explore: bool) -> jax.Array:
        best = most_likely(values.min(axis=0))
        if not explore:
            return best
        which_key, action_key = jax.random.split(key)
        is_random = jax.random.bernoulli(which_key, config.exploration, best.shape[:-1])
        action = jax.random.randint(action_key, best.shape[:-1], 0, spec.action_size)
        return jnp.where(is_random[..., None], jax.nn.one_hot(action, spec.action_size), best)

    if spec.is_discrete:
        critics = make_discrete_critics(config.hidden_units, spec)
        return make_normalised_policy(critics, choose_discrete)
    return make_normalised_policy(make_actor(config.hidden_units, spec, 2), choose)
