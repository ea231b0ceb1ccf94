"""The world model: pure functions of its parameters, and its loss."""

from collections.abc import Callable
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax

from rlcar.agents.dreamer.distributions import (
    TWO_HOT_BINS,
    categorical_kl,
    symlog,
    two_hot_loss,
    two_hot_mean,
)
from rlcar.agents.dreamer.images import ImageDecoder, ImageEncoder
from rlcar.agents.dreamer.layers import Linear, Mlp, init_with_one_draw
from rlcar.agents.dreamer.products import product
from rlcar.agents.dreamer.rssm import (
    Rssm,
    RssmState,
    draw_latent,
    initial_state,
    latent_noise,
    remembered,
    sample_latent,
    split_posterior,
)
from rlcar.agents.dreamer.settings import WorldModelConfig
from rlcar.agents.dreamer.time_scan import scan, time_scan
from rlcar.types import Batch, Metrics, Params, Spec

_OPEN_LOOP_EVERY = 4  # steps between the starts of open-loop predictions in a window
_DRIFT_EVERY = 3  # steps between those of a prediction that train the dynamics


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
    return model.advance(params, _kept(state, keep), model.encode_action(params, action * keep))


def _kept(state: RssmState, keep: jax.Array) -> RssmState:
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
        image = _time_major(image).reshape(length * size, *image.shape[2:])
    observation = _time_major(batch.observation)
    embedding = model.encode(
        params, observation.reshape(length * size, observation.shape[-1]), image
    )
    # As `observe_step`, but whatever depends on no belief is computed for all steps at once.
    keep = 1.0 - _time_major(batch.is_first).astype(jnp.float32)[..., None]
    action = (_time_major(batch.previous_action) * keep).reshape(length * size, -1)
    inside, seen_weight = split_posterior(params, config.recurrent_units)
    known = model.encode_action(params, action), product("ni,io->no", embedding, seen_weight)
    encoded_action, entry = (x.reshape(length, size, -1) for x in known)
    uniform = latent_noise(key, config.latent_groups, (length, size))

    def step(params: Params, state: RssmState, inputs: tuple) -> tuple[RssmState, tuple]:
        encoded_action, keep, entry, uniform = inputs
        foreseen = model.advance(params, _kept(state, keep), encoded_action)
        recurrent = remembered(config, foreseen)
        posterior = model.posterior(params, recurrent, entry=entry)
        state = RssmState(recurrent, sample_latent(posterior, uniform))
        return state, (posterior, None if config.has_memory else foreseen)

    start, inputs = initial_state(config, size), (encoded_action, keep, entry, uniform)
    states, (posterior, foreseen) = time_scan(step, inside, start, inputs)
    foreseen = states.recurrent if config.has_memory else foreseen
    prior = model.prior(params, foreseen.reshape(length * size, -1))
    return Observed(states, posterior, prior.reshape(posterior.shape))


