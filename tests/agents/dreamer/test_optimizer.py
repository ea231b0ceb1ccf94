"""Norms of all tensors at once, and the clip that they are for."""

import jax
import numpy as np
import pytest

from rlcar.agents.dreamer.optimizer import clip_by_parameter_norm, tensor_norms

SHAPES = {"vector": (3,), "matrix": (70, 60), "scalar": (), "long": (9000,)}


@pytest.fixture(scope="module")
def tree():
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


@pytest.mark.parametrize("platform", ["cpu", "default"])
def test_each_tensor_has_its_norm(platform, monkeypatch, tree):
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *x, **forms: forms[platform](*x))
    expected = [np.linalg.norm(leaf.astype(np.float64)) for leaf in jax.tree.leaves(tree)]
    # A function of its own: JAX would remember how the other form was traced.
    found = jax.jit(lambda tree: tensor_norms(tree))(tree)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_gradient_is_clipped_to_its_share_of_its_parameter(tree):
    clip = clip_by_parameter_norm(0.3)
    large = jax.tree.map(lambda x: 5.0 * x, tree)
    small = jax.tree.map(lambda x: 0.1 * x, tree)
    clipped, _ = clip.update(large, clip.init(tree), tree)
    kept, _ = clip.update(small, clip.init(tree), tree)
    for name, leaf in tree.items():
        np.testing.assert_allclose(clipped[name], 0.3 * leaf, rtol=1e-5)
        np.testing.assert_array_equal(kept[name], small[name])
