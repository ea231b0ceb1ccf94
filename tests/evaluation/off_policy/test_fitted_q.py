import numpy as np
import pytest

from rlcar.evaluation.off_policy.fitted_q import (
    Bounds,
    FittedQ,
    FittedQSettings,
    Transitions,
    action_values,
    fit,
    value_bounds,
)

STATES, ACTIONS = 5, 2
SETTINGS = FittedQSettings(discount=0.9, members=3, hidden_units=32, updates=2400, batch_size=64)


class Tabular:
    """A random decision process with known values of the policy that always takes action 1."""

    def __init__(self, seed: int = 0):
        random = np.random.default_rng(seed)
        self.move = random.dirichlet(np.full(STATES, 0.5), (STATES, ACTIONS))
        self.reward = random.normal(size=(STATES, ACTIONS))
        step, earned = self.move[:, 1], self.reward[:, 1]
        values = np.linalg.solve(np.eye(STATES) - SETTINGS.discount * step, earned)
        self.action_values = self.reward + SETTINGS.discount * self.move @ values
        self.values = values

    def record(self, rows: int, seed: int = 1) -> tuple[Transitions, np.ndarray]:
        """Returns transitions with random actions, and their discounted returns."""
        random = np.random.default_rng(seed)
        state = random.integers(STATES, size=rows)
        action = random.integers(ACTIONS, size=rows)
        following = np.array(
            [random.choice(STATES, p=self.move[s, a]) for s, a in zip(state, action, strict=True)]
        )
        reward = self.reward[state, action]
        transitions = Transitions(
            one_hot(state, action), one_hot(following, np.ones(rows, int)), reward, np.ones(rows)
        )
        return transitions, reward / (1.0 - SETTINGS.discount)


def one_hot(state: np.ndarray, action: np.ndarray) -> np.ndarray:
    return np.concatenate([np.eye(STATES)[state], np.eye(ACTIONS)[action]], axis=1) * 2.0


STARTS = one_hot(np.arange(STATES), np.ones(STATES, int))


def evaluate(settings: FittedQSettings, bounds: Bounds | None = None) -> FittedQ:
    transitions, returns = Tabular().record(3000)
    member_rows = np.random.default_rng(2).integers(3000, size=(settings.members, 3000))
    limits = bounds or value_bounds(transitions.reward, settings.discount)
    return fit(transitions, member_rows, STARTS, returns, limits, settings)


def test_converged_values_are_those_of_the_exact_solution():
    fitted = evaluate(SETTINGS)
    assert fitted.is_converged
    assert not fitted.is_diverged
    values = action_values(fitted, STARTS).mean(axis=0)
    spread = np.std(Tabular().action_values)
    np.testing.assert_allclose(values, Tabular().values, atol=0.15 * spread)


def test_an_unfinished_evaluation_is_recognised():
    fitted = evaluate(SETTINGS._replace(updates=80))
    assert not fitted.is_converged
    values = action_values(fitted, STARTS).mean(axis=0)
    assert np.abs(values - Tabular().values).max() > 0.15 * np.std(Tabular().action_values)


def test_values_that_rewards_cannot_add_up_to_diverge():
    """The bounds are lower than the true values, as if the values had grown beyond them."""
    fitted = evaluate(SETTINGS, Bounds(0.0, 0.05))
    assert fitted.is_diverged
    assert fitted.beyond > 0.5


def test_equal_seeds_give_equal_values():
    first, second = (evaluate(SETTINGS._replace(updates=80)) for _ in range(2))
    np.testing.assert_array_equal(action_values(first, STARTS), action_values(second, STARTS))


def test_many_rows_get_the_values_of_single_rows():
    fitted = evaluate(SETTINGS._replace(updates=80))
    many = np.tile(STARTS, (4000, 1))
    np.testing.assert_allclose(
        action_values(fitted, many)[:, -STATES:], action_values(fitted, STARTS), rtol=1e-5
    )


def test_bounds_are_rewards_forever_and_contain_the_value_after_the_end():
    assert value_bounds(np.array([-1.0, 2.0]), 0.9) == pytest.approx((-10.0, 20.0))
    assert value_bounds(np.array([1.0, 2.0]), 0.9) == pytest.approx((0.0, 20.0))
