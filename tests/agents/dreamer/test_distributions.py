"""The heads' distributions, against hand numbers, SciPy and their own inverses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rlcar.agents.dreamer.distributions import (
    TWO_HOT_BINS,
    bounded_normal,
    categorical_kl,
    one_hot_categorical,
    sample_one_hot,
    straight_through,
    symexp,
    symlog,
    two_hot_loss,
    two_hot_mean,
    unimix,
)

MIDDLE = TWO_HOT_BINS // 2
FIRST_BIN = np.expm1(40.0 / 254)  # the value of the bin next to the one at zero


def _random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _encoding(target):
    """Reads the two-hot weights off the gradient: softmax(logits) - encoding."""
    # All probability on a bin far from the target, so that the softmax adds no rounding there.
    far = 0 if target > 0 else TWO_HOT_BINS - 1
    logits = jnp.zeros(TWO_HOT_BINS).at[far].set(200.0)
    encoding = -jax.grad(two_hot_loss)(logits, jnp.asarray(target, jnp.float32))
    return encoding.at[far].add(1.0)


@pytest.mark.parametrize("x", [0.0, 1e-6, 0.5, -3.0, 1000.0, -1e8])
def test_symexp_undoes_symlog(x):
    assert symexp(symlog(jnp.asarray(x))) == pytest.approx(x, rel=1e-5)


def test_symlog_of_e_minus_one_is_one_with_the_sign():
    x = jnp.array([np.e - 1, 1 - np.e], jnp.float32)
    np.testing.assert_allclose(symlog(x), [1.0, -1.0], rtol=1e-6)


@pytest.mark.parametrize(
    "target", [0.0, 1e-3, -0.02, 0.17, 1.0, -1.0, 33.3, -1234.5, 1e6, -1e6, 4e8]
)
def test_the_two_hot_mean_inverts_the_two_hot_encoding(target):
    encoding = _encoding(target)
    assert int(jnp.sum(encoding > 0)) <= 2
    mean = two_hot_mean(jnp.log(encoding))
    assert mean == pytest.approx(target, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("level", [0.0, 3.7])
def test_equal_logits_mean_exactly_zero(level):
    assert (two_hot_mean(jnp.full((4, TWO_HOT_BINS), level)) == 0.0).all()


def test_the_loss_of_a_target_on_a_bin_is_minus_its_log_probability():
    logits = _random(TWO_HOT_BINS)
    expected = -jax.nn.log_softmax(logits)[MIDDLE]
    assert two_hot_loss(logits, jnp.zeros(())) == pytest.approx(float(expected), rel=1e-5)


def test_the_loss_of_a_target_a_quarter_of_the_way_weighs_its_bins_three_to_one():
    logits = _random(TWO_HOT_BINS)
    log_probabilities = jax.nn.log_softmax(logits)
    expected = -0.75 * log_probabilities[MIDDLE] - 0.25 * log_probabilities[MIDDLE + 1]
    target = jnp.asarray(0.25 * FIRST_BIN, jnp.float32)
    assert two_hot_loss(logits, target) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize(("target", "bin_"), [(1e12, TWO_HOT_BINS - 1), (-1e12, 0)])
def test_a_target_beyond_the_range_counts_as_the_outermost_bin(target, bin_):
    logits = _random(TWO_HOT_BINS)
    loss = two_hot_loss(logits, jnp.asarray(target, jnp.float32))
    assert loss == pytest.approx(-float(jax.nn.log_softmax(logits)[bin_]), rel=1e-5)


def test_evenly_spread_uniforms_sample_each_class_as_often_as_its_probability():
    probabilities = jnp.array([0.1, 0.2, 0.3, 0.4])
    uniform = (jnp.arange(10_000) + 0.5) / 10_000
    log_probabilities = jnp.broadcast_to(jnp.log(probabilities), (10_000, 4))
    frequency = jnp.mean(sample_one_hot(log_probabilities, uniform), axis=0)
    np.testing.assert_allclose(frequency, probabilities, atol=2e-4)


def test_a_uniform_above_a_total_short_of_one_picks_the_last_class():
    log_probabilities = jnp.log(jnp.array([0.5, 0.25, 0.2499]))
    almost_one = jnp.asarray(np.nextafter(np.float32(1.0), np.float32(0.0)))
    assert sample_one_hot(log_probabilities, almost_one).tolist() == [0.0, 0.0, 1.0]


def test_straight_through_keeps_the_sample_and_passes_the_gradient_of_the_probabilities():
    logits, weight = _random(2, 4), _random(2, 4, seed=1)
    sample = jax.nn.one_hot(jnp.array([1, 3]), 4)
    passed = straight_through(sample, jax.nn.log_softmax(logits))
    np.testing.assert_allclose(passed, sample, atol=1e-6)
    gradient = jax.grad(
        lambda x: jnp.sum(weight * straight_through(sample, jax.nn.log_softmax(x)))
    )(logits)
    expected = jax.grad(lambda x: jnp.sum(weight * jax.nn.softmax(x)))(logits)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-7)


def test_unimix_gives_every_class_its_share_of_the_uniform_part():
    probabilities = jnp.exp(unimix(jnp.array([1000.0, 0.0, 0.0, 0.0]), 0.01))
    np.testing.assert_allclose(probabilities, [0.9925, 0.0025, 0.0025, 0.0025], rtol=1e-4)


def test_the_divergence_of_one_bit_from_a_fair_coin_is_ln_two_per_group():
    sure = jnp.log(jnp.array([[1.0, 1e-30], [1e-30, 1.0]]))
    fair = jnp.log(jnp.full((2, 2), 0.5))
    assert categorical_kl(sure, fair) == pytest.approx(2 * np.log(2), rel=1e-6)
    assert categorical_kl(fair, fair) == 0.0


def _samples(distribution, heads):
    noise = distribution.noise(jax.random.PRNGKey(0), heads.shape[:-1])
    return distribution.sample(heads, noise)


class TestBoundedNormal:
    """Mean tanh(m), deviation 0.9 sigmoid(d + 2) + 0.1, against SciPy."""

    distribution = bounded_normal(2)
    head = _random(5, 4) * 3.0
    normal = scipy.stats.norm(
        np.tanh(head[:, :2]), 0.9 / (1.0 + np.exp(-np.asarray(head[:, 2:]) - 2.0)) + 0.1
    )

    def test_log_prob_is_that_of_scipy(self):
        action = _random(5, 2, seed=1)
        expected = self.normal.logpdf(np.asarray(action)).sum(axis=-1)
        np.testing.assert_allclose(
            self.distribution.log_prob(self.head, action), expected, rtol=1e-4
        )

    def test_entropy_is_that_of_scipy(self):
        expected = self.normal.entropy().sum(axis=-1)
        np.testing.assert_allclose(self.distribution.entropy(self.head), expected, rtol=1e-5)

    def test_mode_is_the_mean(self):
        np.testing.assert_allclose(self.distribution.mode(self.head), self.normal.mean(), rtol=1e-5)

    def test_samples_have_its_mean_and_deviation(self):
        heads = jnp.broadcast_to(self.head, (20_000, 5, 4))
        samples = np.asarray(_samples(self.distribution, heads))
        np.testing.assert_allclose(samples.mean(axis=0), self.normal.mean(), atol=0.03)
        np.testing.assert_allclose(samples.std(axis=0), self.normal.std(), atol=0.02)


class TestOneHotCategorical:
    """Softmax with one percent of a uniform."""

    distribution = one_hot_categorical(3)
    head = _random(4, 3) * 2.0
    probabilities = 0.99 * np.asarray(jax.nn.softmax(head)) + 0.01 / 3

    def test_log_prob_is_that_of_the_chosen_class(self):
        action = jax.nn.one_hot(jnp.array([0, 2, 1, 1]), 3)
        expected = np.log(self.probabilities[np.arange(4), [0, 2, 1, 1]])
        np.testing.assert_allclose(
            self.distribution.log_prob(self.head, action), expected, rtol=1e-4
        )

    def test_entropy_is_that_of_scipy(self):
        expected = scipy.stats.entropy(self.probabilities, axis=-1)
        np.testing.assert_allclose(self.distribution.entropy(self.head), expected, rtol=1e-4)

    def test_mode_is_the_likeliest_class(self):
        mode = self.distribution.mode(self.head)
        assert jnp.argmax(mode, -1).tolist() == self.probabilities.argmax(-1).tolist()
        assert (jnp.sum(mode, -1) == 1.0).all()

    def test_samples_are_one_hot_and_as_frequent_as_their_probability(self):
        heads = jnp.broadcast_to(self.head, (20_000, 4, 3))
        samples = np.asarray(_samples(self.distribution, heads))
        assert set(np.unique(samples)) == {0.0, 1.0}
        assert (samples.sum(axis=-1) == 1.0).all()
        np.testing.assert_allclose(samples.mean(axis=0), self.probabilities, atol=0.015)
