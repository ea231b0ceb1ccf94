"""One update: every env step of the newest block, several times over, in minibatches."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlcar.agents.normaliser import (
    Moments,
    initial_moments,
    normalise,
    scale_reward,
    update_moments,
)
from rlcar.agents.ppo.networks import Output, make_distribution, make_networks
from rlcar.agents.ppo.settings import PpoConfig
from rlcar.types import Batch, Learner, Metrics, Params, Spec

_LOG_RATIO_LIMIT = 10.0


class TrainState(NamedTuple):
    """Everything that learning changes."""

    params: Params
    optimizer: Any
    moments: Moments  # of the observations, with which the newest block was driven
    returns: Moments  # of the discounted returns so far
    key: jax.Array  # legacy uint32[2]
    train_steps: jax.Array  # [] int32


class Sequences(NamedTuple):
    """What the loss needs of S sequences of L env steps."""

    memory: jax.Array  # [S, recurrent_units], before the first of them
    observation: jax.Array  # [S, L, O] normalised
    is_first: jax.Array  # [S, L]
    action: jax.Array  # [S, L, A]
    log_prob: jax.Array  # [S, L] of the action when, and with the parameters, it was chosen
    advantage: jax.Array  # [S, L]
    target: jax.Array  # [S, L] of the value
    weight: jax.Array  # [S, L] 0 where the next step began another episode


def make_learner(config: PpoConfig, spec: Spec) -> Learner:
    """Builds an on-policy `Learner`: a batch is the newest block `[N, T]`."""
    networks = make_networks(config, spec)
    distribution = make_distribution(spec)
    optimizer = optax.chain(
        optax.clip_by_global_norm(config.gradient_norm), optax.adam(config.learning_rate, eps=1e-5)
    )

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

    def unroll(
        params: Params, memory: jax.Array, observation: jax.Array, is_first: jax.Array
    ) -> Output:
        """Returns the output for `[S, L, ...]`, remembering along L."""

        def step(memory: jax.Array, inputs: tuple) -> tuple[jax.Array, tuple]:
            memory, output = networks.step(params, memory, *inputs)
            return memory, (output.head, output.value)

        inputs = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (observation, is_first))
        _, (head, value) = jax.lax.scan(step, memory, inputs)
        log_deviation = params["~"]["log_deviation"]
        return Output(jnp.moveaxis(head, 0, 1), log_deviation, jnp.moveaxis(value, 0, 1))

    def loss(params: Params, sequences: Sequences) -> tuple[jax.Array, Metrics]:
        output = unroll(params, sequences.memory, sequences.observation, sequences.is_first)
        weight = sequences.weight / jnp.maximum(sequences.weight.sum(), 1.0)
        log_ratio = distribution.log_prob(output, sequences.action) - sequences.log_prob
        # An action that an older policy held for impossible is no reason for an infinity.
        log_ratio = jnp.minimum(log_ratio, _LOG_RATIO_LIMIT)
        ratio = jnp.exp(log_ratio)
        mean = jnp.sum(weight * sequences.advantage)
        variance = jnp.sum(weight * jnp.square(sequences.advantage - mean))
        advantage = (sequences.advantage - mean) / (jnp.sqrt(variance) + 1e-8)
        clipped = jnp.clip(ratio, 1.0 - config.clip_ratio, 1.0 + config.clip_ratio)
        policy_loss = -jnp.sum(weight * jnp.minimum(advantage * ratio, advantage * clipped))
        value_loss = jnp.sum(weight * jnp.square(output.value - sequences.target))
        entropy = jnp.sum(weight * distribution.entropy(output))
        total = policy_loss + config.value_scale * value_loss - config.entropy_scale * entropy
        return total, {
            "actor/loss": policy_loss,
            "actor/entropy": entropy,
            "actor/kl": jnp.sum(weight * (ratio - 1.0 - log_ratio)),  # Schulman's k3 estimate
            "actor/clipped_share": jnp.sum(weight * (jnp.abs(ratio - 1.0) > config.clip_ratio)),
            "critic/loss": value_loss,
        }

    def minibatch_step(carry: tuple, sequences: Sequences) -> tuple[tuple, Metrics]:
        params, optimizer_state = carry
        gradients, metrics = jax.grad(loss, has_aux=True)(params, sequences)
        updates, optimizer_state = optimizer.update(gradients, optimizer_state, params)
        metrics["optimizer/gradient_norm"] = optax.tree.norm(gradients)
        return (optax.apply_updates(params, updates), optimizer_state), metrics

    def train_step(state: TrainState, block: Batch) -> tuple[TrainState, Metrics]:
        observation = normalise(state.moments, block.observation)
        memory, log_prob = block.carry[:, 0, :-1], block.carry[:, 1:, -1]
        output = unroll(state.params, memory, observation, block.is_first)
        returns = update_moments(state.returns, _discounted_returns(block, config.discount))
        reward = scale_reward(returns, block.reward)
        advantage = _advantages(config, block, reward, output.value)
        sequences = Sequences(
            memory,
            observation[:, :-1],
            block.is_first[:, :-1],
            block.previous_action[:, 1:],
            log_prob,
            advantage,
            advantage + output.value[:, :-1],
            1.0 - block.is_first[:, 1:].astype(jnp.float32),
        )
        if not config.recurrent_units:  # every env step is a sequence of its own
            sequences = jax.tree.map(lambda x: x.reshape(-1, 1, *x.shape[2:]), sequences)
            sequences = sequences._replace(memory=networks.initial_memory(len(sequences.weight)))
        number, length = sequences.weight.shape
        size = max(1, min(number, config.minibatch_size // length))
        key, shuffle_key = jax.random.split(state.key)

        def epoch(carry: tuple, key: jax.Array) -> tuple[tuple, Metrics]:
            order = jax.random.permutation(key, number)[: number // size * size]
            shuffled = jax.tree.map(
                lambda x: x[order].reshape(number // size, size, *x.shape[1:]), sequences
            )
            return jax.lax.scan(minibatch_step, carry, shuffled)

        (params, optimizer_state), metrics = jax.lax.scan(
            epoch, (state.params, state.optimizer), jax.random.split(shuffle_key, config.epochs)
        )
        metrics = jax.tree.map(jnp.mean, metrics)
        metrics["critic/explained_variance"] = 1.0 - jnp.var(advantage) / (
            jnp.var(sequences.target) + 1e-8
        )
        moments = update_moments(
            state.moments, block.observation.reshape(-1, spec.observation_size)
        )
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
    )


def _discounted_returns(block: Batch, discount: float) -> jax.Array:
    """Returns the running sums `[N * T]` of discounted past rewards, from the block's start."""

    def step(total: jax.Array, inputs: tuple) -> tuple[jax.Array, jax.Array]:
        reward, is_first = inputs
        total = jnp.where(is_first, 0.0, total * discount + reward)
        return total, total

    start = jnp.zeros(block.reward.shape[0])
    _, totals = jax.lax.scan(step, start, (block.reward.T, block.is_first.T))
    return totals.reshape(-1)


def _advantages(config: PpoConfig, block: Batch, reward: jax.Array, value: jax.Array) -> jax.Array:
    """Generalised advantages of the steps `[N, T - 1]` (Schulman et al. 2016, Eq. 16).

    A time-out is not a terminal state: its last observation's value counts.
    """

    def step(later: jax.Array, inputs: tuple) -> tuple[jax.Array, jax.Array]:
        reward, is_last, is_terminal, now, then = inputs
        error = reward + config.discount * (1.0 - is_terminal) * then - now
        advantage = error + config.discount * config.lambda_ * (1.0 - is_last) * later
        return advantage, advantage

    columns = (
        reward[:, 1:].T,
        block.is_last[:, 1:].T.astype(jnp.float32),
        block.is_terminal[:, 1:].T.astype(jnp.float32),
        value[:, :-1].T,
        value[:, 1:].T,
    )
    _, advantage = jax.lax.scan(step, jnp.zeros(len(value)), columns, reverse=True)
    return advantage.T
