"""The convolutional encoder of images, as matrix products.

On a CPU, XLA's convolutions are much slower inside a loop than outside, and PPO's passes over
minibatches are loops (`benchmarks/image_convolutions.py`). A convolution whose stride divides its
kernel is a product of a few shifted slices of the image with one matrix, which loops do not slow
down.
"""

from collections.abc import Callable
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

_GAIN = 2**0.5


class Convolution(NamedTuple):
    """A layer of square kernels without padding; the stride divides the kernel."""

    kernel_px: int
    stride_px: int
    channels: int


# Mnih et al. 2015, for 64 and 84 pixels.
_NATURE = (Convolution(8, 4, 32), Convolution(4, 2, 64), Convolution(3, 1, 64))
# About a tenth of the arithmetic, for 32 and 42 pixels; and for the 16 pixels of Catch.
_SMALL = (Convolution(6, 3, 16), Convolution(4, 2, 32))
_TINY = (Convolution(4, 2, 16), Convolution(3, 1, 32))


def layers_for(size_px: int) -> tuple[Convolution, ...]:
    """Returns the convolutions for images of a size."""
    if size_px >= 64:
        return _NATURE
    return _SMALL if size_px >= 32 else _TINY


def encode_image(image: jax.Array, units: int) -> jax.Array:
    """Maps `[N, size, size, C]` uint8 to `[N, units]`; call it inside a Haiku transform."""
    x = image.astype(jnp.float32) / 255.0
    # Centred, because the inputs of a unit would otherwise all be positive and nearly alike on a
    # bright screen: a change of all its weights then switches the unit off everywhere, for good.
    x -= x.mean(axis=(1, 2, 3), keepdims=True)
    for index, layer in enumerate(layers_for(image.shape[1])):
        linear = hk.Linear(layer.channels, w_init=orthogonal(_GAIN), name=f"convolution_{index}")
        x = jax.nn.relu(linear(patches(x, layer.kernel_px, layer.stride_px)))
    x = x.reshape(x.shape[0], -1)
    return jax.nn.relu(hk.Linear(units, w_init=orthogonal(_GAIN), name="image_out")(x))


def orthogonal(gain: float) -> Callable:
    """Returns the initial weights of a layer: an orthogonal matrix times `gain`."""
    make = jax.nn.initializers.orthogonal(gain)
    return lambda shape, dtype: make(hk.next_rng_key(), shape, dtype)


def patches(x: jax.Array, kernel_px: int, stride_px: int) -> jax.Array:
    """Returns the pixels under each position of the kernel, `[N, size', size', kernel² C]`.

    `x` is `[N, size, size, C]`. Pixels at the lower and right edge that no position covers are left
    out.
    """
    assert kernel_px % stride_px == 0, (kernel_px, stride_px)
    number, size_px, _, channels = x.shape
    blocks = size_px // stride_px
    x = x[:, : blocks * stride_px, : blocks * stride_px]
    x = x.reshape(number, blocks, stride_px, blocks, stride_px, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(number, blocks, blocks, -1)
    across = kernel_px // stride_px  # blocks under the kernel
    out = blocks - across + 1
    slices = [x[:, i : i + out, j : j + out] for i in range(across) for j in range(across)]
    return jnp.concatenate(slices, axis=-1)
