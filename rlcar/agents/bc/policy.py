"""Acting: the actor's output, limited by tanh, or the most likely of discrete actions."""

import jax
import jax.numpy as jnp

from rlcar.agents.bc.settings import BcConfig
from rlcar.agents.offline_learning.policy import drawn, make_normalised_policy, most_likely
from rlcar.agents.q_learning.networks import make_actor
from rlcar.types import Policy, Spec


def make_policy(config: BcConfig, spec: Spec) -> Policy:
    """Builds `Policy`. Continuous actions are deterministic; discrete ones are drawn to explore."""

    def choose(output: jax.Array, key: jax.Array, explore: bool) -> jax.Array:
        if not spec.is_discrete:
            return jnp.tanh(output)
        return drawn(key, output) if explore else most_likely(output)

    return make_normalised_policy(make_actor(config.hidden_units, spec, 1), choose)
