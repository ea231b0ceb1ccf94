"""Actor and critic, and their losses on imagined and replayed steps."""

from collections.abc import Callable
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from rlcar.agents.dreamer.distributions import (
    TWO_HOT_BINS,
    ActionDistribution,
    bounded_normal,
    one_hot_categorical,
    two_hot_loss,
    two_hot_mean,
)
from rlcar.agents.dreamer.layers import Linear, Mlp, entry_weight, init_with_one_draw
from rlcar.agents.dreamer.products import known_product
from rlcar.agents.dreamer.returns import (
    ONE_KERNEL_STEPS,
    ReturnRange,
    lambda_returns,
    return_scale,
    update_return_range,
)
from rlcar.agents.dreamer.settings import ActorCriticConfig
from rlcar.agents.dreamer.step_loss import step_loss
from rlcar.devices.data_parallel import gather_over_devices
from rlcar.types import Metrics, Params, Spec


class ActorCritic(NamedTuple):
    """Pure functions; actor and critic each have their own parameters."""

    init_actor: Callable  # (key) -> actor params
    init_critic: Callable  # (key) -> critic params
    # Instead of the feature both accept `entry=`, its product with their first weights.
    actor: Callable  # (actor params, feature [..., F]) -> head [..., head_size]
    critic: Callable  # (critic params, feature) -> two-hot logits [..., 255]
    distribution: ActionDistribution


def make_actor_critic(config: ActorCriticConfig, spec: Spec, feature_size: int) -> ActorCritic:
    """Builds both networks."""
    make = one_hot_categorical if spec.is_discrete else bounded_normal
    distribution = make(spec.action_size)

    def actor(*feature: jax.Array, entry: jax.Array | None = None) -> jax.Array:
        hidden = Mlp(config.units, config.layers, "actor")(*feature, entry=entry)
        return Linear(distribution.head_size, "action_out", scale=0.01)(hidden)

    def critic(*feature: jax.Array, entry: jax.Array | None = None) -> jax.Array:
        hidden = Mlp(config.units, config.layers, "critic")(*feature, entry=entry)
        # Starts at zero value everywhere, which speeds up early learning (Methods).
        return Linear(TWO_HOT_BINS, "value_out", scale=0.0)(hidden)

    actor_fn = hk.without_apply_rng(hk.transform(actor))
    critic_fn = hk.without_apply_rng(hk.transform(critic))
    dummy = np.zeros((1, feature_size), np.float32)
    return ActorCritic(
        lambda key: init_with_one_draw(actor_fn.init, key, dummy),
        lambda key: init_with_one_draw(critic_fn.init, key, dummy),
        actor_fn.apply,
        critic_fn.apply,
        distribution,
    )


class HeadOutputs(NamedTuple):
    """Outputs of the networks for imagined features, `[..., N]`; they stop gradients."""

    reward: jax.Array  # for arriving at this state
    discount: jax.Array  # discount times the probability that the episode continues
    value: jax.Array
    slow_value: jax.Array
    actor_entry: jax.Array  # [..., N, units], product of the feature and the actor's first weights
    critic_entry: jax.Array  # [..., N, units]


class Imagined(NamedTuple):
    """H steps imagined from N starts; they stop gradients."""

    feature: jax.Array  # [H, N, F]
    action: jax.Array  # [H, N, A], taken at `feature`
    outputs: HeadOutputs  # [H + 1, N, ...], at `feature` and where the last action led


