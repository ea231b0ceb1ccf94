"""Building blocks of the networks (Haiku modules)."""

from collections.abc import Sequence

import haiku as hk
import jax
import jax.numpy as jnp

# Truncated normal with variance 1 / fan-in, as in the public code (Hafner et al. 2025, Methods).
_INIT = hk.initializers.VarianceScaling(1.0, "fan_in", "truncated_normal")


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
        products = [x @ part for x, part in zip(inputs, parts, strict=True)]
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


def linear(size: int, name: str, scale: float = 1.0) -> hk.Linear:
    """An output layer; `scale` 0 starts at a constant output of zero."""
    # Exactly zero: the outer two-hot bins make values of several units out of weights of 1e-7.
    init = hk.initializers.VarianceScaling(scale, "fan_in", "truncated_normal")
    return hk.Linear(size, w_init=init, name=name)


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
        hidden = shared @ dense + _ungroup(jnp.einsum("gni,gio->gno", blocks, own))
        hidden = jax.nn.silu(rms_norm(hidden, "scale"))
        hidden = jnp.moveaxis(hidden.reshape(-1, self._blocks, size), 1, 0)
        gates_w = hk.get_parameter(
            "gates_w",
            [self._blocks, size, 3 * size],
            init=hk.initializers.TruncatedNormal(size**-0.5),
        )
        gates_b = hk.get_parameter("gates_b", [self._blocks, 1, 3 * size], init=jnp.zeros)
        gates = jnp.einsum("gni,gio->gno", hidden, gates_w) + gates_b
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
