"""The encoder of images is a convolution."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcar.agents import make_agent
from rlcar.agents.ppo.images import encode_image, layers_for, patches
from rlcar.config import make_config
from rlcar.errors import ConfigError
from rlcar.types import Spec


@pytest.mark.parametrize(("size_px", "kernel_px", "stride_px"), [(84, 8, 4), (15, 4, 2), (7, 3, 1)])
def test_the_product_of_patches_is_the_convolution(size_px, kernel_px, stride_px):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, size_px, size_px, 3)).astype(np.float32)
    kernel = rng.normal(size=(kernel_px, kernel_px, 3, 5)).astype(np.float32)
    expected = jax.lax.conv_general_dilated(
        image, kernel, (stride_px, stride_px), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    across = kernel_px // stride_px
    # The patches list blocks of stride x stride pixels, and the pixels of each block.
    blocks = kernel.reshape(across, stride_px, across, stride_px, 3, 5).transpose(0, 2, 1, 3, 4, 5)
    actual = patches(jnp.asarray(image), kernel_px, stride_px) @ blocks.reshape(-1, 5)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size_px", [16, 32, 42, 64, 84])
def test_every_size_of_images_has_an_encoder(size_px):
    encode = hk.without_apply_rng(hk.transform(lambda image: encode_image(image, 8)))
    shape = jax.eval_shape(
        lambda key: encode.init(key, jnp.zeros((3, size_px, size_px, 4), jnp.uint8)),
        jax.random.PRNGKey(0),
    )
    assert len(shape) == len(layers_for(size_px)) + 1


def test_the_world_model_names_the_sizes_that_it_processes():
    config = make_config(environment="rlcar/Catch-v0", algorithm="dreamer")
    with pytest.raises(ConfigError, match=r"image_size_px = 84: dreamer processes .* 16, 32, 64"):
        make_agent(config, Spec(0, 3, True, (84, 84, 1)))
