"""What is kept of the laps and answers of two versions, and the values of metrics from it."""

import msgspec
import numpy as np
import pytest

from serve.delivery import counts as counting
from serve.delivery.counts import ArmCounts, RolloutCounts, ShadowCounts
from serve.delivery.operator import parsed_counts
from serve.delivery.sequential import Outcome


def test_three_thousand_laps_are_kept_as_the_newest_2500():
    counts = RolloutCounts()
    for number in range(3000):
        counts.add_outcome("reward", Outcome(1.0 + number, number % 10 == 0, float(number)))
        counts.add_outcome("success", Outcome(1.0 + number, True, 1.0))
    assert sorted(one.value for one in counts.rewards if one.is_canary) == [
        float(number) for number in range(0, 3000, 10)
    ]
    stable = [float(number) for number in range(3000) if number % 10]
    kept = sorted(one.value for one in counts.rewards if not one.is_canary)
    assert kept == stable[-2500:]
    assert counts.rewards_dropped_s == 1.0 + stable[-2501]
    assert sorted(one.time_s for one in counts.successes) == [1.0 + n for n in range(500, 3000)]
    assert counts.successes_dropped_s == 500.0


class Unread(list):
    """A list that may be neither searched nor shortened."""

    def __iter__(self):
        raise AssertionError("all outcomes were read")

    remove = __delitem__ = pop = None


def test_a_lap_reads_no_other_laps(monkeypatch):
    monkeypatch.setattr(counting, "MAX_OUTCOMES", 3)
    counts = RolloutCounts(rewards=Unread())
    for number in range(20):
        counts.add_outcome("reward", Outcome(float(number), number % 2 == 0, 1.0))
    assert sorted(counts.rewards[place].time_s for place in range(6)) == [14, 15, 16, 17, 18, 19]


def test_counts_from_a_file_go_on_with_their_oldest_lap(monkeypatch):
    monkeypatch.setattr(counting, "MAX_OUTCOMES", 3)
    tree = {"rewards": [[7.0, True, 1.0], [5.0, True, 2.0], [6.0, True, 3.0]]}
    counts = parsed_counts({"a": tree})["a"]
    counts.add_outcome("reward", Outcome(8.0, True, 4.0))
    again = parsed_counts({"a": msgspec.to_builtins(counts)})["a"]
    assert sorted(again.rewards) == [(6.0, True, 3.0), (7.0, True, 1.0), (8.0, True, 4.0)]
    assert again.rewards_dropped_s == 5.0


def test_evidence_follows_the_laps():
    counts = RolloutCounts()
    for number, value in enumerate((1.0, 3.0)):
        counts.add_outcome("reward", Outcome(1.0 + number, number == 1, value))
    assert counts.evidence("reward").pairs == 1
    counts.add_outcome("reward", Outcome(3.0, False, 1.0))
    counts.add_outcome("reward", Outcome(4.0, True, 5.0))
    assert (counts.evidence("reward").pairs, counts.evidence("reward").difference) == (2, 3.0)
    total = RolloutCounts()
    total.take_evidence("reward", counts)
    assert total.evidence("reward").pairs == 0
    total.add(counts)
    assert total.evidence("reward") == counts.evidence("reward")


def test_of_too_many_laps_the_newest_are_compared(monkeypatch):
    monkeypatch.setattr(counting, "MAX_OUTCOMES", 10)
    counts = RolloutCounts()
    for number in range(100):  # a stable session that reports without end
        counts.add_outcome("reward", Outcome(1.0 + number, False, 900.0))
    for number in range(5):
        counts.add_outcome("reward", Outcome(101.0 + 2 * number, False, 900.0))
        counts.add_outcome("reward", Outcome(102.0 + 2 * number, True, 500.0))
    assert len(counts.rewards) == 15
    evidence = RolloutCounts().evidence("reward")
    assert not evidence.is_cut
    pooled = RolloutCounts()
    pooled.add(counts)
    evidence = pooled.evidence("reward")
    assert (evidence.pairs, evidence.difference, evidence.is_cut) == (5, -400.0, True)


def test_numbers_that_no_car_can_report_are_left_out():
    values = (np.inf, np.nan, 1e308, -1e308)
    outcomes = [Outcome(1.0 + n, n % 2 == 1, value) for n, value in enumerate(4 * values)]
    counts = RolloutCounts(rewards=[*outcomes, Outcome(50.0, False, 1.0), Outcome(51.0, True, 3.0)])
    assert counts.evidence("reward").difference == 2.0


def test_values_of_metrics():
    counts = RolloutCounts(
        ArmCounts(10, timed=10, latency_s=0.01),
        ArmCounts(20, errors=1, fallbacks=2, timed=20, latency_s=0.04),
        ShadowCounts(10, differing=3, jerk_stable=2.0, jerk_candidate=3.0),
    )
    values = {"errorShare": 0.05, "fallbackShare": 0.1, "latencyRatio": 2.0, "jerkRatio": 1.5,
              "actionDifferenceShare": 0.3, "rewardDifference": None}  # fmt: skip
    assert {name: counts.value(name) for name in values} == pytest.approx(values)
    assert RolloutCounts().value("errorShare") is None
