"""The world model: pure functions of its parameters, and the filter of a batch."""

from collections.abc import Callable
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from rlcar.agents.dreamer.distributions import (
    TWO_HOT_BINS,
    symlog,
)
from rlcar.agents.dreamer.images import ImageDecoder, ImageEncoder
from rlcar.agents.dreamer.layers import Linear, Mlp, init_with_one_draw
from rlcar.agents.dreamer.products import product
from rlcar.agents.dreamer.rssm import (
    Rssm,
    RssmState,
    initial_state,
    latent_noise,
    remembered,
    sample_latent,
    split_posterior,
)
from rlcar.agents.dreamer.settings import WorldModelConfig
from rlcar.agents.dreamer.time_scan import time_scan
from rlcar.types import Batch, Params, Spec


class WorldModel(NamedTuple):
    """Pure functions that share one `params`; `params` is always the first argument."""

    init: Callable  # (key) -> params
    encode: Callable  # (params, observation [N, O], image [N, *image_shape] | None) -> [N, E]
    encode_action: Callable  # (params, action [N, A]) -> [N, hidden]
    advance: Callable  # (params, RssmState, encoded action) -> recurrent [N, D]
    posterior: Callable  # (params, recurrent, embedding) -> log-probabilities [N, S, K]
    prior: Callable  # (params, recurrent) -> log-probabilities [N, S, K]
    decode: Callable  # (params, feature [..., F]) -> symlog observation [..., O]
    decode_image: Callable  # (params, feature [N, F]) -> image [N, *image_shape], 0..1
    # Instead of the feature both accept `entry=`, its product with their first weights.
    reward: Callable  # (params, feature) -> two-hot logits [..., 255]
    continues: Callable  # (params, feature) -> logit [...]


def make_world_model(config: WorldModelConfig, spec: Spec) -> WorldModel:
    """Builds the networks; this is the only place that composes their Haiku modules."""

    def build() -> tuple:
        rssm = Rssm(config)
        encoder = Mlp(config.units, config.encoder_layers, "encoder")
        decoder = Mlp(config.units, config.decoder_layers, "decoder")
        observation_out = Linear(spec.observation_size, "observation_out")
        reward_in = Mlp(config.units, 1, "reward")
        # The initial reward is zero everywhere, which avoids wild early predictions (Methods).
        reward_out = Linear(TWO_HOT_BINS, "reward_out", scale=0.0)
        continue_in = Mlp(config.units, 1, "continue")
        continue_out = Linear(1, "continue_out")

        image_shape = spec.image_shape or (0, 0, 0)
        image_encoder = ImageEncoder(config.image_depth)
        decode_image = ImageDecoder(config.image_depth, image_shape)

        def encode(observation: jax.Array, image: jax.Array | None = None) -> jax.Array:
            parts = []
            if spec.observation_size:
                parts.append(encoder(symlog(config.observation_scale * observation)))
            if spec.image_shape is not None:
                parts.append(image_encoder(jnp.asarray(image)))
            return jnp.concatenate(parts, axis=-1)

        def decode(feature: jax.Array) -> jax.Array:
            if not spec.observation_size:
                return jnp.zeros((*feature.shape[:-1], 0))
            return observation_out(decoder(feature))

        def reward(*feature: jax.Array, entry: jax.Array | None = None) -> jax.Array:
            return reward_out(reward_in(*feature, entry=entry))

        def continues(*feature: jax.Array, entry: jax.Array | None = None) -> jax.Array:
            return continue_out(continue_in(*feature, entry=entry))[..., 0]

        def init(observation: jax.Array, image: jax.Array | None, action: jax.Array) -> None:
            state = initial_state(config, observation.shape[0])
            recurrent = rssm.advance(state, rssm.encode_action(action))
            rssm.posterior(recurrent, encode(observation, image))
            rssm.prior(recurrent)
            features = jnp.concatenate([recurrent, state.latent], -1)
            heads: list[Callable] = [decode, reward, continues]
            if spec.image_shape is not None:
                heads.append(decode_image)
            for head in heads:
                head(features)

        dynamics = rssm.encode_action, rssm.advance, rssm.posterior, rssm.prior
        return init, (encode, *dynamics, decode, decode_image, reward, continues)

    transformed = hk.without_apply_rng(hk.multi_transform(build))
    observation = np.zeros((1, spec.observation_size), np.float32)
    image = None if spec.image_shape is None else np.zeros((1, *spec.image_shape), np.uint8)
    dummies = observation, image, np.zeros((1, spec.action_size), np.float32)
    return WorldModel(
        lambda key: init_with_one_draw(transformed.init, key, *dummies), *transformed.apply
    )


