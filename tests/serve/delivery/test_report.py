"""Rollouts as people and programs read them."""

from serve.delivery.counts import RolloutCounts
from serve.delivery.events import Entry, Measured, Measurement, Started
from serve.delivery.report import described, sentence
from serve.delivery.sequential import Outcome
from serve.delivery.specification import default_specification
from serve.delivery.state import fold


def test_laps_of_cars_that_report_only_their_success_are_counted():
    event = Started("r1", 1, 2, default_specification().tree())
    state = fold([Entry(1, 0.0, "test", event)])
    counts = RolloutCounts(successes=[Outcome(1.0, True, 1.0), Outcome(2.0, False, 0.0)])
    assert described(state, counts)["outcomes"] == 2
    counts.add_outcome("reward", Outcome(1.0, True, 900.0))
    assert described(state, counts)["outcomes"] == 2


def test_a_measurement_in_one_sentence():
    measurements = [Measurement("brakes", 0.25, "failure"), Measurement("laps", None, "error")]
    assert sentence(Measured(measurements)) == "brakes: 0.25 failure; laps: no data"
