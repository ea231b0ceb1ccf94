"""The uncertainty of the world model: how much several predictions of the next step disagree.

A policy that learns from recorded data alone can exploit errors of the model where there is no
data. Imagined rewards are therefore lowered by the model's uncertainty, as in MOPO (Yu et al.
2020); its measure is the disagreement of an ensemble (Sekar et al. 2020, Plan2Explore).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from rlcar.agents.dreamer.actor_critic import Imagined
from rlcar.agents.dreamer.distributions import unimix
from rlcar.agents.dreamer.layers import Linear, NormedLinear, init_with_one_draw
from rlcar.agents.dreamer.rssm import feature_size
from rlcar.agents.dreamer.settings import DreamerConfig
from rlcar.agents.dreamer.world_model import Observed, features, time_major
from rlcar.types import Batch, Params, Spec


class Ensemble(NamedTuple):
    """E heads that each predict the next latent state; pure functions of one `params`."""

    init: Callable  # (key) -> params
    # (params, feature [M, F], action [M, A]) -> log-probabilities [E, M, S, K]
    predict: Callable


def make_ensemble(config: DreamerConfig, spec: Spec) -> Ensemble:
    """Builds the heads, which differ only by their initial weights."""
    settings, model = config.uncertainty, config.world_model
    groups, classes = model.latent_groups, model.latent_classes

    def head(feature: jax.Array, action: jax.Array) -> jax.Array:
        hidden = NormedLinear(settings.units, "ensemble_in")(feature, action)
        logits = Linear(groups * classes, "ensemble_out")(hidden)
        return unimix(logits.reshape(-1, groups, classes), model.unimix)

    network = hk.without_apply_rng(hk.transform(head))
    dummies = (np.zeros((1, size), np.float32) for size in (feature_size(model), spec.action_size))
    init_head = partial(init_with_one_draw, network.init)
    feature, action = dummies

    def init(key: jax.Array) -> Params:
        keys = jax.random.split(key, settings.heads)
        return jax.vmap(lambda key: init_head(key, feature, action))(keys)

    def predict(params: Params, feature: jax.Array, action: jax.Array) -> jax.Array:
        clipped = jnp.clip(action, -1.0, 1.0)  # as the model sees it
        return jax.vmap(network.apply, in_axes=(0, None, None))(params, feature, clipped)

    return Ensemble(init, predict)


def ensemble_loss(
    ensemble: Ensemble, params: Params, observed: Observed, batch: Batch
) -> jax.Array:
    """Returns the cross-entropy of the next posterior under each head, averaged over the heads.

    No gradient flows into the world model. Steps that begin another episode have no loss.
    """
    feature, posterior = jax.lax.stop_gradient((features(observed.state), observed.posterior))
    feature, target = feature[:-1].reshape(-1, feature.shape[-1]), posterior[1:]
    action = time_major(batch.previous_action)[1:].reshape(feature.shape[0], -1)
    predicted = ensemble.predict(params, feature, action)
    target = target.reshape(1, *predicted.shape[1:])
    error = -jnp.sum(jnp.exp(target) * predicted, axis=(-2, -1))
    is_same = 1.0 - time_major(batch.is_first)[1:].reshape(1, -1).astype(jnp.float32)
    return jnp.mean(is_same * error)


def disagreement(log_probabilities: jax.Array) -> jax.Array:
    """Returns the Jensen-Shannon divergence `[M]` of E predictions `[E, M, S, K]`, in nats.

    JSD = H(mean of the predictions) - mean of H(prediction), summed over the groups.
    """
    probabilities = jnp.exp(log_probabilities)
    mean = probabilities.mean(axis=0)
    own = jnp.sum(probabilities * log_probabilities, axis=(-2, -1)).mean(axis=0)
    return own - jnp.sum(mean * jnp.log(mean), axis=(-2, -1))


def penalised(
    ensemble: Ensemble, params: Params, penalty: float, imagined: Imagined
) -> tuple[Imagined, jax.Array]:
    """Returns imagined steps with lower rewards, and the mean uncertainty in nats.

    The reward `[H + 1, N]` at a step is that for arriving there, so the action before it counts.
    """
    length, number, size = imagined.feature.shape
    uncertainty = jax.lax.stop_gradient(
        disagreement(
            ensemble.predict(
                params,
                imagined.feature.reshape(length * number, size),
                imagined.action.reshape(length * number, -1),
            )
        )
    ).reshape(length, number)
    outputs = imagined.outputs
    reward = outputs.reward.at[1:].add(-penalty * uncertainty)
    return imagined._replace(outputs=outputs._replace(reward=reward)), jnp.mean(uncertainty)
