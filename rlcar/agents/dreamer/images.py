"""Convolutions for images (Haiku modules), after the public code (danijar/dreamerv3, rssm.py)."""

import haiku as hk
import jax
import jax.numpy as jnp

from rlcar.agents.dreamer.layers import Linear, rms_norm

_KERNEL = 5
# Channels relative to the depth; each stage halves 16, 32 or 64 pixels, until 4 are left.
_MULTIPLES = (2, 3, 4, 4)


def _depths(depth: int, size_px: int) -> list[int]:
    stages = size_px.bit_length() - 3
    return [depth * multiple for multiple in _MULTIPLES[:stages]]


class ImageEncoder(hk.Module):
    """Convolution, 2 x 2 max pooling, RMSNorm and SiLU, repeated until 4 x 4 pixels are left."""

    def __init__(self, depth: int):
        super().__init__(name="encoder_image")
        self._depth = depth

    def __call__(self, image: jax.Array) -> jax.Array:
        """Maps `[N, size, size, C]` uint8 to `[N, E]`."""
        x = image.astype(jnp.float32) / 255.0 - 0.5
        for stage, depth in enumerate(_depths(self._depth, image.shape[1])):
            x = hk.Conv2D(depth, _KERNEL, name=f"convolution_{stage}")(x)
            number, height, width, channels = x.shape
            x = x.reshape(number, height // 2, 2, width // 2, 2, channels).max((2, 4))
            x = jax.nn.silu(rms_norm(x, f"scale_{stage}"))
        return x.reshape(x.shape[0], -1)


class ImageDecoder(hk.Module):
    """The inverse of the encoder: doubled pixels, convolution, RMSNorm, SiLU; finally a sigmoid."""

    def __init__(self, depth: int, image_shape: tuple[int, int, int]):
        super().__init__(name="decoder_image")
        self._depth, self._image_shape = depth, image_shape

    def __call__(self, feature: jax.Array) -> jax.Array:
        """Maps `[N, F]` to `[N, size, size, C]` in 0..1."""
        size_px, _, channels = self._image_shape
        depths = _depths(self._depth, size_px)
        x = Linear(16 * depths[-1], "image_in")(feature).reshape(-1, 4, 4, depths[-1])
        x = jax.nn.silu(rms_norm(x, "scale_in"))
        for stage, depth in reversed(list(enumerate(depths[:-1]))):
            x = hk.Conv2D(depth, _KERNEL, name=f"convolution_{stage}")(_doubled(x))
            x = jax.nn.silu(rms_norm(x, f"scale_{stage}"))
        return jax.nn.sigmoid(hk.Conv2D(channels, _KERNEL, name="image_out")(_doubled(x)))


def _doubled(x: jax.Array) -> jax.Array:
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
