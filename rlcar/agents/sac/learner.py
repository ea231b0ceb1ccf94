"""One update of critics, actor and temperature."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlcar.agents.q_learning.networks import Network, make_actor, make_critics
from rlcar.agents.q_learning.transitions import transitions_of
from rlcar.agents.sac.policy import sample
from rlcar.agents.sac.settings import SacConfig
from rlcar.types import Batch, Learner, Metrics, Params, Spec


class TrainState(NamedTuple):
    """Everything that learning changes."""

    params: Params  # {"actor", "critics", "log_temperature"}
    slow_critics: Params
    optimizer: optax.OptState
    key: jax.Array  # legacy uint32[2]
    train_steps: jax.Array  # [] int32


def make_learner(config: SacConfig, spec: Spec) -> Learner:
    """Builds an off-policy `Learner` for continuous actions."""
    actor = make_actor(config.hidden_units, spec, 2)
    critics = make_critics(config.hidden_units, spec)
    optimizer = optax.adam(config.learning_rate)
    target_entropy = config.target_entropy
    if target_entropy is None:
        target_entropy = -float(spec.action_size)
    loss = partial(_loss, config, actor, critics, target_entropy)

    def init(seed: int) -> TrainState:
        key, actor_key, critic_key = jax.random.split(jax.random.PRNGKey(seed), 3)
        params = {
            "actor": actor.init(actor_key),
            "critics": critics.init(critic_key),
            "log_temperature": jnp.asarray(math.log(config.initial_temperature), jnp.float32),
        }
        slow_critics = jax.tree.map(jnp.copy, params["critics"])
        steps = jnp.zeros((), jnp.int32)
        return TrainState(params, slow_critics, optimizer.init(params), key, steps)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key, loss_key = jax.random.split(state.key)
        gradients, metrics = jax.grad(loss, has_aux=True)(state.params, state, batch, loss_key)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        slow = optax.incremental_update(params["critics"], state.slow_critics, config.slow_rate)
        metrics["optimizer/gradient_norm"] = optax.tree.norm(gradients)
        return TrainState(params, slow, optimizer_state, key, state.train_steps + 1), metrics

    def update(state: TrainState, batches: Batch) -> tuple[TrainState, Metrics]:
        state, metrics = jax.lax.scan(train_step, state, batches)
        return state, jax.tree.map(jnp.mean, metrics)

    return Learner(
        jax.jit(init), jax.jit(update, donate_argnums=0), lambda state: state.params["actor"]
    )


def _loss(
    config: SacConfig,
    actor: Network,
    critics: Network,
    target_entropy: float,
    params: Params,
    state: TrainState,
    batch: Batch,
    key: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """Returns the sum of the losses of critics, actor and temperature; the key is consumed."""
    frozen = jax.lax.stop_gradient(params)
    now_key, next_key = jax.random.split(key)
    transitions = transitions_of(batch, config.discount, config.return_steps)
    temperature = jnp.exp(frozen["log_temperature"])

    # Critics (Eq. 5 to 7); the target uses the lower value of the two slow critics.
    action, log_prob = sample(actor, frozen["actor"], transitions.next_observation, next_key)
    next_value = critics.apply(state.slow_critics, transitions.next_observation, action).min(axis=0)
    target = config.reward_scale * transitions.reward + config.discount * transitions.continues * (
        next_value - temperature * log_prob
    )
    value = critics.apply(params["critics"], transitions.observation, transitions.action)
    critic_loss = 0.5 * jnp.sum(transitions.weight[None] * jnp.square(value - target[None]))

    # Actor (Eq. 9) and temperature (Haarnoja et al. 2019, Eq. 18).
    action, log_prob = sample(actor, params["actor"], transitions.observation, now_key)
    score = critics.apply(frozen["critics"], transitions.observation, action).min(axis=0)
    actor_loss = jnp.sum(transitions.weight * (temperature * log_prob - score))
    surplus = jax.lax.stop_gradient(jnp.sum(transitions.weight * log_prob) + target_entropy)
    temperature_loss = -params["log_temperature"] * surplus
    return critic_loss + actor_loss + temperature_loss, {
        "critic/loss": critic_loss,
        "critic/value": jnp.sum(transitions.weight * value[0]),
        "actor/loss": actor_loss,
        "actor/entropy": -jnp.sum(transitions.weight * log_prob),
        "actor/temperature": temperature,
    }
