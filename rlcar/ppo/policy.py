"""Acting: the normalised observation, the memory, the policy network."""

import jax

from rlcar.algorithm_config import PpoConfig
from rlcar.normaliser import normalise
from rlcar.ppo.networks import make_distribution, make_networks
from rlcar.types import Array, Params, Policy, Spec, TimeStep


def make_policy(config: PpoConfig, spec: Spec) -> Policy:
    """Builds `Policy`; the environment clips what it samples, as learning must know the sample."""
    networks = make_networks(config, spec)
    distribution = make_distribution(spec)

    def act(
        params: Params, carry: jax.Array, time_step: TimeStep, key: jax.Array, explore: bool
    ) -> tuple[jax.Array, Array]:
        observation = normalise(params["moments"], time_step.observation)
        carry, output = networks.step(params["networks"], carry, observation, time_step.is_first)
        action = distribution.sample(output, key) if explore else distribution.mode(output)
        return carry, action

    return Policy(networks.initial_memory, act)
