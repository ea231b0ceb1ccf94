"""Fitted Q evaluation: learns the value of a policy's actions from transitions of other policies.

An ensemble of networks learns side by side. Each member sees a bootstrap sample of the episodes, so
the differences between the members show how much the estimate depends on the episodes.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rlcar.types import Array

_ANNEALED_SHARE = 0.25  # of the updates: the learning rate falls to 0 during the last ones
_LIMIT_SHARE = 0.05  # values this far beyond the bounds, relative to their range, diverge
_MOST_BEYOND = 0.01  # largest share of such values
# Largest change that is still expected of the estimate, in standard deviations of the returns.
_MOST_REMAINING = 0.05
_MOST_DRIFT = 0.1  # largest change during the last quarter, in the same unit
_RESIDUAL_ROWS = 16_384


class FittedQSettings(NamedTuple):
    """Settings of fitted Q evaluation."""

    discount: float = 0.99
    members: int = 5
    hidden_units: int = 64
    updates: int = 16_000
    batch_size: int = 256
    learning_rate: float = 1e-3
    slow_rate: float = 0.05  # share of the networks that their slow copies take over per update


class Transitions(NamedTuple):
    """M transitions in the form that the networks see; inputs are states and actions."""

    input: Array  # [M, I] float32
    next_input: Array  # [M, I] with the action that the evaluated policy chooses there
    reward: Array  # [M]
    continues: Array  # [M] float32: 0 where no reward can follow, otherwise 1


class Bounds(NamedTuple):
    """What a value can be at all: the lowest and highest reward, forever."""

    low: float
    high: float


class FittedQ(NamedTuple):
    """The value functions of K members, and whether they can be trusted."""

    params: Any  # of `action_values`
    scale: float  # standard deviation of the returns: the unit in which the networks compute
    is_converged: bool
    remaining: float  # change of the estimate that is still to be expected, in units of `scale`
    drift: float  # change of the estimate in the last quarter of the updates, in the same unit
    is_diverged: bool
    beyond: float  # share of values that no sequence of recorded rewards can have


def value_bounds(reward: np.ndarray, discount: float) -> Bounds:
    """Returns [r_min, r_max] / (1 - discount), widened to include 0, the value after the end."""
    low, high = float(np.min(reward)), float(np.max(reward))
    return Bounds(min(low, 0.0) / (1.0 - discount), max(high, 0.0) / (1.0 - discount))


def fit(
    transitions: Transitions,
    member_rows: np.ndarray,
    start_input: np.ndarray,
    returns: np.ndarray,
    bounds: Bounds,
    settings: FittedQSettings,
    seed: int = 0,
) -> FittedQ:
    """Learns K value functions; member k sees the rows `member_rows[k]` `[K, L]`.

    Inputs should have a standard deviation near 1. `start_input [E, I]` are the first states with
    the policy's actions; the convergence of their mean value is tested. `returns [M]` set the unit
    and the initial value of the networks.
    """
    scale = max(float(np.std(returns)), 1e-6 * max(abs(bounds.low), abs(bounds.high), 1.0))
    data = Transitions(*(jnp.asarray(array, jnp.float32) for array in transitions))
    data = data._replace(reward=data.reward / scale)
    limits = jnp.asarray([bounds.low / scale, bounds.high / scale], jnp.float32)
    rows, start = jnp.asarray(member_rows, jnp.int32), jnp.asarray(start_input, jnp.float32)
    key = jax.random.key(seed)
    params = _initial(key, data.input.shape[1], float(np.mean(returns)) / scale, settings)
    state = (params, params, _optimizer(settings).init(params))
    eighths = 8
    keys = jax.random.split(jax.random.fold_in(key, 1), (eighths, settings.updates // eighths))
    estimates = []
    for part in keys:
        state = _updates(settings, data, rows, limits, state, part)
        estimates.append(float(_values(state[1], start).mean()))
    residual = _mean_residual(settings, data, rows, limits, state[1], jax.random.fold_in(key, 2))
    beyond = _beyond(data, rows, limits, state[1], jax.random.fold_in(key, 3))
    is_finite = bool(np.isfinite(estimates).all())
    remaining, drift = abs(float(residual)), abs(estimates[-1] - estimates[-3])
    return FittedQ(
        params=state[1],
        scale=scale,
        is_converged=is_finite and remaining <= _MOST_REMAINING and drift <= _MOST_DRIFT,
        remaining=remaining,
        drift=drift,
        is_diverged=not is_finite or float(beyond) > _MOST_BEYOND,
        beyond=float(beyond),
    )


def action_values(fitted: FittedQ, inputs: np.ndarray) -> np.ndarray:
    """Returns the value `[K, M]` of states and actions `[M, I]` for each member."""
    rows = len(inputs)
    chunk = 1 << 14
    padded = np.zeros((-(-rows // chunk) * chunk if rows > chunk else rows, inputs.shape[1]))
    padded[:rows] = inputs
    parts = [
        np.asarray(_values(fitted.params, jnp.asarray(padded[first : first + chunk], jnp.float32)))
        for first in range(0, len(padded), chunk)
    ]
    return np.concatenate(parts, axis=1)[:, :rows].astype(np.float64) * fitted.scale


def _initial(key: jax.Array, inputs: int, value: float, settings: FittedQSettings) -> Any:
    """Returns the layers of K networks, whose first answer is about `value` everywhere."""
    sizes = (inputs, settings.hidden_units, settings.hidden_units, 1)
    layers = []
    for index, (size, outputs) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        shape = (settings.members, size, outputs)
        draw = jax.random.truncated_normal(jax.random.fold_in(key, 10 + index), -2.0, 2.0, shape)
        bias = value if outputs == 1 else 0.0
        layers.append((draw / np.sqrt(size), jnp.full((settings.members, 1, outputs), bias)))
    return layers


@jax.jit
def _values(params: Any, inputs: jax.Array) -> jax.Array:
    """Returns the values `[K, B]` of inputs `[B, I]`, or of other inputs `[K, B, I]` each."""
    hidden = jnp.broadcast_to(inputs, (params[0][0].shape[0], *inputs.shape[-2:]))
    for weight, bias in params[:-1]:
        hidden = jax.nn.silu(hidden @ weight + bias)
    weight, bias = params[-1]
    return (hidden @ weight + bias)[..., 0]


def _optimizer(settings: FittedQSettings) -> optax.GradientTransformation:
    annealed = int(settings.updates * _ANNEALED_SHARE)
    schedule = optax.linear_schedule(
        settings.learning_rate, 0.0, annealed, settings.updates - annealed
    )
    return optax.adam(schedule)


@functools.partial(jax.jit, static_argnums=0)
def _updates(
    settings: FittedQSettings,
    data: Transitions,
    rows: jax.Array,
    limits: jax.Array,
    state: Any,
    keys: jax.Array,
) -> Any:
    """Makes one update for each key: regression on r + discount clip(Q_slow(s', policy(s')))."""
    optimizer = _optimizer(settings)

    def update(state: Any, key: jax.Array) -> tuple[Any, None]:
        params, slow, optimizer_state = state
        batch = _batch(data, rows, key, settings.batch_size)
        target = _targets(settings, batch, slow, limits)

        def loss(params: Any) -> jax.Array:
            return jnp.square(_values(params, batch.input) - target).mean(axis=1).sum()

        change, optimizer_state = optimizer.update(jax.grad(loss)(params), optimizer_state)
        params = optax.apply_updates(params, change)
        slow = optax.incremental_update(params, slow, settings.slow_rate)
        return (params, slow, optimizer_state), None

    return jax.lax.scan(update, state, keys)[0]


def _batch(data: Transitions, rows: jax.Array, key: jax.Array, size: int) -> Transitions:
    """Draws `[K, B]` transitions, for each member from its own rows."""
    place = jax.random.randint(key, (rows.shape[0], size), 0, rows.shape[1])
    row = jnp.take_along_axis(rows, place, axis=1)
    return jax.tree.map(lambda array: array[row], data)


def _targets(
    settings: FittedQSettings, batch: Transitions, slow: Any, limits: jax.Array
) -> jax.Array:
    following = jnp.clip(_values(slow, batch.next_input), limits[0], limits[1])
    return batch.reward + settings.discount * batch.continues * following


@functools.partial(jax.jit, static_argnums=0)
def _mean_residual(
    settings: FittedQSettings,
    data: Transitions,
    rows: jax.Array,
    limits: jax.Array,
    params: Any,
    key: jax.Array,
) -> jax.Array:
    """Returns how far all values together still have to move.

    A shift of every value by b changes the residual target - value by
    -b mean(1 - discount continues). Hence b = mean(residual) / mean(1 - discount continues) is the
    shift that remains; this is the slowest part of the convergence.
    """
    batch = _batch(data, rows, key, _RESIDUAL_ROWS)
    residual = _targets(settings, batch, params, limits) - _values(params, batch.input)
    return jnp.mean(residual) / jnp.mean(1.0 - settings.discount * batch.continues)


@jax.jit
def _beyond(
    data: Transitions, rows: jax.Array, limits: jax.Array, params: Any, key: jax.Array
) -> jax.Array:
    """Returns the share of values of next states that lie clearly beyond the bounds."""
    batch = _batch(data, rows, key, _RESIDUAL_ROWS)
    value = _values(params, batch.next_input)
    margin = _LIMIT_SHARE * (limits[1] - limits[0])
    is_beyond = (value < limits[0] - margin) | (value > limits[1] + margin)
    return jnp.sum(is_beyond * batch.continues) / jnp.maximum(jnp.sum(batch.continues), 1.0)
