"""Recurrent state-space model: one step of dynamics, posterior and prior (Haiku modules)."""

from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from rlcar.agents.dreamer.distributions import sample_one_hot, straight_through, unimix
from rlcar.agents.dreamer.layers import BlockGru, Linear, NormedLinear
from rlcar.agents.dreamer.settings import WorldModelConfig
from rlcar.devices.data_parallel import draw_for_rows
from rlcar.types import Params

_POSTERIOR_IN = "rssm/~posterior/posterior_in"


class RssmState(NamedTuple):
    """The model's belief about each car."""

    recurrent: jax.Array  # [N, D] deterministic, h
    latent: jax.Array  # [N, S * K] stochastic, z: S one-hot vectors side by side


def initial_state(config: WorldModelConfig, number: int) -> RssmState:
    """Returns the belief before any observation."""
    latent_size = config.latent_groups * config.latent_classes
    return RssmState(jnp.zeros((number, config.recurrent_units)), jnp.zeros((number, latent_size)))


def feature_size(config: WorldModelConfig) -> int:
    """Returns F, the width of recurrent and latent state together: the input of every head."""
    return config.recurrent_units + config.latent_groups * config.latent_classes


def remembered(config: WorldModelConfig, recurrent: jax.Array) -> jax.Array:
    """Returns the recurrent state that a belief keeps; zeros for a model without memory."""
    return recurrent if config.has_memory else jnp.zeros_like(recurrent)


class Rssm(hk.Module):
    """h' = f(h, z, a);  z ~ q(z | h, x) with an observation, z ~ p(z | h) without  (Eq. 1, 3)."""

    def __init__(self, config: WorldModelConfig):
        super().__init__(name="rssm")
        self._config = config

    @hk.experimental.name_like("advance")  # keeps the names of the parameters in all checkpoints
    def encode_action(self, action: jax.Array) -> jax.Array:
        """Returns the input `[N, hidden]` of `advance` for an `action [N, A]`."""
        # The environment clips actions, so the model must see the clipped ones.
        return NormedLinear(self._config.hidden_units, "action_in")(jnp.clip(action, -1.0, 1.0))

    def advance(self, state: RssmState, encoded_action: jax.Array) -> jax.Array:
        """Returns the next recurrent state `[N, D]`."""
        hidden = self._config.hidden_units
        shared = jnp.concatenate(
            [
                NormedLinear(hidden, "recurrent_in")(state.recurrent),
                NormedLinear(hidden, "latent_in")(state.latent),
                encoded_action,
            ],
            axis=-1,
        )
        gru = BlockGru(self._config.recurrent_units, self._config.recurrent_blocks, "gru")
        return gru(state.recurrent, shared)

    def posterior(
        self, recurrent: jax.Array, *embedding: jax.Array, entry: jax.Array | None = None
    ) -> jax.Array:
        """Log-probabilities `[N, S, K]` of z given the observation's `embedding [N, E]`; or given
        `entry [N, hidden]`, its product with the first layer's weights: see `split_posterior`.
        """
        layer = NormedLinear(self._config.hidden_units, "posterior_in")
        return self._logits(layer(recurrent, *embedding, entry=entry), "posterior_out")

    def prior(self, recurrent: jax.Array) -> jax.Array:
        """Log-probabilities `[N, S, K]` of z without an observation."""
        hidden = NormedLinear(self._config.hidden_units, "prior_in")(recurrent)
        hidden = NormedLinear(self._config.hidden_units, "prior_hidden")(hidden)
        return self._logits(hidden, "prior_out")

    def _logits(self, hidden: jax.Array, name: str) -> jax.Array:
        groups, classes = self._config.latent_groups, self._config.latent_classes
        logits = Linear(groups * classes, name)(hidden).reshape(-1, groups, classes)
        return unimix(logits, self._config.unimix)


def split_posterior(params: Params, recurrent_units: int) -> tuple[Params, jax.Array]:
    """Removes the weights `[E, hidden]` for the embedding from a posterior's parameters.

    Their product with all embeddings can be computed at once, before the filter starts.
    """
    layer = params[_POSTERIOR_IN]
    recurrent_weight, embedding_weight = jnp.split(layer["w"], [recurrent_units], axis=0)
    return params | {_POSTERIOR_IN: layer | {"w": recurrent_weight}}, embedding_weight


def latent_noise(key: jax.Array, groups: int, rows: tuple[int, ...]) -> jax.Array:
    """Returns the uniform numbers `[..., B, S]` that draw the latents of `rows [..., B]`."""
    return draw_for_rows(lambda rows: jax.random.uniform(key, (*rows, groups)), rows)


def draw_latent(log_probabilities: jax.Array, uniform: jax.Array) -> jax.Array:
    """Samples latents `[N, S * K]` from `[N, S, K]` with uniform numbers `[N, S]`."""
    return sample_one_hot(log_probabilities, uniform).reshape(uniform.shape[0], -1)


def sample_latent(log_probabilities: jax.Array, uniform: jax.Array) -> jax.Array:
    """Samples as `draw_latent` does, with straight-through gradients."""
    sample = straight_through(sample_one_hot(log_probabilities, uniform), log_probabilities)
    return sample.reshape(sample.shape[0], -1)


def most_likely_latent(log_probabilities: jax.Array) -> jax.Array:
    """Returns the mode of each group: `[N, S, K]` to `[N, S * K]`."""
    one_hot = jax.nn.one_hot(jnp.argmax(log_probabilities, -1), log_probabilities.shape[-1])
    return one_hot.reshape(one_hot.shape[0], -1)
