"""Acting: a normal distribution squashed by tanh; without exploration, the tanh of its mean."""

from typing import Any

import jax

from rlcar.agents.q_learning.networks import Network, make_actor
from rlcar.agents.q_learning.squashed_normal import squashed_mode, squashed_sample
from rlcar.agents.sac.settings import SacConfig
from rlcar.types import Array, Params, Policy, Spec, TimeStep


def make_policy(config: SacConfig, spec: Spec) -> Policy:
    """Builds `Policy` for continuous actions."""
    actor = make_actor(config.hidden_units, spec, 2)

    def act(
        params: Params, carry: Any, time_step: TimeStep, key: jax.Array, explore: bool
    ) -> tuple[Any, Array]:
        if explore:
            return carry, sample(actor, params, time_step.observation, key)[0]
        return carry, squashed_mode(actor.apply(params, time_step.observation))

    return Policy(lambda number: (), act)


def sample(
    actor: Network, params: Params, observation: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns actions `[N, A]` and their log-densities `[N]`."""
    output = actor.apply(params, observation)
    shape = (*output.shape[:-1], output.shape[-1] // 2)
    return squashed_sample(output, jax.random.normal(key, shape))
