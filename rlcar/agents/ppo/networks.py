"""Policy and value, behind a shared encoder of images and a GRU if there are such.

Without images each of the two is a small network of its own.
"""

from collections.abc import Callable
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from rlcar.agents.gaussian import HALF_LOG_TWO_PI, UNIT_ENTROPY
from rlcar.agents.ppo.images import encode_image, orthogonal
from rlcar.agents.ppo.settings import PpoConfig
from rlcar.types import Params, Spec


class Output(NamedTuple):
    """The outputs of the networks for N observations."""

    head: jax.Array  # [N, A] mean of the action, or its logits
    log_deviation: jax.Array  # [A], unused where actions are discrete
    value: jax.Array  # [N]


class Networks(NamedTuple):
    """Pure functions of one `params`; the memory has the shape `[N, recurrent_units]`."""

    init: Callable  # (key) -> params
    initial_memory: Callable  # (number) -> memory
    # (params, memory, observation [N, O], is_first [N], image or None) -> (memory, Output)
    step: Callable


def make_networks(config: PpoConfig, spec: Spec) -> Networks:
    """Builds the networks; their initial weights are orthogonal, as in Stable-Baselines3."""
    units, memory_units = config.hidden_units, config.recurrent_units
    # The encoder of images is deep enough, and policy and value share it (Mnih et al. 2016).
    hidden_layers = 2 if spec.image_shape is None else 0

    def tower(x: jax.Array, size: int, gain: float, name: str) -> jax.Array:
        for layer in range(hidden_layers):
            linear = hk.Linear(units, w_init=orthogonal(2**0.5), name=f"{name}_{layer}")
            x = jnp.tanh(linear(x))
        return hk.Linear(size, w_init=orthogonal(gain), name=f"{name}_out")(x)

    def forward(
        memory: jax.Array,
        observation: jax.Array,
        is_first: jax.Array,
        image: jax.Array | None = None,
    ) -> tuple[jax.Array, Output]:
        x = observation
        if image is not None:
            x = jnp.concatenate([encode_image(image, config.image_units), x], axis=-1)
        if memory_units:
            embedded = jnp.tanh(hk.Linear(units, w_init=orthogonal(2**0.5), name="embed")(x))
            memory = jnp.where(is_first[:, None], 0.0, memory)
            remembered, memory = hk.GRU(memory_units, name="gru")(embedded, memory)
            x = jnp.concatenate([remembered, x], axis=-1)
        first = hk.initializers.Constant(config.initial_log_deviation)
        log_deviation = hk.get_parameter("log_deviation", [spec.action_size], init=first)
        head = tower(x, spec.action_size, 0.01, "policy")
        return memory, Output(head, log_deviation, tower(x, 1, 1.0, "value")[..., 0])

    transformed = hk.without_apply_rng(hk.transform(forward))

    def initial_memory(number: int) -> jax.Array:
        return jnp.zeros((number, memory_units))

    def init(key: jax.Array) -> Params:
        observation = jnp.zeros((1, spec.observation_size))
        image = None if spec.image_shape is None else jnp.zeros((1, *spec.image_shape), jnp.uint8)
        return transformed.init(key, initial_memory(1), observation, jnp.zeros(1, bool), image)

    return Networks(init, initial_memory, transformed.apply)


class Distribution(NamedTuple):
    """Pure functions of an `Output`."""

    sample: Callable  # (output, key) -> action [N, A]
    mode: Callable  # (output) -> action [N, A]
    log_prob: Callable  # (output, action) -> [N]
    entropy: Callable  # (output) -> [N]


def make_distribution(spec: Spec) -> Distribution:
    """Builds a normal whose deviation is the same in every state, or one-hot actions."""
    if spec.is_discrete:
        return Distribution(
            lambda out, key: jax.nn.one_hot(
                jax.random.categorical(key, out.head), spec.action_size
            ),
            lambda out: jax.nn.one_hot(jnp.argmax(out.head, axis=-1), spec.action_size),
            lambda out, action: jnp.sum(jax.nn.log_softmax(out.head) * action, axis=-1),
            lambda out: -jnp.sum(jax.nn.softmax(out.head) * jax.nn.log_softmax(out.head), axis=-1),
        )

    def log_deviation_of(out: Output) -> jax.Array:
        return jnp.broadcast_to(out.log_deviation, out.head.shape)

    def sample(out: Output, key: jax.Array) -> jax.Array:
        return out.head + jnp.exp(log_deviation_of(out)) * jax.random.normal(key, out.head.shape)

    def log_prob(out: Output, action: jax.Array) -> jax.Array:
        z = (action - out.head) * jnp.exp(-log_deviation_of(out))
        return jnp.sum(-0.5 * jnp.square(z) - log_deviation_of(out) - HALF_LOG_TWO_PI, axis=-1)

    def entropy(out: Output) -> jax.Array:
        return jnp.sum(log_deviation_of(out) + UNIT_ENTROPY, axis=-1)

    return Distribution(sample, lambda out: out.head, log_prob, entropy)
