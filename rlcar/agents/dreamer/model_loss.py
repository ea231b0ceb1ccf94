"""The loss of the world model, along a batch and at open-loop predictions."""

import jax
import jax.numpy as jnp
import optax

from rlcar.agents.dreamer.distributions import (
    TWO_HOT_BINS,
    categorical_kl,
    symlog,
    two_hot_loss,
    two_hot_mean,
)
from rlcar.agents.dreamer.rssm import RssmState, draw_latent, latent_noise, remembered
from rlcar.agents.dreamer.settings import WorldModelConfig
from rlcar.agents.dreamer.time_scan import scan
from rlcar.agents.dreamer.world_model import Observed, WorldModel, features, observe, time_major
from rlcar.types import Batch, Metrics, Params

_OPEN_LOOP_EVERY = 4  # steps between the starts of open-loop predictions in a window
_DRIFT_EVERY = 3  # steps between those of a prediction that train the dynamics


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

    action = follow(time_major(batch.previous_action)).reshape(length * number, -1)
    encoded = model.encode_action(fixed, action).reshape(length, number, -1)
    _, (before, after) = scan(step, state, (encoded, uniform))
    flat = features(after).reshape(length * number, -1)
    reward_logits = model.reward(params, flat).reshape(length, number, TWO_HOT_BINS)
    reward = two_hot_loss(reward_logits, follow(time_major(batch.reward)))
    is_terminal = follow(time_major(batch.is_terminal))
    continuation = discount * (1.0 - is_terminal.astype(jnp.float32))
    continue_logits = model.continues(params, flat).reshape(length, number)
    continues = optax.sigmoid_binary_cross_entropy(continue_logits, continuation)
    # Beyond the end of its episode a prediction has no counterpart.
    is_first = follow(time_major(batch.is_first))
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
    observed_posterior = jax.lax.stop_gradient(posterior[some])
    states = RssmState(*(x[some].reshape(-1, x.shape[-1]) for x in before))
    actions = action[some].reshape(states.latent.shape[0], -1)
    recurrent = model.advance(params, states, model.encode_action(params, actions))
    drift = categorical_kl(
        observed_posterior, model.prior(params, recurrent).reshape(observed_posterior.shape)
    )
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

    observation = time_major(batch.observation)
    decoded = model.decode(params, flat).reshape(observation.shape)
    target = symlog(config.observation_scale * observation)
    reconstruction = jnp.sum(jnp.square(decoded - target), axis=-1)
    reward_logits = model.reward(params, flat).reshape(length, size, TWO_HOT_BINS)
    reward = two_hot_loss(reward_logits, time_major(batch.reward))
    continuation = discount * (1.0 - time_major(batch.is_terminal).astype(jnp.float32))
    continue_logits = model.continues(params, flat).reshape(length, size)
    continues = optax.sigmoid_binary_cross_entropy(continue_logits, continuation)

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
        image = time_major(batch.image) / 255.0
        error = model.decode_image(params, flat).reshape(image.shape) - image
        losses["image"] = config.image_scale * jnp.sum(jnp.square(error), axis=(2, 3, 4))
    means = {name: jnp.mean(loss) for name, loss in losses.items()}
    total = jnp.asarray(sum(means.values()))
    reward_error = jnp.abs(two_hot_mean(reward_logits) - time_major(batch.reward))
    metrics = {f"model/{name}_loss": mean for name, mean in means.items()}
    metrics |= {
        "model/loss": total,
        "model/kl_nats": jnp.mean(dynamics),
        "model/reward_error": jnp.mean(reward_error),
    }
    return total, (observed, metrics)
