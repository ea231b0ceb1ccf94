"""Building blocks of the networks (Haiku modules)."""

import math
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from rlcar.agents.dreamer.products import product, product_dtype, products_in
from rlcar.types import Params

# Standard deviation of a standard normal that is truncated at +-2.
_CUT_DEVIATION = 0.8796256610342398

# Up to these sizes a GRU multiplies by one block-diagonal matrix: docs/experiments.md.
_SMALL_BLOCK_UNITS, _FEW_ROWS = 16, 64


class _Draws:
    """Random numbers for all initial weights, taken in order; without numbers it only counts."""

    def __init__(self, numbers: jax.Array | None = None):
        self._numbers = numbers
        self.count = 0

    def take(self, shape: Sequence[int]) -> jax.Array:
        start, self.count = self.count, self.count + math.prod(shape)
        if self._numbers is None:
            return jnp.zeros(shape)
        return self._numbers[start : self.count].reshape(shape)


_DRAWS: ContextVar[_Draws] = ContextVar("draws")


def init_with_one_draw(init: Callable[..., Params], key: jax.Array, *inputs: Any) -> Params:
    """Calls a Haiku `init(key, *inputs)` whose weights all come from one random vector.

    If each weight were sampled by itself, the initial state would take longer to compile than
    everything else but a train step.
    """

    def initialise(draws: _Draws, key: jax.Array) -> Params:
        token = _DRAWS.set(draws)
        try:
            return init(key, *inputs)
        finally:
            _DRAWS.reset(token)

    counting = _Draws()
    jax.eval_shape(partial(initialise, counting), key)
    own_key, draw_key = jax.random.split(key)
    numbers = jax.random.truncated_normal(draw_key, -2.0, 2.0, (counting.count,))
    return initialise(_Draws(numbers), own_key)


class _CutNormal(hk.initializers.Initializer):
    """Truncated normal times `factor`; only inside `init_with_one_draw`."""

    def __init__(self, factor: float):
        self._factor = factor

    def __call__(self, shape: Sequence[int], dtype: Any) -> jax.Array:
        return (self._factor * _DRAWS.get().take(shape)).astype(dtype)


def _fan_in(size: int, scale: float = 1.0) -> _CutNormal:
    """Variance `scale` / fan-in, as in the public code (Hafner et al. 2025, Methods)."""
    return _CutNormal(math.sqrt(scale / size) / _CUT_DEVIATION)


class NormedLinear(hk.Module):
    """Linear, RMSNorm, SiLU. Several inputs act as if they were concatenated, without the copy."""

    def __init__(self, units: int, name: str):
        super().__init__(name=name)
        self._units = units

    def __call__(self, *inputs: jax.Array, entry: jax.Array | None = None) -> jax.Array:
        """Maps `[N, I1], [N, I2], ...` to `[N, units]`; `entry [N, units]` is the product of
        further inputs with their weights, which are then no parameters of this layer.
        """
        products = [] if entry is None else [entry]
        if inputs:
            fan_in = sum(x.shape[-1] for x in inputs)
            weight = hk.get_parameter("w", [fan_in, self._units], init=_fan_in(fan_in))
            parts = jnp.split(weight, _offsets(inputs), axis=0)
            products += [product("ni,io->no", *pair) for pair in zip(inputs, parts, strict=True)]
        return jax.nn.silu(rms_norm(jnp.asarray(sum(products)), "scale"))


class Mlp(hk.Module):
    """A stack of `NormedLinear`."""

    def __init__(self, units: int, layers: int, name: str):
        super().__init__(name=name)
        self._units, self._layers = units, layers

    def __call__(self, *inputs: jax.Array, entry: jax.Array | None = None) -> jax.Array:
        """Maps `[N, I1], [N, I2], ...` to `[N, units]`; or takes `entry [N, units]`, the product
        with the weights of the first layer: see `entries`.
        """
        out = NormedLinear(self._units, "layer_0")(*inputs, entry=entry)
        for index in range(1, self._layers):
            out = NormedLinear(self._units, f"layer_{index}")(out)
        return out


def entry_weight(params: Params, name: str) -> jax.Array:
    """The first layer's weights `[I, units]` of the `Mlp` of that name."""
    return jnp.asarray(params[f"{name}/layer_0"]["w"])


