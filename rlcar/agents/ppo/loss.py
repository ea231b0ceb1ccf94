"""The loss of PPO: clipped policy objective, value error and entropy bonus."""

import jax
import jax.numpy as jnp

from rlcar.agents.ppo.networks import Distribution, Networks
from rlcar.agents.ppo.sequences import Sequences, unroll
from rlcar.agents.ppo.settings import PpoConfig
from rlcar.types import Metrics, Params

_LOG_RATIO_LIMIT = 10.0


def ppo_loss(
    config: PpoConfig,
    networks: Networks,
    distribution: Distribution,
    params: Params,
    sequences: Sequences,
) -> tuple[jax.Array, Metrics]:
    """Returns the loss of a minibatch and its parts (Schulman et al. 2017, Eq. 7 and 9)."""
    output = unroll(
        networks,
        params,
        sequences.memory,
        sequences.observation,
        sequences.is_first,
        sequences.image,
    )
    weight = sequences.weight / jnp.maximum(sequences.weight.sum(), 1.0)
    log_ratio = distribution.log_prob(output, sequences.action) - sequences.log_prob
    # An action that was almost impossible for the older policy must not give an infinity.
    log_ratio = jnp.minimum(log_ratio, _LOG_RATIO_LIMIT)
    ratio = jnp.exp(log_ratio)
    mean = jnp.sum(weight * sequences.advantage)
    variance = jnp.sum(weight * jnp.square(sequences.advantage - mean))
    advantage = (sequences.advantage - mean) / (jnp.sqrt(variance) + 1e-8)
    clipped = jnp.clip(ratio, 1.0 - config.clip_ratio, 1.0 + config.clip_ratio)
    policy_loss = -jnp.sum(weight * jnp.minimum(advantage * ratio, advantage * clipped))
    value_loss = jnp.sum(weight * jnp.square(output.value - sequences.target))
    entropy = jnp.sum(weight * distribution.entropy(output))
    total = policy_loss + config.value_scale * value_loss - config.entropy_scale * entropy
    return total, {
        "actor/loss": policy_loss,
        "actor/entropy": entropy,
        "actor/kl": jnp.sum(weight * (ratio - 1.0 - log_ratio)),  # Schulman's k3 estimate
        "actor/clipped_share": jnp.sum(weight * (jnp.abs(ratio - 1.0) > config.clip_ratio)),
        "critic/loss": value_loss,
    }
