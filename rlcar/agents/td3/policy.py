"""Acting: a deterministic action, with noise for exploration (Fujimoto et al. 2018, Sec. 6.1)."""

from typing import Any

import jax
import jax.numpy as jnp

from rlcar.agents.q_learning.networks import make_actor
from rlcar.agents.td3.settings import Td3Config
from rlcar.types import Array, Params, Policy, Spec, TimeStep


def make_policy(config: Td3Config, spec: Spec) -> Policy:
    """Builds `Policy` for continuous actions."""
    actor = make_actor(config.hidden_units, spec, 1)

    def act(
        params: Params, carry: Any, time_step: TimeStep, key: jax.Array, explore: bool
    ) -> tuple[Any, Array]:
        action = jnp.tanh(actor.apply(params, time_step.observation))
        if explore:
            noise = config.exploration_noise * jax.random.normal(key, action.shape)
            action = jnp.clip(action + noise, -1.0, 1.0)
        return carry, action

    return Policy(lambda number: (), act, starts_with_random_actions=True)
