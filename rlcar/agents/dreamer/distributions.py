"""Distributions of the heads: pure functions of logits.

Equations are those of Hafner et al. 2025, "Mastering diverse control tasks through world models".
"""

import functools
from collections.abc import Callable
from itertools import accumulate
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from rlcar.agents.gaussian import HALF_LOG_TWO_PI, UNIT_ENTROPY

_BINS = 255
_BIN_LIMIT = 20.0

_FEW_CLASSES = 16


def symlog(x: jax.Array) -> jax.Array:
    """symlog(x) = sign(x) ln(|x| + 1)  (Eq. 9)."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def symexp(x: jax.Array) -> jax.Array:
    """symexp(x) = sign(x) (exp(|x|) - 1), the inverse of symlog  (Eq. 9)."""
    return jnp.sign(x) * jnp.expm1(jnp.abs(x))


TWO_HOT_BINS = _BINS


def two_hot_mean(logits: jax.Array) -> jax.Array:
    """Expected value of a symexp two-hot head: `[..., 255]` to `[...]`  (Eq. 10, 11).

    The bins are summed from the middle outwards in pairs: with untrained, equal logits the huge
    outer bins then cancel exactly instead of leaving rounding noise.
    """
    probabilities = jax.nn.softmax(logits)
    half = _BINS // 2
    bins = symexp(jnp.linspace(-_BIN_LIMIT, 0.0, half + 1))[:half]
    below = probabilities[..., :half]
    above = jnp.flip(probabilities[..., half + 1 :], -1)
    return jnp.sum((below - above) * bins.reshape((1,) * (logits.ndim - 1) + (-1,)), axis=-1)


@jax.custom_vjp
def two_hot_loss(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Cross-entropy with the two-hot encoding of `target [...]`: `[..., 255]` to `[...]`  (Eq. 10).

    The bins are evenly spaced in symlog space, so the two neighbours come in closed form; weights
    are linear in the distance in symexp space, so that `two_hot_mean` inverts the encoding. No
    gradient flows into the target. The custom gradient, softmax minus encoding, needs one pass
    over the logits, which are by far the largest arrays of a train step.
    """
    return _two_hot_forward(logits, target)[0]


def _two_hot_forward(logits: jax.Array, target: jax.Array) -> tuple[jax.Array, tuple]:
    chex.assert_shape(logits, (*target.shape, _BINS))
    lower, weight = _two_hot(target)
    total = jax.nn.logsumexp(logits, axis=-1)
    below, above = (
        jnp.take_along_axis(logits, index[..., None], axis=-1)[..., 0]
        for index in (lower, lower + 1)
    )
    return total - ((1.0 - weight) * below + weight * above), (logits, total, lower, weight)


def _two_hot_backward(residuals: tuple, adjoint: jax.Array) -> tuple[jax.Array, None]:
    logits, total, lower, weight = residuals
    index = jnp.arange(_BINS).reshape((1,) * total.ndim + (-1,))
    lower, weight = lower[..., None], weight[..., None]
    encoding = jnp.where(index == lower, 1.0 - weight, 0.0) + jnp.where(
        index == lower + 1, weight, 0.0
    )
    return adjoint[..., None] * (jnp.exp(logits - total[..., None]) - encoding), None


two_hot_loss.defvjp(_two_hot_forward, _two_hot_backward)


