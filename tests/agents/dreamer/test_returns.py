"""Returns by hand, and their scale."""

import jax.numpy as jnp
import numpy as np
import pytest

from rlcar.agents.dreamer.returns import (
    initial_return_range,
    lambda_returns,
    return_scale,
    update_return_range,
)


def _column(*numbers):
    return jnp.array(numbers, jnp.float32)[:, None]


REWARD, HALF, VALUE = _column(1, 2, 3), _column(0.5, 0.5, 0.5), _column(10, 20, 30)
EVEN = jnp.linspace(0.0, 100.0, 101)  # its 5th and 95th percentiles are 5 and 95


def test_lambda_returns_agree_with_a_table_made_by_hand():
    # 3 + (30 + 30) / 4 = 18;  2 + (20 + 18) / 4 = 11.5;  1 + (10 + 11.5) / 4 = 6.375
    returns = lambda_returns(REWARD, HALF, VALUE, 0.5)
    np.testing.assert_allclose(returns, _column(6.375, 11.5, 18.0))


def test_lambda_one_ignores_every_value_but_the_last():
    returns = lambda_returns(REWARD, HALF, VALUE, 1.0)
    other = lambda_returns(REWARD, HALF, _column(-7, 1e6, 30), 1.0)
    np.testing.assert_array_equal(returns, other)
    np.testing.assert_allclose(returns, _column(6.5, 11.0, 18.0))


def test_lambda_zero_looks_one_step_ahead():
    np.testing.assert_allclose(lambda_returns(REWARD, HALF, VALUE, 0.0), REWARD + HALF * VALUE)


def test_nothing_after_a_terminal_step_counts():
    discount = _column(0.5, 0.0, 0.5)
    returns = lambda_returns(REWARD, discount, VALUE, 0.5)
    np.testing.assert_allclose(returns[1], REWARD[1])
    other = lambda_returns(_column(1, 2, -99), discount, _column(10, -99, -99), 0.5)
    np.testing.assert_array_equal(returns[:2], other[:2])


def test_returns_of_different_columns_do_not_mix():
    both = lambda_returns(
        *(jnp.concatenate([x, -x], axis=1) for x in (REWARD,)),
        jnp.concatenate([HALF, HALF], axis=1),
        jnp.concatenate([VALUE, -VALUE], axis=1),
        0.5,
    )
    np.testing.assert_array_equal(both[:, 0], -both[:, 1])


def test_the_scale_is_right_from_the_first_returns_on():
    state = update_return_range(initial_return_range(), EVEN, rate=0.01)
    assert return_scale(state) == pytest.approx(90.0, rel=1e-4)


def test_the_scale_is_a_weighted_mean_of_the_ranges_seen():
    state = update_return_range(initial_return_range(), EVEN, rate=0.25)
    state = update_return_range(state, 3.0 * EVEN, rate=0.25)
    # Weights 0.75 * 0.25 and 0.25, of 90 and 270.
    assert return_scale(state) == pytest.approx((0.75 * 90 + 270) / 1.75, rel=1e-5)


def test_the_scale_is_never_below_one():
    assert return_scale(initial_return_range()) == 1.0
    assert return_scale(update_return_range(initial_return_range(), 1e-3 * EVEN, 0.5)) == 1.0


def test_one_lucky_return_does_not_flatten_the_others():
    state = update_return_range(initial_return_range(), EVEN.at[-1].set(1e6), rate=0.01)
    assert return_scale(state) == pytest.approx(90.0, rel=1e-4)
