"""The running moments against NumPy over everything seen, by SB3's rules."""

import jax.numpy as jnp
import numpy as np
import pytest

from rlcar.agents.normaliser import (
    initial_moments,
    normalise,
    scale_reward,
    update_moments,
)


def test_moments_in_parts_are_the_moments_of_the_whole():
    random = np.random.default_rng(0)
    parts = [random.normal(3.0, 2.0, (size, 4)) for size in (1, 7, 500)]
    moments = initial_moments((4,))
    for part in parts:
        moments = update_moments(moments, jnp.asarray(part, jnp.float32))
    whole = np.concatenate(parts)
    # The start counts as a ten-thousandth of a sample.
    np.testing.assert_allclose(moments.mean, whole.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(moments.variance, whole.var(axis=0), rtol=1e-3)
    assert moments.count == pytest.approx(508.0001)


def test_a_constant_is_normalised_to_zero_and_an_outlier_to_ten():
    moments = initial_moments((1,))
    for _ in range(3):
        moments = update_moments(moments, jnp.full((1000, 1), 0.5))
    assert normalise(moments, jnp.array([0.5])) == pytest.approx(0.0, abs=1e-2)
    assert normalise(moments, jnp.array([1e6])) == 10.0
    assert normalise(moments, jnp.array([-1e6])) == -10.0


def test_rewards_are_scaled_and_not_shifted():
    returns = update_moments(initial_moments(), jnp.asarray([100.0, 300.0] * 50))
    scaled = scale_reward(returns, jnp.asarray([0.0, 50.0, -50.0, 1e9]))
    np.testing.assert_allclose(scaled, [0.0, 0.5, -0.5, 10.0], rtol=1e-3)


def test_the_rules_are_those_of_vec_normalize():
    running = pytest.importorskip(
        "stable_baselines3.common.running_mean_std", reason="pip install 'rlcar[stable-baselines3]'"
    )
    random = np.random.default_rng(1)
    theirs, ours = running.RunningMeanStd(shape=(6,)), initial_moments((6,))
    for _ in range(5):
        batch = random.normal(1.0, 3.0, (32, 6))
        theirs.update(batch)
        ours = update_moments(ours, jnp.asarray(batch, jnp.float32))
    np.testing.assert_allclose(ours.mean, theirs.mean, rtol=1e-4)
    np.testing.assert_allclose(ours.variance, theirs.var, rtol=1e-4)
    assert float(ours.count) == pytest.approx(theirs.count)