def entries(x: jax.Array, weights: Sequence[jax.Array]) -> list[jax.Array]:
    """Multiplies `x [N, I]` by the weights of several first layers at once: `[N, units]` each."""
    sides = [weight.shape[1] for weight in weights]
    ends = [sum(sides[: index + 1]) for index in range(len(sides) - 1)]
    return jnp.split(product("ni,io->no", x, jnp.concatenate(weights, axis=1)), ends, axis=1)


class Linear(hk.Module):
    """An output layer; with `scale` 0 its initial output is zero."""

    def __init__(self, size: int, name: str, scale: float = 1.0):
        super().__init__(name=name)
        self._size, self._scale = size, scale

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[N, I]` to `[N, size]`."""
        # Exactly zero: outer two-hot bins would turn weights of 1e-7 into values of several units.
        init = _fan_in(x.shape[-1], self._scale)
        weight = hk.get_parameter("w", [x.shape[-1], self._size], init=init)
        bias = hk.get_parameter("b", [self._size], init=jnp.zeros)
        out = product("...i,io->...o", x, weight)
        return out + jnp.broadcast_to(bias, out.shape)


class GruWeights(NamedTuple):
    """Parameters of a `BlockGru` with G blocks of `D / G = U` units."""

    shared_w: jax.Array  # [I, D], every block's weights on the shared input, side by side
    block_w: jax.Array  # [G, U, U]
    scale: jax.Array  # [D], of the hidden layer's norm
    gates_w: jax.Array  # [G, U, 3 U]: reset, candidate, update
    gates_b: jax.Array  # [G, 1, 3 U]


class BlockGru(hk.Module):
    """GRU with block-diagonal weights (Hafner et al. 2025, Methods)."""

    def __init__(self, units: int, blocks: int, name: str):
        super().__init__(name=name)
        self._units, self._blocks = units, blocks

    def __call__(self, state: jax.Array, shared: jax.Array) -> jax.Array:
        """Advances `state [N, D]` by the input `shared [N, I]`, which all blocks share."""
        blocks, size = self._blocks, self._units // self._blocks
        inputs = shared.shape[-1]
        hidden_init = _CutNormal((size + inputs) ** -0.5)
        gates_init = _CutNormal(size**-0.5)
        weights = GruWeights(
            hk.get_parameter("shared_w", [inputs, self._units], init=hidden_init),
            hk.get_parameter("block_w", [blocks, size, size], init=hidden_init),
            hk.get_parameter("scale", [self._units], init=jnp.ones),
            hk.get_parameter("gates_w", [blocks, size, 3 * size], init=gates_init),
            hk.get_parameter("gates_b", [blocks, 1, 3 * size], init=jnp.zeros),
        )
        return block_gru(weights, state, shared)


def block_gru(weights: GruWeights, state: jax.Array, shared: jax.Array) -> jax.Array:
    """One step of the GRU: `state [N, D]`, `shared [N, I]` to `[N, D]`.

    Without differentiation (in imagination and in the forward pass of a filter) a CPU computes
    block by block: the transposes between car-major and group-major cost more than all products
    of the batched form. A GPU prefers the batched form, and its gradient is faster everywhere.
    For a few rows of small blocks, one product for each layer is fastest on all devices.
    """
    if weights.block_w.shape[1] <= _SMALL_BLOCK_UNITS and state.shape[0] <= _FEW_ROWS:
        return _gru_dense(weights, state, shared)
    return jnp.asarray(_block_gru(product_dtype(), weights, state, shared))


# JAX caches traces by a function's arguments, so the precision must be one of them.
@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _block_gru(dtype: str, weights: GruWeights, state: jax.Array, shared: jax.Array) -> jax.Array:
    forms = {"cpu": _in(dtype, _gru_by_blocks), "default": _in(dtype, gru_batched)}
    return jax.lax.platform_dependent(weights, state, shared, **forms)


def _in(dtype: str, function: Callable) -> Callable:
    def run(*inputs: Any) -> Any:
        with products_in(dtype):
            return function(*inputs)

    return run


def _gru_by_blocks(weights: GruWeights, state: jax.Array, shared: jax.Array) -> jax.Array:
    def parts(x: jax.Array) -> list[jax.Array]:
        return jnp.split(x, weights.block_w.shape[0], axis=-1)

    states = parts(state)
    own = [product("ni,io->no", *pair) for pair in zip(states, weights.block_w, strict=True)]
    hidden = parts(_gru_hidden(weights, shared, jnp.concatenate(own, axis=-1)))
    blocks = []
    for old, x, w, b in zip(states, hidden, weights.gates_w, weights.gates_b, strict=True):
        blocks.append(_gru_gate(old, *jnp.split(product("ni,io->no", x, w) + b, 3, axis=-1)))
    # The barrier stores each block first: fused into the concatenation, XLA does not vectorise it.
    return jnp.concatenate(jax.lax.optimization_barrier(blocks), axis=-1)


def gru_batched(weights: GruWeights, state: jax.Array, shared: jax.Array) -> jax.Array:
    """Computes one step in group-major order `[G, N, U]`: one batched product for each layer."""
    blocks = weights.block_w.shape[0]

    def grouped(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x.reshape(x.shape[0], blocks, -1), 1, 0)

    def ungrouped(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1)

    old = grouped(state)
    hidden = ungrouped(product("gni,gio->gno", old, weights.block_w))
    hidden = grouped(_gru_hidden(weights, shared, hidden))
    gates = product("gni,gio->gno", hidden, weights.gates_w) + weights.gates_b
    return ungrouped(_gru_gate(old, *jnp.split(gates, 3, axis=-1)))


def _gru_dense(weights: GruWeights, state: jax.Array, shared: jax.Array) -> jax.Array:
    """Computes one step with block-diagonal matrices, one product for each layer.

    It multiplies G times as many numbers. For small blocks this costs less than slicing,
    multiplying and concatenating each block separately.
    """
    own = product("ni,io->no", state, _diagonal(weights.block_w))
    hidden = _gru_hidden(weights, shared, own)
    gates_w = [_diagonal(w) for w in jnp.split(weights.gates_w, 3, axis=-1)]
    gates_b = [b.reshape(1, -1) for b in jnp.split(weights.gates_b, 3, axis=-1)]
    gates = product("ni,io->no", hidden, jnp.concatenate(gates_w, axis=1))
    return _gru_gate(state, *jnp.split(gates + jnp.concatenate(gates_b, axis=1), 3, axis=-1))


def _diagonal(blocks: jax.Array) -> jax.Array:
    """Returns the block-diagonal matrix `[G * U, G * V]` of blocks `[G, U, V]`."""
    number, rows, columns = blocks.shape
    on = jnp.eye(number).reshape(number, 1, number, 1)
    return (blocks[:, :, None] * on).reshape(number * rows, number * columns)


def _gru_hidden(weights: GruWeights, shared: jax.Array, own: jax.Array) -> jax.Array:
    return jax.nn.silu(_normed(product("ni,io->no", shared, weights.shared_w) + own, weights.scale))


def _gru_gate(
    state: jax.Array, reset: jax.Array, candidate: jax.Array, update: jax.Array
) -> jax.Array:
    candidate = jnp.tanh(jax.nn.sigmoid(reset) * candidate)
    # The bias of -1 makes an untrained network keep its state rather than overwrite it.
    update = jax.nn.sigmoid(update - 1.0)
    return update * candidate + (1.0 - update) * state


def _gru_forward(
    dtype: str, weights: GruWeights, state: jax.Array, shared: jax.Array
) -> tuple[jax.Array, Callable]:
    return jax.vjp(_in(dtype, gru_batched), weights, state, shared)


def _gru_backward(dtype: str, pull: Callable, adjoint: jax.Array) -> tuple:
    del dtype
    return pull(adjoint)


_block_gru.defvjp(_gru_forward, _gru_backward)


def rms_norm(x: jax.Array, name: str) -> jax.Array:
    """Scales `[..., D]` to a root mean square of one, times a learnt `[D]` of that name."""
    return _normed(x, hk.get_parameter(name, [x.shape[-1]], init=jnp.ones))


def _normed(x: jax.Array, scale: jax.Array) -> jax.Array:
    mean_square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(mean_square + 1e-4) * scale.reshape((1,) * (x.ndim - 1) + (-1,))


def _offsets(inputs: Sequence[jax.Array]) -> list[int]:
    offsets = [inputs[0].shape[-1]]
    for x in inputs[1:-1]:
        offsets.append(offsets[-1] + x.shape[-1])
    return offsets if len(inputs) > 1 else []
