"""One update: the policy moves towards the recorded actions."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlcar.agents.bc.settings import BcConfig
from rlcar.agents.normaliser import Moments
from rlcar.agents.offline_learning.imitation import imitation_errors
from rlcar.agents.offline_learning.observations import normalised, standard_moments, with_moments
from rlcar.agents.q_learning.networks import Network, make_actor
from rlcar.agents.q_learning.transitions import Transitions, transitions_of
from rlcar.types import Batch, Learner, Metrics, Params, Spec


class TrainState(NamedTuple):
    """Everything that learning changes."""

    actor: Params
    optimizer: optax.OptState
    moments: Moments  # of the observations in the data
    train_steps: jax.Array  # [] int32


def make_learner(config: BcConfig, spec: Spec) -> Learner:
    """Builds a `Learner` for continuous or discrete actions."""
    actor = make_actor(config.hidden_units, spec, 1)
    optimizer = optax.adam(config.learning_rate)
    loss = partial(imitation_loss, actor, spec.is_discrete)

    def init(seed: int) -> TrainState:
        params = actor.init(jax.random.PRNGKey(seed))
        steps = jnp.zeros((), jnp.int32)
        return TrainState(params, optimizer.init(params), standard_moments(spec), steps)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        transitions = normalised(state.moments, transitions_of(batch))
        value, gradients = jax.value_and_grad(loss)(state.actor, transitions)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer)
        params = optax.apply_updates(state.actor, updates)
        metrics = {"actor/loss": value, "optimizer/gradient_norm": optax.tree.norm(gradients)}
        state = TrainState(params, optimizer_state, state.moments, state.train_steps + 1)
        return state, metrics

    def update(state: TrainState, batches: Batch) -> tuple[TrainState, Metrics]:
        state, metrics = jax.lax.scan(train_step, state, batches)
        return state, jax.tree.map(jnp.mean, metrics)

    return Learner(
        jax.jit(init),
        jax.jit(update, donate_argnums=0),
        lambda state: {"actor": state.actor, "moments": state.moments},
        with_moments=with_moments,
    )


def imitation_loss(
    actor: Network, is_discrete: bool, params: Params, transitions: Transitions
) -> jax.Array:
    """Returns the mean squared error of actions, summed over their numbers.

    For discrete actions it is the mean cross-entropy.
    """
    output = actor.apply(params, transitions.observation)
    errors = imitation_errors(output, transitions.action, is_discrete)
    return jnp.sum(transitions.weight * errors)
