"""The model of the loop obeys the laws that any such loop obeys."""

import pytest

from benchmarks.scale_model import Cluster, Costs, predict

COSTS = Costs(0.1, 0.02, 0.001, block_mb=0.5, weights_mb=1.0, env_steps=256)


def test_few_simulators_are_the_limit_and_twice_as_many_drive_twice_as_much():
    one, two = predict(COSTS, Cluster(1)), predict(COSTS, Cluster(2))
    assert one.env_steps_per_s == pytest.approx(256 / 0.1, rel=0.05)
    assert two.env_steps_per_s == pytest.approx(2 * one.env_steps_per_s, rel=0.05)
    assert one.simulators_busy == pytest.approx(1.0, rel=0.05)
    assert one.learner_busy == pytest.approx(0.2, rel=0.05)


def test_beyond_saturation_simulators_cost_money_and_bring_nothing_but_lag():
    enough, many = predict(COSTS, Cluster(10)), predict(COSTS, Cluster(100))
    assert enough.learner_busy > 0.95
    assert many.env_steps_per_s == pytest.approx(enough.env_steps_per_s, rel=0.03)
    assert many.price_per_million_env_steps > 5 * enough.price_per_million_env_steps
    assert many.lag_blocks > 3 * enough.lag_blocks


def test_on_one_core_all_parts_take_turns():
    found = predict(COSTS, Cluster(2, shared_cores=1))
    assert found.env_steps_per_s == pytest.approx(256 / (0.1 + 0.02 + 0.001), rel=0.05)


def test_a_thin_wire_is_the_limit_of_what_it_carries():
    found = predict(COSTS._replace(learn_s=0.001), Cluster(50, wire_mb_per_s=10.0))
    assert found.wire_mb_per_s == pytest.approx(10.0, rel=0.05)
    assert found.env_steps_per_s < 256 * 10.0 / 0.5


def test_a_driver_that_is_too_slow_is_the_limit_of_any_number_of_simulators():
    found = predict(COSTS._replace(driver_s=0.05), Cluster(200))
    assert found.env_steps_per_s == pytest.approx(256 / 0.05, rel=0.05)
    assert found.learner_busy < 0.5


def test_the_same_seed_gives_the_same_prediction():
    assert predict(COSTS, Cluster(7), seed=3) == predict(COSTS, Cluster(7), seed=3)
