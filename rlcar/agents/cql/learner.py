"""One update of the critics and, for continuous actions, of the actor and the temperature."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlcar.agents.cql.losses import continuous_loss, discrete_loss
from rlcar.agents.cql.networks import make_discrete_critics
from rlcar.agents.cql.settings import CqlConfig
from rlcar.agents.normaliser import Moments
from rlcar.agents.offline_learning.observations import normalised, standard_moments, with_moments
from rlcar.agents.q_learning.networks import make_actor, make_critics
from rlcar.agents.q_learning.transitions import Transitions, transitions_of
from rlcar.types import Batch, Learner, Metrics, Params, Spec


class TrainState(NamedTuple):
    """Everything that learning changes."""

    params: Params  # {"critics"}, and "actor" and "log_temperature" for continuous actions
    slow_critics: Params
    optimizer: optax.OptState
    moments: Moments  # of the observations in the data
    key: jax.Array  # legacy uint32[2]
    train_steps: jax.Array  # [] int32


class _Parts(NamedTuple):
    """What depends on the kind of actions."""

    init: Callable[[jax.Array], Params]  # (key) -> params
    loss: Callable  # (params, slow critics, transitions, key) -> (loss, metrics)
    acting: str  # the entry of params that chooses actions


def make_learner(config: CqlConfig, spec: Spec) -> Learner:
    """Builds an off-policy `Learner` for continuous or discrete actions."""
    parts = _discrete(config, spec) if spec.is_discrete else _continuous(config, spec)
    optimizer = optax.adam(config.learning_rate)

    def init(seed: int) -> TrainState:
        key, init_key = jax.random.split(jax.random.PRNGKey(seed))
        params = parts.init(init_key)
        return TrainState(
            params,
            jax.tree.map(jnp.copy, params["critics"]),
            optimizer.init(params),
            standard_moments(spec),
            key,
            jnp.zeros((), jnp.int32),
        )

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key, loss_key = jax.random.split(state.key)
        transitions = normalised(state.moments, transitions_of(batch))
        gradients, metrics = jax.grad(parts.loss, has_aux=True)(
            state.params, state.slow_critics, transitions, loss_key
        )
        updates, optimizer_state = optimizer.update(gradients, state.optimizer)
        params = optax.apply_updates(state.params, updates)
        slow = optax.incremental_update(params["critics"], state.slow_critics, config.slow_rate)
        metrics["optimizer/gradient_norm"] = optax.tree.norm(gradients)
        steps = state.train_steps + 1
        return TrainState(params, slow, optimizer_state, state.moments, key, steps), metrics

    def update(state: TrainState, batches: Batch) -> tuple[TrainState, Metrics]:
        state, metrics = jax.lax.scan(train_step, state, batches)
        return state, jax.tree.map(jnp.mean, metrics)

    return Learner(
        jax.jit(init),
        jax.jit(update, donate_argnums=0),
        lambda state: {"actor": state.params[parts.acting], "moments": state.moments},
        with_moments=with_moments,
    )


def _continuous(config: CqlConfig, spec: Spec) -> _Parts:
    actor = make_actor(config.hidden_units, spec, 2)
    critics = make_critics(config.hidden_units, spec)
    target_entropy = config.target_entropy
    if target_entropy is None:
        target_entropy = -float(spec.action_size)

    def init(key: jax.Array) -> Params:
        actor_key, critic_key = jax.random.split(key)
        return {
            "actor": actor.init(actor_key),
            "critics": critics.init(critic_key),
            "log_temperature": jnp.asarray(math.log(config.initial_temperature), jnp.float32),
        }

    return _Parts(init, partial(continuous_loss, config, actor, target_entropy), "actor")


def _discrete(config: CqlConfig, spec: Spec) -> _Parts:
    critics = make_discrete_critics(config.hidden_units, spec)

    def loss(
        params: Params, slow_critics: Params, transitions: Transitions, key: jax.Array
    ) -> tuple:
        del key  # nothing is drawn
        return discrete_loss(config, critics, params, slow_critics, transitions)

    return _Parts(lambda key: {"critics": critics.init(key)}, loss, "critics")
