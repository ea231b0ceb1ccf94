"""Building blocks of the networks (Haiku modules)."""

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

import haiku as hk
import jax
import jax.numpy as jnp

# Truncated normal with variance 1 / fan-in, as in the public code (Hafner et al. 2025, Methods).
_INIT = hk.initializers.VarianceScaling(1.0, "fan_in", "truncated_normal")

_PRODUCT_DTYPE: ContextVar[str] = ContextVar("product_dtype", default="float32")


@contextlib.contextmanager
def products_in(dtype: str) -> Iterator[None]:
    """What is traced inside multiplies its matrices in `dtype`; all else stays float32.

    Sums of products, norms, parameters and their gradients are float32, as in the mixed precision
    of Micikevicius et al. 2018. `jax.default_matmul_precision` asks for the same of XLA, which does
    not listen on a CPU.
    """
    token = _PRODUCT_DTYPE.set(dtype)
    try:
        yield
    finally:
        _PRODUCT_DTYPE.reset(token)


def product(equation: str, x: jax.Array, weight: jax.Array) -> jax.Array:
    """`einsum` of two float32 arrays in the precision of `products_in`; float32."""
    dtype = _PRODUCT_DTYPE.get()
    return jnp.einsum(
        equation, x.astype(dtype), weight.astype(dtype), preferred_element_type=jnp.float32
    )


class NormedLinear(hk.Module):
    """Linear, RMSNorm, SiLU; several inputs are as if concatenated, without the copy."""

    def __init__(self, units: int, name: str):
        super().__init__(name=name)
        self._units = units

    def __call__(self, *inputs: jax.Array) -> jax.Array:
        """Maps `[N, I1], [N, I2], ...` to `[N, units]`."""
        fan_in = sum(x.shape[-1] for x in inputs)
        weight = hk.get_parameter("w", [fan_in, self._units], init=_INIT)
        parts = jnp.split(weight, _offsets(inputs), axis=0)
        products = [product("ni,io->no", *pair) for pair in zip(inputs, parts, strict=True)]
        return jax.nn.silu(rms_norm(jnp.asarray(sum(products)), "scale"))


class Mlp(hk.Module):
    """A stack of `NormedLinear`."""

    def __init__(self, units: int, layers: int, name: str):
        super().__init__(name=name)
        self._units, self._layers = units, layers

    def __call__(self, *inputs: jax.Array) -> jax.Array:
        """Maps `[N, I1], [N, I2], ...` to `[N, units]`."""
        out = NormedLinear(self._units, "layer_0")(*inputs)
        for index in range(1, self._layers):
            out = NormedLinear(self._units, f"layer_{index}")(out)
        return out


class Linear(hk.Module):
    """An output layer; `scale` 0 starts at a constant output of zero."""

    def __init__(self, size: int, name: str, scale: float = 1.0):
        super().__init__(name=name)
        self._size, self._scale = size, scale

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[N, I]` to `[N, size]`."""
        # Exactly zero: the outer two-hot bins make values of several units out of weights of 1e-7.
        init = hk.initializers.VarianceScaling(self._scale, "fan_in", "truncated_normal")
        weight = hk.get_parameter("w", [x.shape[-1], self._size], init=init)
        bias = hk.get_parameter("b", [self._size], init=jnp.zeros)
        out = product("...i,io->...o", x, weight)
        return out + jnp.broadcast_to(bias, out.shape)


class BlockGru(hk.Module):
    """GRU with block-diagonal recurrence (Hafner et al. 2025, Methods, "block-diagonal weights").

    Arrays are group-major `[G, N, D / G]` inside: one batched product per layer, no transposes.
    """

    def __init__(self, units: int, blocks: int, name: str):
        super().__init__(name=name)
        self._units, self._blocks = units, blocks

    def __call__(self, state: jax.Array, shared: jax.Array) -> jax.Array:
        """Advances `state [N, D]` by the input `shared [N, I]`, which every block sees whole."""
        size = self._units // self._blocks
        blocks = jnp.moveaxis(state.reshape(-1, self._blocks, size), 1, 0)
        # Every block's weights on the shared input, side by side, are one dense matrix.
        fan_in = size + shared.shape[-1]
        init = hk.initializers.TruncatedNormal(fan_in**-0.5)
        dense = hk.get_parameter("shared_w", [shared.shape[-1], self._units], init=init)
        own = hk.get_parameter("block_w", [self._blocks, size, size], init=init)
        hidden = product("ni,io->no", shared, dense)
        hidden = hidden + _ungroup(product("gni,gio->gno", blocks, own))
        hidden = jax.nn.silu(rms_norm(hidden, "scale"))
        hidden = jnp.moveaxis(hidden.reshape(-1, self._blocks, size), 1, 0)
        gates_w = hk.get_parameter(
            "gates_w",
            [self._blocks, size, 3 * size],
            init=hk.initializers.TruncatedNormal(size**-0.5),
        )
        gates_b = hk.get_parameter("gates_b", [self._blocks, 1, 3 * size], init=jnp.zeros)
        gates = product("gni,gio->gno", hidden, gates_w) + gates_b
        reset, candidate, update = jnp.split(gates, 3, axis=-1)
        candidate = jnp.tanh(jax.nn.sigmoid(reset) * candidate)
        # The bias of -1 makes a fresh network remember rather than overwrite.
        update = jax.nn.sigmoid(update - 1.0)
        return _ungroup(update * candidate + (1.0 - update) * blocks)


def _ungroup(blocks: jax.Array) -> jax.Array:
    groups, batch, size = blocks.shape
    return jnp.moveaxis(blocks, 0, 1).reshape(batch, groups * size)


def rms_norm(x: jax.Array, name: str) -> jax.Array:
    """Scales `[..., D]` to a root mean square of one, times a learnt `[D]` of that name."""
    scale = hk.get_parameter(name, [x.shape[-1]], init=jnp.ones)
    mean_square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(mean_square + 1e-4) * scale.reshape((1,) * (x.ndim - 1) + (-1,))


def _offsets(inputs: Sequence[jax.Array]) -> list[int]:
    offsets = [inputs[0].shape[-1]]
    for x in inputs[1:-1]:
        offsets.append(offsets[-1] + x.shape[-1])
    return offsets if len(inputs) > 1 else []
