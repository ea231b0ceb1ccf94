"""The rates of a training, from the counters in its rows."""

import pytest

from serve.soak.run import TrainingRates


def row(time_s, env_steps, train_steps):
    return {"time_s": time_s, "env_steps": env_steps, "learner/train_steps": train_steps}


def test_rates_are_those_of_the_last_minute():
    rates = TrainingRates()
    assert rates.per_s() == (None, None)
    for second in range(0, 200, 10):
        rates.add(row(second, 100 * second, 7 * second))
        rates.add({"time_s": second, "env_steps": 100 * second, "evaluation/lap_rate": 0.5})
    assert rates.per_s() == pytest.approx((100.0, 7.0))
    for second in range(200, 270, 10):
        rates.add(row(second, 19_000, 1330))
    assert rates.per_s() == (0.0, 0.0)


def test_a_resumed_training_counts_anew():
    rates = TrainingRates()
    rates.add(row(0.0, 1000, 10))
    rates.add(row(10.0, 2000, 20))
    rates.add(row(12.0, 1500, 15))
    assert rates.per_s() == (None, None)
    rates.add(row(14.0, 1600, 16))
    assert rates.per_s() == (50.0, 0.5)
