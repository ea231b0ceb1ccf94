"""How fast are PPO's convolutions inside a loop, as XLA's own and as products with matrices?

Gradients of the encoder of images, 256 images of four frames at a time, on all cores: with XLA's
convolutions outside a loop, with the same inside `jax.lax.scan`, as PPO's passes over minibatches
are, and with the products of `rlcar.agents.ppo.images` inside it. Each figure is the best of two
rounds, because other programs can only slow a round down.
"""

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from header import origin, print_header

from rlcar.agents.ppo.images import Convolution, layers_for, patches

RESULT = Path(__file__).parent / "results" / "image_convolutions.json"
IMAGES, FRAMES, ROUNDS = 256, 4, 2
UNITS = {84: 512, 42: 256}  # after the convolutions, by the side of the images in pixels
Convolve = Callable[[jax.Array, jax.Array, Convolution], jax.Array]


def as_product(x: jax.Array, weights: jax.Array, layer: Convolution) -> jax.Array:
    """The convolution as PPO has it."""
    return patches(x, layer.kernel_px, layer.stride_px) @ weights


def by_xla(x: jax.Array, weights: jax.Array, layer: Convolution) -> jax.Array:
    """XLA's convolution with as many weights."""
    side_px = layer.kernel_px
    kernel = weights.reshape(side_px, side_px, x.shape[3], layer.channels)
    strides = (layer.stride_px, layer.stride_px)
    return jax.lax.conv_general_dilated(
        x, kernel, strides, "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def encode(convolve: Convolve, parameters: list, image: jax.Array) -> jax.Array:
    """Returns the units `[N, units]` of images `[N, size, size, C]` uint8."""
    x = image.astype(jnp.float32) / 255.0
    for weights, layer in zip(parameters, layers_for(image.shape[1]), strict=False):
        x = jax.nn.relu(convolve(x, weights, layer))
    return x.reshape(x.shape[0], -1) @ parameters[-1]


def initial(size_px: int) -> list:
    """Returns the weights of each layer as a matrix."""
    key, channels, side_px, parameters = jax.random.PRNGKey(0), FRAMES, size_px, []
    for layer in layers_for(size_px):
        rows = layer.kernel_px**2 * channels
        parameters.append(0.05 * jax.random.normal(key, (rows, layer.channels)))
        side_px = side_px // layer.stride_px - layer.kernel_px // layer.stride_px + 1
        channels = layer.channels
    rows = side_px**2 * channels
    return [*parameters, 0.02 * jax.random.normal(key, (rows, UNITS[size_px]))]


def make_step(convolve: Convolve) -> Callable[[list, jax.Array], list]:
    """Returns a step of gradient descent on a loss that needs every unit."""

    def loss(parameters: list, image: jax.Array) -> jax.Array:
        return jnp.square(encode(convolve, parameters, image)).mean()

    def step(parameters: list, image: jax.Array) -> list:
        gradients = jax.grad(loss)(parameters, image)
        return jax.tree.map(lambda value, change: value - 1e-3 * change, parameters, gradients)

    return step


def samples_per_s(program: Callable[..., Any], parameters: list, images: jax.Array) -> float:
    """Returns the images per second of a compiled program, without its compilation."""
    jax.block_until_ready(program(parameters, images))
    taken_s = []
    for _ in range(ROUNDS):
        start_s = time.perf_counter()
        jax.block_until_ready(program(parameters, images))
        taken_s.append(time.perf_counter() - start_s)
    return math.prod(images.shape[:-3]) / min(taken_s)


def main() -> None:
    """Measures, prints the figures, and writes the result file."""
    print_header("jax")
    load, figures = os.getloadavg()[0], {}
    for size_px in UNITS:
        parameters = initial(size_px)
        shape = (2, IMAGES, size_px, size_px, FRAMES)
        images = jax.random.randint(jax.random.PRNGKey(1), shape, 0, 256).astype(jnp.uint8)
        rates = {"xla": samples_per_s(jax.jit(make_step(by_xla)), parameters, images[0])}
        for name, convolve in (("xla", by_xla), ("product", as_product)):
            step = make_step(convolve)

            def loop(parameters: list, images: jax.Array, step: Any = step) -> list:
                return jax.lax.scan(lambda p, x: (step(p, x), None), parameters, images)[0]

            rates[f"{name}_in_loop"] = samples_per_s(jax.jit(loop), parameters, images)
        figures |= {f"{name}_{size_px}_px_samples_per_s": rate for name, rate in rates.items()}
        figures[f"loop_slows_xla_{size_px}_px"] = rates["xla"] / rates["xla_in_loop"]
        figures[f"product_over_xla_in_loop_{size_px}_px"] = (
            rates["product_in_loop"] / rates["xla_in_loop"]
        )
    result = {"origin": origin(load), "images": IMAGES, "rounds": ROUNDS, **figures}
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    for name, value in figures.items():
        print(f"figure {name}={value:.4g}")


if __name__ == "__main__":
    main()
