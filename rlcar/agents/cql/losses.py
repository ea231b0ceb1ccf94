"""The losses of conservative Q-learning (Kumar et al. 2020), on normalised transitions."""

import math

import jax
import jax.numpy as jnp

from rlcar.agents.cql.networks import values_of_actions
from rlcar.agents.cql.settings import CqlConfig
from rlcar.agents.q_learning.networks import Network
from rlcar.agents.q_learning.squashed_normal import squashed_sample
from rlcar.agents.q_learning.transitions import Transitions
from rlcar.types import Metrics, Params


def continuous_loss(
    config: CqlConfig,
    actor: Network,
    target_entropy: float,
    params: Params,
    slow_critics: Params,
    transitions: Transitions,
    key: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """Returns the sum of the losses of critics, actor and temperature; the key is consumed.

    The critics' target has no entropy bonus, as in the authors' code (`backup_entropy`).
    """
    frozen = jax.lax.stop_gradient(params)
    temperature = jnp.exp(frozen["log_temperature"])
    now_key, next_key, uniform_key = jax.random.split(key, 3)

    def sample(actor_params: Params, observation: jax.Array, key: jax.Array) -> tuple:
        output = actor.apply(actor_params, observation)
        size = output.shape[-1] // 2
        noise = jax.random.normal(key, (output.shape[0], config.action_samples, size))
        return squashed_sample(output[:, None], noise)

    action, log_prob = sample(params["actor"], transitions.observation, now_key)
    next_action, next_log_prob = sample(frozen["actor"], transitions.next_observation, next_key)
    uniform = jax.random.uniform(uniform_key, action.shape, minval=-1.0, maxval=1.0)

    # Critics (Eq. 4, with the policy as the distribution of actions).
    next_value = values_of_actions(slow_critics, transitions.next_observation, next_action[:, :1])
    target = _target(config, transitions, next_value[..., 0].min(axis=0))
    stop = jax.lax.stop_gradient
    actions = [transitions.action[:, None], uniform, stop(action), next_action]
    values = values_of_actions(
        params["critics"], transitions.observation, jnp.concatenate(actions, axis=1)
    )
    value, others = values[..., 0], values[..., 1:]
    uniform_log_prob = jnp.full_like(log_prob, -action.shape[-1] * math.log(2.0))
    log_density = jnp.concatenate([uniform_log_prob, stop(log_prob), next_log_prob], axis=1)
    critic_loss, metrics = _critic_loss(
        config, transitions, value, target, log_mean_exp(others - log_density[None])
    )

    # Actor (Haarnoja et al. 2018, Eq. 9) and temperature (Haarnoja et al. 2019, Eq. 18).
    score = values_of_actions(frozen["critics"], transitions.observation, action[:, :1])
    gain = score[..., 0].min(axis=0) - temperature * log_prob[:, 0]
    actor_loss = -jnp.sum(transitions.weight * gain)
    entropy = -jnp.sum(transitions.weight * stop(log_prob[:, 0]))
    temperature_loss = params["log_temperature"] * (entropy - target_entropy)
    metrics |= {
        "actor/loss": actor_loss,
        "actor/entropy": entropy,
        "actor/temperature": temperature,
    }
    return critic_loss + actor_loss + temperature_loss, metrics


def discrete_loss(
    config: CqlConfig,
    critics: Network,
    params: Params,
    slow_critics: Params,
    transitions: Transitions,
) -> tuple[jax.Array, Metrics]:
    """Returns the critics' loss for one-hot actions; all of them are compared."""
    next_values = critics.apply(slow_critics, transitions.next_observation).min(axis=0)
    target = _target(config, transitions, next_values.max(axis=-1))
    values = critics.apply(params["critics"], transitions.observation)
    value = jnp.sum(values * transitions.action[None], axis=-1)
    return _critic_loss(config, transitions, value, target, jax.nn.logsumexp(values, axis=-1))


def log_mean_exp(values: jax.Array) -> jax.Array:
    """Returns the logarithm of the mean of `exp(values)` over the last axis.

    For values minus the log-densities of their actions, it estimates the logarithm of the integral
    of `exp(value)` over all actions, by importance sampling (Kumar et al. 2020, Appendix F).
    """
    return jax.nn.logsumexp(values, axis=-1) - math.log(values.shape[-1])


def _target(config: CqlConfig, transitions: Transitions, next_value: jax.Array) -> jax.Array:
    future = config.discount * transitions.continues * next_value
    return config.reward_scale * transitions.reward + future


def _critic_loss(
    config: CqlConfig,
    transitions: Transitions,
    value: jax.Array,
    target: jax.Array,
    soft_maximum: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """Returns the temporal-difference error plus the conservative loss of both critics.

    `value [2, M]` and `soft_maximum [2, M]` are those of the recorded and of all actions.
    """
    weight = transitions.weight[None]
    error = 0.5 * jnp.sum(weight * jnp.square(value - target[None]))
    gap = jnp.sum(weight * (soft_maximum - value))
    return error + config.conservative_scale * gap, {
        "critic/loss": error,
        "critic/conservative_gap": 0.5 * gap,
        "critic/value": jnp.sum(transitions.weight * value[0]),
    }
