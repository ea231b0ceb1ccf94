"""One update of the critics, and at every few updates of the actor and the slow copies."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlcar.agents.q_learning.networks import Network, make_actor, make_critics
from rlcar.agents.q_learning.transitions import Transitions, transitions_of
from rlcar.agents.td3.settings import Td3Config
from rlcar.types import Batch, Learner, Metrics, Params, Spec


class TrainState(NamedTuple):
    """Everything that learning changes."""

    actor: Params
    critics: Params
    slow: Params  # {"actor", "critics"}
    actor_optimizer: optax.OptState
    critic_optimizer: optax.OptState
    key: jax.Array  # legacy uint32[2]
    train_steps: jax.Array  # [] int32


def make_learner(config: Td3Config, spec: Spec) -> Learner:
    """Builds an off-policy `Learner` for continuous actions."""
    actor = make_actor(config.hidden_units, spec, 1)
    critics = make_critics(config.hidden_units, spec)
    optimizer = optax.adam(config.learning_rate)
    critics_loss = partial(_critics_loss, config, actor, critics)
    actor_loss = partial(_actor_loss, actor, critics)

    def init(seed: int) -> TrainState:
        key, actor_key, critic_key = jax.random.split(jax.random.PRNGKey(seed), 3)
        actor_params, critics_params = actor.init(actor_key), critics.init(critic_key)
        slow = jax.tree.map(jnp.copy, {"actor": actor_params, "critics": critics_params})
        steps = jnp.zeros((), jnp.int32)
        return TrainState(
            actor_params,
            critics_params,
            slow,
            optimizer.init(actor_params),
            optimizer.init(critics_params),
            key,
            steps,
        )

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key, noise_key = jax.random.split(state.key)
        transitions = transitions_of(batch, config.discount, config.return_steps)
        (error, value), gradients = jax.value_and_grad(critics_loss, has_aux=True)(
            state.critics, state, transitions, noise_key
        )
        updates, critic_optimizer = optimizer.update(gradients, state.critic_optimizer)
        critics_params = optax.apply_updates(state.critics, updates)

        def update_actor(actor_state: tuple) -> tuple:
            actor_params, actor_optimizer, slow = actor_state
            gradients = jax.grad(actor_loss)(actor_params, critics_params, transitions)
            updates, actor_optimizer = optimizer.update(gradients, actor_optimizer)
            actor_params = optax.apply_updates(actor_params, updates)
            newest = {"actor": actor_params, "critics": critics_params}
            return (
                actor_params,
                actor_optimizer,
                optax.incremental_update(newest, slow, config.slow_rate),
            )

        steps = state.train_steps + 1
        actor_state = (state.actor, state.actor_optimizer, state.slow)
        actor_params, actor_optimizer, slow = jax.lax.cond(
            steps % config.policy_delay == 0,
            update_actor,
            lambda actor_state: actor_state,
            actor_state,
        )
        metrics = {
            "critic/loss": error,
            "critic/value": value,
            "optimizer/gradient_norm": optax.tree.norm(gradients),
        }
        state = TrainState(
            actor_params, critics_params, slow, actor_optimizer, critic_optimizer, key, steps
        )
        return state, metrics

    def update(state: TrainState, batches: Batch) -> tuple[TrainState, Metrics]:
        state, metrics = jax.lax.scan(train_step, state, batches)
        return state, jax.tree.map(jnp.mean, metrics)

    return Learner(jax.jit(init), jax.jit(update, donate_argnums=0), lambda state: state.actor)


def _critics_loss(
    config: Td3Config,
    actor: Network,
    critics: Network,
    params: Params,
    state: TrainState,
    transitions: Transitions,
    key: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Returns the critics' error with a smoothed target action, and the mean value (Algorithm 1).

    The target uses the lower value of the two slow critics. The key is consumed.
    """
    action = jnp.tanh(actor.apply(state.slow["actor"], transitions.next_observation))
    noise = config.target_noise * jax.random.normal(key, action.shape)
    noise = jnp.clip(noise, -config.target_noise_limit, config.target_noise_limit)
    action = jnp.clip(action + noise, -1.0, 1.0)
    next_value = critics.apply(state.slow["critics"], transitions.next_observation, action).min(
        axis=0
    )
    target = (
        config.reward_scale * transitions.reward
        + config.discount * transitions.continues * next_value
    )
    value = critics.apply(params, transitions.observation, transitions.action)
    error = jnp.sum(transitions.weight[None] * jnp.square(value - target[None]))
    return error, jnp.sum(transitions.weight * value[0])


def _actor_loss(
    actor: Network,
    critics: Network,
    params: Params,
    critics_params: Params,
    transitions: Transitions,
) -> jax.Array:
    """Returns minus the mean value, by the first critic, of the actor's actions."""
    action = jnp.tanh(actor.apply(params, transitions.observation))
    return -jnp.sum(
        transitions.weight * critics.apply(critics_params, transitions.observation, action)[0]
    )
