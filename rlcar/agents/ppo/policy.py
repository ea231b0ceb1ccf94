"""Acting: the normalised observation, the memory, the policy network.

The carry `[N, recurrent_units + 1]` holds the memory and the log-probability of the last action.
The learner reads both, because a block may begin within an episode, and may have been driven with
older parameters.
"""

import jax
import jax.numpy as jnp

from rlcar.agents.normaliser import normalise
from rlcar.agents.ppo.networks import make_distribution, make_networks
from rlcar.agents.ppo.settings import PpoConfig
from rlcar.types import Array, Params, Policy, Spec, TimeStep


def make_policy(config: PpoConfig, spec: Spec) -> Policy:
    """Builds `Policy`. It does not clip actions, because the learner needs the sampled ones."""
    networks = make_networks(config, spec)
    distribution = make_distribution(spec)

    def act(
        params: Params, carry: jax.Array, time_step: TimeStep, key: jax.Array, explore: bool
    ) -> tuple[jax.Array, Array]:
        observation = normalise(params["moments"], time_step.observation)
        memory, output = networks.step(
            params["networks"], carry[:, :-1], observation, time_step.is_first, time_step.image
        )
        action = distribution.sample(output, key) if explore else distribution.mode(output)
        log_prob = distribution.log_prob(output, action)
        return jnp.concatenate([memory, log_prob[:, None]], axis=1), action

    size = config.recurrent_units + 1
    return Policy(lambda number: jnp.zeros((number, size)), act, carry_size=size)
