"""One update of the value of states, the critics and the actor."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlcar.agents.iql.settings import IqlConfig
from rlcar.agents.normaliser import Moments
from rlcar.agents.offline_learning.imitation import imitation_errors
from rlcar.agents.offline_learning.observations import normalised, standard_moments, with_moments
from rlcar.agents.q_learning.networks import Network, make_actor, make_critics
from rlcar.agents.q_learning.transitions import Transitions, transitions_of
from rlcar.types import Batch, Learner, Metrics, Params, Spec


class TrainState(NamedTuple):
    """Everything that learning changes."""

    params: Params  # {"actor", "critics", "value"}
    slow_critics: Params
    optimizer: optax.OptState
    moments: Moments  # of the observations in the data
    train_steps: jax.Array  # [] int32


def make_learner(config: IqlConfig, spec: Spec) -> Learner:
    """Builds an off-policy `Learner`, in which nothing is random."""
    actor = make_actor(config.hidden_units, spec, 1)
    critics = make_critics(config.hidden_units, spec)
    state_value = make_actor(config.hidden_units, spec._replace(action_size=1), 1)
    optimizer = optax.adam(config.learning_rate)
    loss = partial(iql_loss, config, spec.is_discrete, actor, critics, state_value)

    def init(seed: int) -> TrainState:
        keys = jax.random.split(jax.random.PRNGKey(seed), 3)
        params = {
            "actor": actor.init(keys[0]),
            "critics": critics.init(keys[1]),
            "value": state_value.init(keys[2]),
        }
        slow_critics = jax.tree.map(jnp.copy, params["critics"])
        steps = jnp.zeros((), jnp.int32)
        moments = standard_moments(spec)
        return TrainState(params, slow_critics, optimizer.init(params), moments, steps)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        transitions = normalised(state.moments, transitions_of(batch))
        gradients, metrics = jax.grad(loss, has_aux=True)(
            state.params, state.slow_critics, transitions
        )
        updates, optimizer_state = optimizer.update(gradients, state.optimizer)
        params = optax.apply_updates(state.params, updates)
        slow = optax.incremental_update(params["critics"], state.slow_critics, config.slow_rate)
        metrics["optimizer/gradient_norm"] = optax.tree.norm(gradients)
        steps = state.train_steps + 1
        return TrainState(params, slow, optimizer_state, state.moments, steps), metrics

    def update(state: TrainState, batches: Batch) -> tuple[TrainState, Metrics]:
        state, metrics = jax.lax.scan(train_step, state, batches)
        return state, jax.tree.map(jnp.mean, metrics)

    return Learner(
        jax.jit(init),
        jax.jit(update, donate_argnums=0),
        lambda state: {"actor": state.params["actor"], "moments": state.moments},
        with_moments=with_moments,
    )


def iql_loss(
    config: IqlConfig,
    is_discrete: bool,
    actor: Network,
    critics: Network,
    state_value: Network,
    params: Params,
    slow_critics: Params,
    transitions: Transitions,
) -> tuple[jax.Array, Metrics]:
    """Returns the sum of the losses of value, critics and actor (Kostrikov et al. 2022).

    The critics take a discrete action as a one-hot row.
    """
    observation, weight = transitions.observation, transitions.weight
    action = transitions.action

    # Value: an expectile of the lower slow critic over the recorded actions (Eq. 5).
    slow_value = critics.apply(slow_critics, observation, action).min(axis=0)
    advantage = slow_value - state_value.apply(params["value"], observation)[:, 0]
    side = jnp.where(advantage < 0.0, 1.0 - config.expectile, config.expectile)
    value_loss = jnp.sum(weight * side * jnp.square(advantage))

    # Critics (Eq. 6).
    next_value = jax.lax.stop_gradient(
        state_value.apply(params["value"], transitions.next_observation)[:, 0]
    )
    future = config.discount * transitions.continues * next_value
    target = config.reward_scale * transitions.reward + future
    value = critics.apply(params["critics"], observation, action)
    critic_loss = jnp.sum(weight[None] * jnp.square(value - target[None]))

    # Actor: imitation, weighted by the exponential of the advantage (Eq. 7).
    exponent = config.advantage_scale * jax.lax.stop_gradient(advantage)
    advantage_weight = jnp.minimum(jnp.exp(exponent), config.largest_weight)
    error = imitation_errors(actor.apply(params["actor"], observation), action, is_discrete)
    actor_loss = jnp.sum(weight * advantage_weight * error)
    return value_loss + critic_loss + actor_loss, {
        "critic/loss": critic_loss,
        "critic/value": jnp.sum(weight * value[0]),
        "critic/expectile_loss": value_loss,
        "actor/loss": actor_loss,
        "actor/advantage_magnitude": jnp.sum(weight * jnp.abs(advantage)),
    }
