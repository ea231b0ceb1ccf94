"""One update: several passes over all env steps of the newest block, in minibatches."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlcar.agents.normaliser import Moments, initial_moments, update_moments
from rlcar.agents.ppo.loss import ppo_loss
from rlcar.agents.ppo.networks import make_distribution, make_networks
from rlcar.agents.ppo.sequences import Sequences, sequences_of, single_steps
from rlcar.agents.ppo.settings import PpoConfig
from rlcar.types import Batch, Learner, Metrics, Params, Spec


class TrainState(NamedTuple):
    """Everything that learning changes."""

    params: Params
    optimizer: optax.OptState
    moments: Moments  # of the observations, with which the newest block was driven
    returns: Moments  # of the discounted returns so far
    key: jax.Array  # legacy uint32[2]
    train_steps: jax.Array  # [] int32


def make_learner(config: PpoConfig, spec: Spec) -> Learner:
    """Builds an on-policy `Learner`: a batch is the newest block `[N, T]`."""
    networks = make_networks(config, spec)
    optimizer = optax.chain(
        optax.clip_by_global_norm(config.gradient_norm), optax.adam(config.learning_rate, eps=1e-5)
    )
    loss = partial(ppo_loss, config, networks, make_distribution(spec))
    optimise = partial(_optimise, config, loss, optimizer)

    def init(seed: int) -> TrainState:
        key, init_key = jax.random.split(jax.random.PRNGKey(seed))
        params = networks.init(init_key)
        return TrainState(
            params,
            optimizer.init(params),
            initial_moments((spec.observation_size,)),
            initial_moments(),
            key,
            jnp.zeros((), jnp.int32),
        )

    def train_step(state: TrainState, block: Batch) -> tuple[TrainState, Metrics]:
        sequences, returns = sequences_of(
            config, networks, state.params, state.moments, state.returns, block
        )
        advantage = sequences.advantage
        if not config.recurrent_units:
            sequences = single_steps(networks, sequences)
        key, shuffle_key = jax.random.split(state.key)
        params, optimizer_state, metrics = optimise(
            state.params, state.optimizer, sequences, shuffle_key
        )
        metrics["critic/explained_variance"] = 1.0 - jnp.var(advantage) / (
            jnp.var(sequences.target) + 1e-8
        )
        observation = block.observation.reshape(block.reward.size, spec.observation_size)
        moments = update_moments(state.moments, observation)
        steps = state.train_steps + 1
        return TrainState(params, optimizer_state, moments, returns, key, steps), metrics

    def update(state: TrainState, batches: Batch) -> tuple[TrainState, Metrics]:
        state, metrics = jax.lax.scan(train_step, state, batches)
        return state, jax.tree.map(jnp.mean, metrics)

    return Learner(
        jax.jit(init),
        jax.jit(update, donate_argnums=0),
        lambda state: {"networks": state.params, "moments": state.moments},
        is_on_policy=True,
        moments_of=lambda state: {"observation": state.moments, "return": state.returns},
    )


def _optimise(
    config: PpoConfig,
    loss: Callable[[Params, Sequences], tuple[jax.Array, Metrics]],
    optimizer: optax.GradientTransformation,
    params: Params,
    optimizer_state: optax.OptState,
    sequences: Sequences,
    key: jax.Array,
) -> tuple[Params, optax.OptState, Metrics]:
    """Runs all epochs; the key, which is consumed, shuffles the sequences for each of them."""
    number, length = sequences.weight.shape
    size = max(1, min(number, config.minibatch_size // length))

    def minibatch_step(carry: tuple, sequences: Sequences) -> tuple[tuple, Metrics]:
        params, optimizer_state = carry
        gradients, metrics = jax.grad(loss, has_aux=True)(params, sequences)
        updates, optimizer_state = optimizer.update(gradients, optimizer_state, params)
        metrics["optimizer/gradient_norm"] = optax.tree.norm(gradients)
        return (optax.apply_updates(params, updates), optimizer_state), metrics

    def epoch(carry: tuple, key: jax.Array) -> tuple[tuple, Metrics]:
        order = jax.random.permutation(key, number)[: number // size * size]
        shuffled = jax.tree.map(
            lambda x: x[order].reshape(number // size, size, *x.shape[1:]), sequences
        )
        return jax.lax.scan(minibatch_step, carry, shuffled)

    (params, optimizer_state), metrics = jax.lax.scan(
        epoch, (params, optimizer_state), jax.random.split(key, config.epochs)
    )
    return params, optimizer_state, jax.tree.map(jnp.mean, metrics)
