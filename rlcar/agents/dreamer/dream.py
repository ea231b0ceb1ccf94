"""Predictions of the world model: open-loop imagination from a belief."""

from typing import Any

import jax
import jax.numpy as jnp

from rlcar.agents.dreamer.actor_critic import make_actor_critic
from rlcar.agents.dreamer.distributions import symexp, two_hot_mean
from rlcar.agents.dreamer.learner import TrainState, policy_part
from rlcar.agents.dreamer.policy import PolicyCarry
from rlcar.agents.dreamer.rssm import (
    RssmState,
    draw_latent,
    feature_size,
    most_likely_latent,
    remembered,
)
from rlcar.agents.dreamer.settings import DreamerConfig
from rlcar.agents.dreamer.world_model import features, make_world_model
from rlcar.agents.dreams import Dream, Dreamer, DreamSupport
from rlcar.types import Array, Params, Spec


def make_dreamer(config: DreamerConfig, spec: Spec) -> Dreamer:
    """Builds the functions; each is compiled at its first call."""
    model = make_world_model(config.world_model, spec)
    networks = make_actor_critic(config.actor_critic, spec, feature_size(config.world_model))
    discount = 1.0 - 1.0 / config.actor_critic.discount_horizon
    groups = config.world_model.latent_groups

    def advance(world: Params, state: RssmState, action: Array, key: Any) -> RssmState:
        recurrent = model.advance(world, state, model.encode_action(world, action))
        prior = model.prior(world, recurrent)
        kept = remembered(config.world_model, recurrent)
        if key is None:
            return RssmState(kept, most_likely_latent(prior))
        uniform = jax.random.uniform(key, (prior.shape[0], groups))
        return RssmState(kept, draw_latent(prior, uniform))

    def predictions(world: Params, states: RssmState, action: Array) -> Dream:
        feature = features(states)
        length, number, size = feature.shape
        flat = feature.reshape(length * number, size)
        observation = symexp(model.decode(world, flat)) / config.world_model.observation_scale
        reward = two_hot_mean(model.reward(world, flat))
        # The continue head has learnt probability times discount: see `world_model_loss`.
        continues = jnp.clip(jax.nn.sigmoid(model.continues(world, flat)) / discount, 0.0, 1.0)
        return Dream(
            observation.reshape(length, number, -1),
            reward.reshape(length, number),
            continues.reshape(length, number),
            action,
        )

    def keys_of(key: Any, length: int) -> Any:
        return None if key is None else jax.random.split(key, length)

    def follow(params: Params, state: RssmState, action: Array, key: Any) -> Dream:
        world = params["world_model"]

        def step(state: RssmState, inputs: tuple) -> tuple[RssmState, RssmState]:
            state = advance(world, state, *inputs)
            return state, state

        _, states = jax.lax.scan(step, state, (action, keys_of(key, action.shape[0])))
        return predictions(world, states, action)

    def imagine(params: Params, state: RssmState, length: int, key: Any) -> Dream:
        world = params["world_model"]

        def step(state: RssmState, key: Any) -> tuple[RssmState, tuple]:
            head = networks.actor(params["actor"], features(state))
            action = networks.distribution.mode(head)
            state = advance(world, state, action, key)
            return state, (state, action)

        _, (states, action) = jax.lax.scan(step, state, keys_of(key, length), length)
        return predictions(world, states, action)

    return Dreamer(jax.jit(follow), jax.jit(imagine, static_argnums=2))


def _params_of(state: TrainState) -> Params:
    """Returns the running average: noise of the newest parameters adds a fifth to the error."""
    return state.average


def _belief_of(carry: PolicyCarry) -> RssmState:
    return carry.state


def _with_action(carry: PolicyCarry, action: Array) -> PolicyCarry:
    return carry._replace(action=action)


def _latent_of(config: DreamerConfig, carry: PolicyCarry) -> Array:
    latent = carry.state.latent
    return latent.reshape(latent.shape[0], config.world_model.latent_groups, -1)


DREAM_SUPPORT = DreamSupport(
    make_dreamer, _params_of, policy_part, _belief_of, _with_action, _latent_of
)