def features(state: RssmState) -> jax.Array:
    """Returns the input of every head: `[..., D + S * K]`."""
    return jnp.concatenate([state.recurrent, state.latent], axis=-1)


def observe_step(
    model: WorldModel,
    params: Params,
    state: RssmState,
    action: jax.Array,
    is_first: jax.Array,
) -> jax.Array:
    """Returns the recurrent state `[N, D]` before the next observation is taken into account.

    At an episode's first step the earlier belief and action are replaced by zeros.
    """
    keep = 1.0 - is_first.astype(jnp.float32)[:, None]
    return model.advance(
        params, _multiplied(state, keep), model.encode_action(params, action * keep)
    )


def _multiplied(state: RssmState, keep: jax.Array) -> RssmState:
    return RssmState(state.recurrent * keep, state.latent * keep)


class Observed(NamedTuple):
    """Posterior beliefs along a batch, time-major."""

    state: RssmState  # [T, B, ...]
    posterior: jax.Array  # [T, B, S, K] log-probabilities
    prior: jax.Array  # [T, B, S, K]


def observe(
    model: WorldModel, config: WorldModelConfig, params: Params, batch: Batch, key: jax.Array
) -> Observed:
    """Filters a batch `[B, T, ...]` through the posterior; the key is consumed.

    The state at t depends on observations up to t only.
    """
    size, length = batch.reward.shape
    image = batch.image
    if image is not None:
        image = time_major(image).reshape(length * size, *image.shape[2:])
    observation = time_major(batch.observation)
    embedding = model.encode(
        params, observation.reshape(length * size, observation.shape[-1]), image
    )
    # As `observe_step`, but whatever depends on no belief is computed for all steps at once.
    keep = 1.0 - time_major(batch.is_first).astype(jnp.float32)[..., None]
    action = (time_major(batch.previous_action) * keep).reshape(length * size, -1)
    filter_params, embedding_weight = split_posterior(params, config.recurrent_units)
    precomputed = (
        model.encode_action(params, action),
        product("ni,io->no", embedding, embedding_weight),
    )
    encoded_action, entry = (x.reshape(length, size, -1) for x in precomputed)
    uniform = latent_noise(key, config.latent_groups, (length, size))

    def step(params: Params, state: RssmState, inputs: tuple) -> tuple[RssmState, tuple]:
        encoded_action, keep, entry, uniform = inputs
        predicted = model.advance(params, _multiplied(state, keep), encoded_action)
        recurrent = remembered(config, predicted)
        posterior = model.posterior(params, recurrent, entry=entry)
        state = RssmState(recurrent, sample_latent(posterior, uniform))
        return state, (posterior, None if config.has_memory else predicted)

    start, inputs = initial_state(config, size), (encoded_action, keep, entry, uniform)
    states, (posterior, predicted) = time_scan(step, filter_params, start, inputs)
    predicted = states.recurrent if config.has_memory else predicted
    prior = model.prior(params, predicted.reshape(length * size, -1))
    return Observed(states, posterior, prior.reshape(posterior.shape))


def time_major(x: jax.Array) -> jax.Array:
    """Transposes `[B, T, ...]` to `[T, B, ...]`."""
    return jnp.moveaxis(jnp.asarray(x), 0, 1)
