"""The data of one update: a block cut into sequences, with advantages and targets."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcar.agents.normaliser import Moments, normalise, scale_reward, update_moments
from rlcar.agents.ppo.networks import Networks, Output
from rlcar.agents.ppo.settings import PpoConfig
from rlcar.types import Batch, Params


class Sequences(NamedTuple):
    """The inputs of the loss: S sequences of L env steps."""

    memory: jax.Array  # [S, recurrent_units], before the first step
    observation: jax.Array  # [S, L, O] normalised
    is_first: jax.Array  # [S, L]
    action: jax.Array  # [S, L, A]
    log_prob: jax.Array  # [S, L] of the action, by the parameters that chose it
    advantage: jax.Array  # [S, L]
    target: jax.Array  # [S, L] of the value
    weight: jax.Array  # [S, L] 0 where the next step begins another episode, else 1
    image: jax.Array | None = None  # [S, L, height, width, channels] uint8


def unroll(
    networks: Networks,
    params: Params,
    memory: jax.Array,
    observation: jax.Array,
    is_first: jax.Array,
    image: jax.Array | None,
) -> Output:
    """Returns the outputs for `[S, L, ...]`; the memory passes from step to step along L."""

    def step(memory: jax.Array, inputs: tuple) -> tuple[jax.Array, tuple]:
        memory, output = networks.step(params, memory, *inputs)
        return memory, (output.head, output.value)

    inputs = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (observation, is_first, image))
    _, (head, value) = jax.lax.scan(step, memory, inputs)
    log_deviation = params["~"]["log_deviation"]
    return Output(jnp.moveaxis(head, 0, 1), log_deviation, jnp.moveaxis(value, 0, 1))


def sequences_of(
    config: PpoConfig,
    networks: Networks,
    params: Params,
    moments: Moments,
    returns: Moments,
    block: Batch,
) -> tuple[Sequences, Moments]:
    """Makes one sequence `[N, T - 1]` for each car of a block `[N, T]`.

    Also returns the updated moments of discounted returns, by which rewards are scaled.
    """
    observation = normalise(moments, block.observation)
    memory, log_prob = block.carry[:, 0, :-1], block.carry[:, 1:, -1]
    output = unroll(networks, params, memory, observation, block.is_first, block.image)
    returns = update_moments(returns, discounted_returns(block, config.discount))
    reward = scale_reward(returns, block.reward)
    advantage = advantages(config, block, reward, output.value)
    sequences = Sequences(
        memory,
        observation[:, :-1],
        block.is_first[:, :-1],
        block.previous_action[:, 1:],
        log_prob,
        advantage,
        advantage + output.value[:, :-1],
        1.0 - block.is_first[:, 1:].astype(jnp.float32),
        None if block.image is None else block.image[:, :-1],
    )
    return sequences, returns


def single_steps(networks: Networks, sequences: Sequences) -> Sequences:
    """Makes each env step a sequence of its own, for a policy without memory."""
    number = sequences.weight.size
    # The memory of a policy without one has no entries, and no steps to divide.
    steps = sequences._replace(memory=jnp.zeros((*sequences.weight.shape, 0)))
    steps = jax.tree.map(lambda x: x.reshape(number, 1, *x.shape[2:]), steps)
    return steps._replace(memory=networks.initial_memory(number))


def discounted_returns(block: Batch, discount: float) -> jax.Array:
    """Returns the running sums `[N * T]` of discounted past rewards, from the block's start."""

    def step(total: jax.Array, inputs: tuple) -> tuple[jax.Array, jax.Array]:
        reward, is_first = inputs
        total = jnp.where(is_first, 0.0, total * discount + reward)
        return total, total

    start = jnp.zeros(block.reward.shape[0])
    _, totals = jax.lax.scan(step, start, (block.reward.T, block.is_first.T))
    return totals.reshape(-1)


def advantages(config: PpoConfig, block: Batch, reward: jax.Array, value: jax.Array) -> jax.Array:
    """Returns generalised advantages `[N, T - 1]` (Schulman et al. 2016, Eq. 16).

    A time-out is not a terminal state: the value of its last observation counts.
    """

    def step(later: jax.Array, inputs: tuple) -> tuple[jax.Array, jax.Array]:
        reward, is_last, is_terminal, value, next_value = inputs
        error = reward + config.discount * (1.0 - is_terminal) * next_value - value
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