def open_loop_losses(
    model: WorldModel,
    config: WorldModelConfig,
    params: Params,
    observed: Observed,
    batch: Batch,
    discount: float,
    key: jax.Array,
) -> dict[str, jax.Array]:
    """Returns losses at steps predicted under the actions really taken; the key is consumed.

    Loss of the heads: without it the heads learn from filtered states only. Imagined states, whose
    latent groups are sampled independently, differ from those: crashes that the actor causes are
    not predicted, and the critic overestimates a policy twofold (docs/experiments.md). This is the
    latent overshooting of Hafner et al. 2019 ("Learning latent dynamics for planning from pixels",
    section 4) for the heads alone: with their gradient in the dynamics, policies were unstable.

    Loss of the dynamics: one step from a predicted state should lead to what was really observed,
    so that a prediction that has drifted away returns ("data as demonstrator", Venkatraman et al.
    2015). No gradient flows into earlier steps or into the observed posterior.
    """
    length = min(config.open_loop_length, batch.reward.shape[1] // 2)
    starts = jnp.arange(0, batch.reward.shape[1] - length, _OPEN_LOOP_EVERY)
    ahead = starts[None, :] + jnp.arange(1, length + 1)[:, None]  # [L, starts]

    def follow(x: jax.Array) -> jax.Array:
        """`[T, B, ...]` to `[L, starts * B, ...]`."""
        return jnp.asarray(x)[ahead].reshape(length, -1, *x.shape[2:])

    state = RssmState(*(x[starts].reshape(-1, x.shape[-1]) for x in observed.state))
    state, fixed = jax.lax.stop_gradient((state, params))
    number = state.recurrent.shape[0]
    rows = length, len(starts), batch.reward.shape[0]
    uniform = latent_noise(key, config.latent_groups, rows).reshape(length, number, -1)

    def step(state: RssmState, inputs: tuple) -> tuple[RssmState, tuple[RssmState, RssmState]]:
        encoded_action, uniform = inputs
        recurrent = model.advance(fixed, state, encoded_action)
        latent = draw_latent(model.prior(fixed, recurrent), uniform)
        after = RssmState(remembered(config, recurrent), latent)
        return after, (state, after)

    action = follow(_time_major(batch.previous_action)).reshape(length * number, -1)
    encoded = model.encode_action(fixed, action).reshape(length, number, -1)
    _, (before, after) = scan(step, state, (encoded, uniform))
    flat = features(after).reshape(length * number, -1)
    reward_logits = model.reward(params, flat).reshape(length, number, TWO_HOT_BINS)
    reward = two_hot_loss(reward_logits, follow(_time_major(batch.reward)))
    is_terminal = follow(_time_major(batch.is_terminal))
    goes_on = discount * (1.0 - is_terminal.astype(jnp.float32))
    continue_logits = model.continues(params, flat).reshape(length, number)
    continues = optax.sigmoid_binary_cross_entropy(continue_logits, goes_on)
    # Beyond the end of its episode a prediction has no counterpart.
    is_first = follow(_time_major(batch.is_first))
    is_same = jnp.cumsum(is_first.astype(jnp.int32), axis=0) == 0

    heads = jnp.mean(jnp.where(is_same, reward + continues, 0.0))
    losses = {"open_loop": config.open_loop_scale * heads}
    if config.open_loop_dynamics_scale > 0:
        posterior, actions = follow(observed.posterior), action.reshape(length, number, -1)
        drift = _drift_loss(model, params, posterior, before, actions, is_same)
        losses["open_loop_dynamics"] = config.open_loop_dynamics_scale * drift
    return losses


def _drift_loss(
    model: WorldModel,
    params: Params,
    posterior: jax.Array,
    before: RssmState,
    action: jax.Array,
    is_same: jax.Array,
) -> jax.Array:
    """Returns the KL from `posterior [L, N, S, K]` to the prior one step after predicted states.

    `before [L, N, ...]` are the states that the actions `[L, N, A]` leave. Steps that are not of
    the same episode, by `is_same [L, N]`, count as zero.
    """
    length = posterior.shape[0]
    some = slice(min(_DRIFT_EVERY, length) - 1, None, _DRIFT_EVERY)
    seen = jax.lax.stop_gradient(posterior[some])
    states = RssmState(*(x[some].reshape(-1, x.shape[-1]) for x in before))
    actions = action[some].reshape(states.latent.shape[0], -1)
    recurrent = model.advance(params, states, model.encode_action(params, actions))
    drift = categorical_kl(seen, model.prior(params, recurrent).reshape(seen.shape))
    return jnp.mean(jnp.where(is_same[some], drift, 0.0))


def world_model_loss(
    model: WorldModel,
    config: WorldModelConfig,
    params: Params,
    batch: Batch,
    discount: float,
    key: jax.Array,
) -> tuple[jax.Array, tuple[Observed, Metrics]]:
    """Prediction, dynamics and representation losses, averaged over `[B, T]`  (Eq. 2 to 4).

    The key is consumed. The continue head learns `discount` times the probability that the episode
    continues, so that imagination needs no other discount (public code, `contdisc`).
    """
    observed = observe(model, config, params, batch, key)
    feature = features(observed.state)
    flat = feature.reshape(-1, feature.shape[-1])
    length, size = feature.shape[:2]

    observation = _time_major(batch.observation)
    decoded = model.decode(params, flat).reshape(observation.shape)
    target = symlog(config.observation_scale * observation)
    reconstruction = jnp.sum(jnp.square(decoded - target), axis=-1)
    reward_logits = model.reward(params, flat).reshape(length, size, TWO_HOT_BINS)
    reward = two_hot_loss(reward_logits, _time_major(batch.reward))
    goes_on = discount * (1.0 - _time_major(batch.is_terminal).astype(jnp.float32))
    continue_logits = model.continues(params, flat).reshape(length, size)
    continues = optax.sigmoid_binary_cross_entropy(continue_logits, goes_on)

    # Free bits: below `free_nats` the KL has no gradient, so that the model concentrates on
    # prediction (Eq. 4).
    stop = jax.lax.stop_gradient
    dynamics = categorical_kl(stop(observed.posterior), observed.prior)
    representation = categorical_kl(observed.posterior, stop(observed.prior))
    losses = {
        "reconstruction": config.reconstruction_scale * reconstruction,
        "reward": reward,
        "continue": continues,
        "dynamics": config.dynamics_scale * jnp.maximum(dynamics, config.free_nats),
        "representation": config.representation_scale
        * jnp.maximum(representation, config.free_nats),
    }
    if config.open_loop_scale > 0 or config.open_loop_dynamics_scale > 0:
        dream_key = jax.random.fold_in(key, 1)
        losses |= open_loop_losses(model, config, params, observed, batch, discount, dream_key)
    if batch.image is not None:
        image = _time_major(batch.image) / 255.0
        error = model.decode_image(params, flat).reshape(image.shape) - image
        losses["image"] = config.image_scale * jnp.sum(jnp.square(error), axis=(2, 3, 4))
    means = {name: jnp.mean(loss) for name, loss in losses.items()}
    total = jnp.asarray(sum(means.values()))
    reward_error = jnp.abs(two_hot_mean(reward_logits) - _time_major(batch.reward))
    metrics = {f"model/{name}_loss": mean for name, mean in means.items()}
    metrics |= {
        "model/loss": total,
        "model/kl_nats": jnp.mean(dynamics),
        "model/reward_error": jnp.mean(reward_error),
    }
    return total, (observed, metrics)


def _time_major(x: jax.Array) -> jax.Array:
    return jnp.moveaxis(jnp.asarray(x), 0, 1)