def imagination_loss(
    networks: ActorCritic,
    config: ActorCriticConfig,
    params: Params,
    imagined: Imagined,
    return_range: ReturnRange,
) -> tuple[jax.Array, tuple[jax.Array, ReturnRange, Metrics]]:
    """Reinforce with normalised advantages, and the critic's loss  (Eq. 5 to 8).

    Returns the loss, the returns `[N]` of the states from which imagination started, the updated
    return range, and metrics.
    """
    outputs, policy = imagined.outputs, networks.distribution
    reward, value = outputs.reward[1:], outputs.value
    returns = lambda_returns(reward, outputs.discount[1:], value[1:], config.lambda_)
    all_returns = gather_over_devices(returns, axis=1)
    return_range = update_return_range(return_range, all_returns, config.return_normaliser_rate)
    advantage = (returns - value[:-1]) / return_scale(return_range)

    # Each imagined step is weighted by the probability that the episode has not ended before it.
    discount = 1.0 - 1.0 / config.discount_horizon
    weight = (jnp.cumprod(outputs.discount, axis=0) / discount)[:-1]

    def actor_loss(actor: Params, entry: jax.Array, fixed: tuple) -> tuple[jax.Array, jax.Array]:
        action, advantage, weight = fixed
        head = networks.actor(actor, entry=entry)
        entropy = policy.entropy(head)
        gain = policy.log_prob(head, action) * advantage + config.entropy_scale * entropy
        return -jnp.mean(weight * gain), jnp.mean(entropy)

    def critic_loss(critic: Params, entry: jax.Array, fixed: tuple) -> tuple[jax.Array, tuple]:
        returns, slow_value, weight = fixed
        logits = networks.critic(critic, entry=entry)
        both = two_hot_loss(logits, returns) + two_hot_loss(logits, slow_value)
        return jnp.mean(weight * both), ()

    actor_entry, critic_entry = _learnt_entries(params, imagined)
    actor, entropy = step_loss(
        actor_loss, params["actor"], actor_entry, (imagined.action, advantage, weight)
    )
    critic, _ = step_loss(
        critic_loss, params["critic"], critic_entry, (returns, outputs.slow_value[:-1], weight)
    )
    metrics = {
        "actor/loss": actor,
        "actor/entropy_nats": entropy,
        "actor/advantage_magnitude": jnp.mean(jnp.abs(advantage)),
        "critic/loss": critic,
        "critic/value": jnp.mean(value),
        "critic/return": jnp.mean(returns),
        "critic/return_scale": return_scale(return_range),
        "model/imagined_reward": jnp.mean(reward),
        "model/imagined_discount": jnp.mean(outputs.discount),
    }
    return actor + critic, (returns[0], return_range, metrics)


def _learnt_entries(params: Params, imagined: Imagined) -> list[jax.Array]:
    """Returns the entries of actor and critic `[H, N, units]`, which train their first weights."""
    known_entries = [x[:-1] for x in (imagined.outputs.actor_entry, imagined.outputs.critic_entry)]
    weights = [entry_weight(params[name], name) for name in ("actor", "critic")]
    length, number, size = imagined.feature.shape
    both = known_product(
        imagined.feature.reshape(length * number, size),
        jnp.concatenate(weights, axis=1),
        jnp.concatenate(known_entries, axis=-1).reshape(length * number, -1),
    )
    return jnp.split(both.reshape(length, number, -1), [known_entries[0].shape[-1]], axis=-1)


class Replayed(NamedTuple):
    """Real steps, time-major, for the critic."""

    feature: jax.Array  # [T, B, F], gradients flow into the world model
    reward: jax.Array  # [T, B], for arriving at this state
    is_last: jax.Array  # [T, B] bool
    is_terminal: jax.Array  # [T, B] bool
    bootstrap: jax.Array  # [T, B], the return that imagination expects from there


def replay_value_loss(
    networks: ActorCritic,
    config: ActorCriticConfig,
    params: Params,
    slow_critic: Params,
    replayed: Replayed,
) -> jax.Array:
    """Critic loss on replayed steps, bootstrapped by imagined returns (Methods, "Critic learning").

    Where a time limit ended the episode, the bootstrap stands for the later return. The last step
    of an episode has no successor in the episode, so it has no loss.
    """
    discount = 1.0 - 1.0 / config.discount_horizon
    continuation = discount * (1.0 - replayed.is_terminal.astype(jnp.float32))
    # At an episode's end lambda is zero: the next record belongs to another episode.
    mix = config.lambda_ * (1.0 - replayed.is_last.astype(jnp.float32))

    def backup(next_return: jax.Array, step: tuple) -> tuple[jax.Array, jax.Array]:
        reward, continuation, mix, bootstrap = step
        target = reward + continuation * ((1.0 - mix) * bootstrap + mix * next_return)
        return target, target

    arrivals = replayed.reward[1:], continuation[1:], mix[1:], replayed.bootstrap[1:]
    _, returns = jax.lax.scan(
        backup, replayed.bootstrap[-1], arrivals, reverse=True, unroll=ONE_KERNEL_STEPS
    )

    size = replayed.feature.shape[-1]
    flat = replayed.feature[:-1].reshape(-1, size)
    logits = networks.critic(params["critic"], flat)
    stop = jax.lax.stop_gradient
    slow_value = stop(two_hot_mean(networks.critic(slow_critic, stop(flat))))
    loss = two_hot_loss(logits, stop(returns).reshape(-1)) + two_hot_loss(logits, slow_value)
    weight = 1.0 - replayed.is_last[:-1].astype(jnp.float32)
    return jnp.mean(loss * weight.reshape(-1))
