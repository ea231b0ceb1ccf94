"""Acting: a normal distribution squashed by tanh; without exploration, the tanh of its mean."""

from typing import Any

import jax
import jax.numpy as jnp

from rlcar.agents.gaussian import HALF_LOG_TWO_PI
from rlcar.agents.q_learning.networks import Network, make_actor
from rlcar.agents.sac.settings import SacConfig
from rlcar.types import Array, Params, Policy, Spec, TimeStep

_LOG_DEVIATION = (-20.0, 2.0)


def make_policy(config: SacConfig, spec: Spec) -> Policy:
    """Builds `Policy` for continuous actions."""
    actor = make_actor(config.hidden_units, spec, 2)

    def act(
        params: Params, carry: Any, time_step: TimeStep, key: jax.Array, explore: bool
    ) -> tuple[Any, Array]:
        if explore:
            return carry, sample(actor, params, time_step.observation, key)[0]
        mean, _ = jnp.split(actor.apply(params, time_step.observation), 2, axis=-1)
        return carry, jnp.tanh(mean)

    return Policy(lambda number: (), act)


def sample(
    actor: Network, params: Params, observation: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns actions `[N, A]` and their log-densities `[N]` (Haarnoja et al. 2018, App. C)."""
    mean, log_deviation = jnp.split(actor.apply(params, observation), 2, axis=-1)
    log_deviation = jnp.clip(log_deviation, *_LOG_DEVIATION)
    noise = jax.random.normal(key, mean.shape)
    raw = mean + jnp.exp(log_deviation) * noise
    # log(1 - tanh(raw)^2) in a form that float32 does not round to minus infinity.
    log_slope = 2.0 * (jnp.log(2.0) - raw - jax.nn.softplus(-2.0 * raw))
    log_prob = -0.5 * jnp.square(noise) - log_deviation - HALF_LOG_TWO_PI - log_slope
    return jnp.tanh(raw), jnp.sum(log_prob, axis=-1)
