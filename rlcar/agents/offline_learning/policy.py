"""Acting with an actor whose observations are normalised."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rlcar.agents.normaliser import normalise
from rlcar.agents.q_learning.networks import Network
from rlcar.types import Array, Params, Policy, TimeStep


def make_normalised_policy(
    network: Network, choose: Callable[[jax.Array, jax.Array, bool], jax.Array]
) -> Policy:
    """Builds `Policy`. Its parameters are `{"actor", "moments"}`.

    `choose(output, key, explore)` returns actions `[N, A]` for the network's output `[N, ...]`.
    """

    def act(
        params: Params, carry: Any, time_step: TimeStep, key: jax.Array, explore: bool
    ) -> tuple[Any, Array]:
        observation = normalise(params["moments"], time_step.observation)
        return carry, choose(network.apply(params["actor"], observation), key, explore)

    return Policy(lambda number: (), act)


def most_likely(logits: jax.Array) -> jax.Array:
    """Returns the one-hot action `[..., A]` of the largest of `logits [..., A]`."""
    return jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1])


def drawn(key: jax.Array, logits: jax.Array) -> jax.Array:
    """Draws one-hot actions `[..., A]` from a categorical distribution; the key is consumed."""
    return jax.nn.one_hot(jax.random.categorical(key, logits), logits.shape[-1])
