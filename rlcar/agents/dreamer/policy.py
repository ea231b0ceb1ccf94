"""Acting: updates a belief with each observation, and chooses an action from it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlcar.agents.dreamer.actor_critic import make_actor_critic
from rlcar.agents.dreamer.rssm import (
    RssmState,
    draw_latent,
    feature_size,
    initial_state,
    most_likely_latent,
    remembered,
)
from rlcar.agents.dreamer.settings import DreamerConfig
from rlcar.agents.dreamer.world_model import features, make_world_model, observe_step
from rlcar.types import Array, Params, Policy, Spec, TimeStep


class PolicyCarry(NamedTuple):
    """The policy's memory of each car."""

    state: RssmState
    action: jax.Array  # [N, A], the last action


def make_policy(config: DreamerConfig, spec: Spec) -> Policy:
    """Builds `Policy`; its parameters are those that `learner.policy_part` returns."""
    model = make_world_model(config.world_model, spec)
    networks = make_actor_critic(config.actor_critic, spec, feature_size(config.world_model))
    distribution: Any = networks.distribution

    def initial(number: int) -> PolicyCarry:
        action = jnp.zeros((number, spec.action_size))
        return PolicyCarry(initial_state(config.world_model, number), action)

    def act(
        params: Params, carry: PolicyCarry, time_step: TimeStep, key: jax.Array, explore: bool
    ) -> tuple[PolicyCarry, Array]:
        world = params["world_model"]
        predicted = observe_step(
            model, world, carry.state, carry.action, jnp.asarray(time_step.is_first)
        )
        recurrent = remembered(config.world_model, predicted)
        posterior = model.posterior(
            world, recurrent, model.encode(world, time_step.observation, time_step.image)
        )
        latent_key, action_key = jax.random.split(key)
        if explore:
            uniform = jax.random.uniform(latent_key, posterior.shape[:-1])
            state = RssmState(recurrent, draw_latent(posterior, uniform))
            head = networks.actor(params["actor"], features(state))
            noise = distribution.noise(action_key, head.shape[:-1])
            action = distribution.sample(head, noise)
        else:
            state = RssmState(recurrent, most_likely_latent(posterior))
            action = distribution.mode(networks.actor(params["actor"], features(state)))
        action = action if spec.is_discrete else jnp.clip(action, -1.0, 1.0)
        return PolicyCarry(state, action), action

    def with_action(carry: PolicyCarry, action: Array) -> PolicyCarry:
        return carry._replace(action=jnp.asarray(action))

    return Policy(initial, act, with_action=with_action)