def _two_hot(target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the bin below each target, int32, and the weight of the one above."""
    spacing = 2.0 * _BIN_LIMIT / (_BINS - 1)
    position = jnp.clip((symlog(target) + _BIN_LIMIT) / spacing, 0.0, _BINS - 1.0)
    lower = jnp.clip(jnp.floor(position).astype(jnp.int32), 0, _BINS - 2)
    low_value = symexp(lower * spacing - _BIN_LIMIT)
    high_value = symexp((lower + 1) * spacing - _BIN_LIMIT)
    return lower, jnp.clip((target - low_value) / (high_value - low_value), 0.0, 1.0)


def unimix(logits: jax.Array, share: float) -> jax.Array:
    """Log-probabilities of softmax mixed with `share` of a uniform, `[..., K]` (Methods)."""
    top = jax.lax.stop_gradient(_over_classes(jnp.maximum, jnp.max, logits))
    weights = jnp.exp(logits - top[..., None])
    probabilities = weights / _over_classes(jnp.add, jnp.sum, weights)[..., None]
    return jnp.log((1.0 - share) * probabilities + share / logits.shape[-1])


def sample_one_hot(log_probabilities: jax.Array, uniform: jax.Array) -> jax.Array:
    """Samples one-hot vectors `[..., K]` by the inverse CDF, from uniform numbers `[...]`."""
    classes = log_probabilities.shape[-1]
    probabilities = jnp.exp(log_probabilities)
    # The last class gets the rounding error: the total may be slightly less than one.
    if classes > _FEW_CLASSES:
        below = jnp.cumsum(probabilities, axis=-1)[..., :-1] < uniform[..., None]
        return jax.nn.one_hot(jnp.sum(below, axis=-1), classes)
    until = list(accumulate(_by_class(probabilities)))[:-1]
    none = jnp.zeros_like(uniform, jnp.int32)
    return jax.nn.one_hot(sum([(one < uniform) for one in until], start=none), classes)


def _over_classes(combine: Callable, reduce: Callable, x: jax.Array) -> jax.Array:
    """Reduces the last axis; a few classes one by one, in a fifth of the time on a CPU."""
    if x.shape[-1] > _FEW_CLASSES:
        return jnp.asarray(reduce(x, axis=-1))
    return jnp.asarray(functools.reduce(combine, _by_class(x)))


def _by_class(x: jax.Array) -> list[jax.Array]:
    return [x[..., index] for index in range(x.shape[-1])]


def straight_through(sample: jax.Array, log_probabilities: jax.Array) -> jax.Array:
    """Passes the gradient of the probabilities through a discrete sample (Bengio et al. 2013)."""
    probabilities = jnp.exp(log_probabilities)
    return jax.lax.stop_gradient(sample - probabilities) + probabilities


def categorical_kl(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """KL(p || q) summed over groups: `[..., S, K]` to `[...]`."""
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=(-2, -1))


class ActionDistribution(NamedTuple):
    """Pure functions of a policy head's output `[..., head_size]`."""

    head_size: int
    noise: Callable  # (key, rows [...]) -> the random numbers from which actions are sampled
    sample: Callable  # (head, noise) -> action [..., A]
    mode: Callable  # (head) -> action [..., A]
    log_prob: Callable  # (head, action) -> [...]
    entropy: Callable  # (head) -> [...]


def bounded_normal(action_size: int) -> ActionDistribution:
    """Normal with mean tanh(m) and deviation in [0.1, 1]; the environment clips the sample.

    The bounded normal of the public code (danijar/dreamerv3, outs.py, `bounded_normal`).
    """
    low, high = 0.1, 1.0

    def parameters(head: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean, deviation = jnp.split(head, 2, axis=-1)
        return jnp.tanh(mean), (high - low) * jax.nn.sigmoid(deviation + 2.0) + low

    def noise(key: jax.Array, rows: tuple[int, ...]) -> jax.Array:
        return jax.random.normal(key, (*rows, action_size))

    def sample(head: jax.Array, noise: jax.Array) -> jax.Array:
        mean, deviation = parameters(head)
        return mean + deviation * noise

    def mode(head: jax.Array) -> jax.Array:
        return parameters(head)[0]

    def log_prob(head: jax.Array, action: jax.Array) -> jax.Array:
        mean, deviation = parameters(head)
        z = (action - mean) / deviation
        return jnp.sum(-0.5 * jnp.square(z) - jnp.log(deviation) - HALF_LOG_TWO_PI, axis=-1)

    def entropy(head: jax.Array) -> jax.Array:
        return jnp.sum(jnp.log(parameters(head)[1]) + UNIT_ENTROPY, axis=-1)

    return ActionDistribution(2 * action_size, noise, sample, mode, log_prob, entropy)


def one_hot_categorical(action_size: int, unimix_share: float = 0.01) -> ActionDistribution:
    """Discrete actions as one-hot vectors, mixed with 1 % uniform (Methods)."""

    def noise(key: jax.Array, rows: tuple[int, ...]) -> jax.Array:
        return jax.random.uniform(key, rows)

    def sample(head: jax.Array, noise: jax.Array) -> jax.Array:
        return sample_one_hot(unimix(head, unimix_share), noise)

    def mode(head: jax.Array) -> jax.Array:
        return jax.nn.one_hot(jnp.argmax(head, axis=-1), action_size)

    def log_prob(head: jax.Array, action: jax.Array) -> jax.Array:
        return jnp.sum(unimix(head, unimix_share) * action, axis=-1)

    def entropy(head: jax.Array) -> jax.Array:
        log_probabilities = unimix(head, unimix_share)
        return -jnp.sum(jnp.exp(log_probabilities) * log_probabilities, axis=-1)

    return ActionDistribution(action_size, noise, sample, mode, log_prob, entropy)
